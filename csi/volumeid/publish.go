package volumeid

// PublishReadOnly is the key of CSI's publish_context by which the controller tells the node
// that it may read the volume and not write to it; the value is "true".
const PublishReadOnly = "readOnly"
