package volumeid

// Keys of CSI's publish_context, by which the controller tells the node how it has the volume.
const (
	PublishReadOnly = "readOnly"    // "true": it may read and not write
	PublishID       = "publication" // names this publication: after the volume was taken from the node, and given to it again, another one
)
