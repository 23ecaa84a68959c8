// Package capability knows what the two drivers can do with a CSI volume capability, for
// controller and node alike. Pure.
package capability

import (
	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Mode is an access mode.
type Mode = csi.VolumeCapability_AccessMode_Mode

// Name returns CSI's name of the mode, "" for one that it does not know.
func Name(m Mode) string { return csi.VolumeCapability_AccessMode_Mode_name[int32(m)] }

// SingleNode reports whether the mode lets one node have the volume at a time.
func SingleNode(m Mode) bool {
	switch m {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
		return true
	default:
		return false
	}
}

// ReadOnly reports whether the mode allows no writing.
func ReadOnly(m Mode) bool {
	return m == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY || m == csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
}

// Check reports as fault.Invalid, with the way out, what a driver cannot do.
func Check(driver storage.Driver, c *csi.VolumeCapability) error {
	if c == nil {
		return fault.New(fault.Invalid, "volume capability is missing")
	}
	mode, block, fs := c.GetAccessMode().GetMode(), c.GetBlock() != nil, c.GetMount().GetFsType()
	shared := mode == csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER || mode == csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER
	switch {
	case !block && c.GetMount() == nil:
		return fault.New(fault.Invalid, "volume capability has neither block nor mount access")
	case mode == csi.VolumeCapability_AccessMode_UNKNOWN:
		return fault.New(fault.Invalid, "volume capability has no access mode")
	case Name(mode) == "":
		return fault.New(fault.Invalid, "access mode %d is not known", mode)
	case driver == storage.CephFS && block:
		return fault.New(fault.Invalid, "raw block volumes need RBD: CephFS has no block device")
	case driver == storage.CephFS:
		return nil // whatever fsType says, it is CephFS
	case shared && !block:
		return fault.New(fault.Invalid, "access mode %s with a file system on RBD: two nodes would destroy it; use volumeMode Block, or CephFS for a shared file system", Name(mode))
	case fs != "" && fs != "ext4" && fs != "xfs":
		return fault.New(fault.Invalid, "fsType %q: RBD volumes take ext4 or xfs", fs)
	}
	return nil
}
