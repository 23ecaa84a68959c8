package node

import (
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

type mode = csi.VolumeCapability_AccessMode_Mode

// capability is a volume capability, read and checked.
type capability struct {
	mode  mode
	block bool
	fs    string // asked for; may be empty
	flags []string
}

// singleNode: one node alone may have the volume.
func (c capability) singleNode() bool {
	switch c.mode {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
		return true
	}
	return false
}

// readOnly: the access mode allows no writing.
func (c capability) readOnly() bool {
	return c.mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY || c.mode == csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
}

// oneTarget: a second target path on this node is refused (CSI's second table of
// NodePublishVolume, for plugins with SINGLE_NODE_MULTI_WRITER).
func (c capability) oneTarget() bool {
	return c.singleNode() && c.mode != csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
}

func readCapability(driver storage.Driver, vc *csi.VolumeCapability) (capability, error) {
	var c capability
	if vc == nil {
		return c, fault.New(fault.Invalid, "volume_capability is missing")
	}
	if vc.GetAccessMode() == nil || vc.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_UNKNOWN {
		return c, fault.New(fault.Invalid, "volume_capability has no access_mode")
	}
	c.mode = vc.GetAccessMode().GetMode()
	switch {
	case vc.GetBlock() != nil:
		c.block = true
	case vc.GetMount() != nil:
		c.fs, c.flags = vc.GetMount().GetFsType(), vc.GetMount().GetMountFlags()
	default:
		return c, fault.New(fault.Invalid, "volume_capability has no access_type: want mount or block")
	}
	if driver == storage.CephFS {
		if c.block {
			return c, fault.New(fault.Invalid, "volume_capability: a CephFS volume cannot be a raw block device")
		}
		return c, nil
	}
	switch c.fs {
	case "", "ext4", "xfs":
	default:
		return c, fault.New(fault.Invalid, "volume_capability: fs_type %q: want ext4 or xfs", c.fs)
	}
	many := c.mode == csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER || c.mode == csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER
	if many && !c.block {
		return c, fault.New(fault.Invalid, "volume_capability: %s: a file system on an RBD image can be written by one node alone; take CephFS, or a raw block device", c.mode)
	}
	return c, nil
}

// readID checks a volume id: missing is fault.Invalid, not ours is fault.NotFound.
func (s *Server) readID(id string) (volumeid.Handle, error) {
	if id == "" {
		return volumeid.Handle{}, fault.New(fault.Invalid, "volume_id is missing")
	}
	h, err := volumeid.Parse(id)
	if err != nil {
		return h, err
	}
	if h.Driver != s.cfg.Driver {
		return h, fault.New(fault.NotFound, "volume id %q belongs to driver %s, this is %s", id, h.Driver, s.cfg.Driver)
	}
	return h, nil
}

// readPath checks a path of a request.
func readPath(name, path string) (string, error) {
	if path == "" {
		return "", fault.New(fault.Invalid, "%s is missing", name)
	}
	if !filepath.IsAbs(path) {
		return "", fault.New(fault.Invalid, "%s %q is not an absolute path", name, path)
	}
	return resolvePath(path), nil
}

// credentials are those of the request's secrets, or the service's own.
func (s *Server) credentials(secrets map[string]string, cluster storage.ClusterID) (ceph.Credentials, error) {
	for _, kind := range []string{"user", "admin"} {
		if secrets[kind+"ID"] != "" && secrets[kind+"Key"] != "" {
			return ceph.Credentials{User: secrets[kind+"ID"], Key: storage.NewSecret(secrets[kind+"Key"])}, nil
		}
	}
	if len(secrets) > 0 {
		return ceph.Credentials{}, fault.New(fault.Denied, "the secrets hold no userID and userKey (check the StorageClass's node-stage-secret)")
	}
	return s.cfg.Clusters.Credentials(cluster)
}
