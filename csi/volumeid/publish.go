package volumeid

import (
	"encoding/json"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Keys of CSI's publish_context, by which the controller tells the node how it has the volume.
const (
	PublishReadOnly = "readOnly"    // "true": it may read and not write
	PublishID       = "publication" // names this publication: after the volume was taken from the node, and given to it again, another one
	// PublishVolume is the volume's context, of a volume that ceph-csi made. Its volume_context is what ceph-csi
	// wrote, which changed with its versions; what counts is what its journal says.
	PublishVolume = "volume"
)

// EncodePublished writes a volume's context as the value of PublishVolume.
func EncodePublished(context map[string]string) string {
	data, _ := json.Marshal(context) // of texts alone
	return string(data)
}

// ParsePublished reads a value of PublishVolume, and from ceph-csi's volume_context what the people who made the
// volume wanted of a mount.
func ParsePublished(value string, old map[string]string) (Context, error) {
	var fields map[string]string
	if err := json.Unmarshal([]byte(value), &fields); err != nil {
		return Context{}, fault.New(fault.Invalid, "publish_context lacks %q, by which the controller describes a volume that ceph-csi made: it must be published first", PublishVolume)
	}
	c, err := ParseContext(fields)
	if err != nil {
		return c, err
	}
	c.MkfsOptions, c.KernelMountOptions, c.FuseMountOptions = old["mkfsOptions"], old["kernelMountOptions"], old["fuseMountOptions"]
	return c, nil
}
