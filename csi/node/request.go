package node

import (
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/capability"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// access is a volume capability, read and checked.
type access struct {
	mode  capability.Mode
	block bool
	fs    string // asked for; may be empty
	flags []string
	ro    bool // volume or publication can only be read, whatever the mode
}

// oneTarget: a second target path on this node is refused (CSI's second table of
// NodePublishVolume, for plugins with SINGLE_NODE_MULTI_WRITER).
func (a access) oneTarget() bool {
	return capability.SingleNode(a.mode) && a.mode != csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
}

// readOnly: volume, publication or access mode allow no writing.
func (a access) readOnly() bool { return a.ro || capability.ReadOnly(a.mode) }

func readCapability(driver storage.Driver, vc *csi.VolumeCapability) (access, error) {
	if err := capability.Check(driver, vc); err != nil {
		return access{}, err
	}
	return access{
		mode: vc.GetAccessMode().GetMode(), block: vc.GetBlock() != nil,
		fs: vc.GetMount().GetFsType(), flags: vc.GetMount().GetMountFlags(),
	}, nil
}

// readID checks a volume id: missing is fault.Invalid, not ours is fault.NotFound.
func (s *Server) readID(id string) (volumeid.Handle, error) {
	if id == "" {
		return volumeid.Handle{}, fault.New(fault.Invalid, "volume_id is missing")
	}
	h, err := volumeid.Parse(id)
	if err != nil {
		f, notForeign := volumeid.ParseForeign(id)
		if notForeign != nil {
			return h, err
		}
		entry, err := s.cfg.Clusters.Cluster(storage.ClusterID(f.Cluster))
		if err != nil {
			return h, err
		}
		return f.Handle(s.cfg.Driver, entry.ID), nil
	}
	if h.Driver != s.cfg.Driver {
		return h, fault.New(fault.NotFound, "volume id %q belongs to driver %s, this is %s", id, h.Driver, s.cfg.Driver)
	}
	return h, nil
}

// readKnown is readID for what ends a volume here or looks at it, which needs no cluster: the name by which ceph-csi
// called that may have been taken out of the cluster map while pods have the volume. The handle may lack its cluster.
func (s *Server) readKnown(id string) (volumeid.Handle, error) {
	h, err := s.readID(id)
	if err == nil {
		return h, nil
	}
	if f, notForeign := volumeid.ParseForeign(id); notForeign == nil {
		return f.Handle(s.cfg.Driver, ""), nil
	}
	return h, err
}

// readContext reads what describes the volume: for one that ceph-csi made, what the controller found of it.
func readContext(handle volumeid.Handle, req *csi.NodeStageVolumeRequest) (volumeid.Context, error) {
	if handle.Foreign.IsZero() {
		return volumeid.ParseContext(req.GetVolumeContext())
	}
	return volumeid.ParsePublished(req.GetPublishContext()[volumeid.PublishVolume], req.GetVolumeContext())
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
