package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/fence"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// staging is a NodeStageVolume call, read and checked.
type staging struct {
	handle  volumeid.Handle
	volume  string
	target  string
	cap     access
	context volumeid.Context
	secrets map[string]string
	// publication is the controller's name of what allows this staging; may be empty.
	publication string

	// Filled by connect.
	site  clustermap.Cluster
	creds ceph.Credentials
	conn  ceph.Cluster
	fsid  string

	// Filled by announce.
	note   *fence.Stored[fence.Note] // nil when this node may write none
	fenced bool                      // an earlier attachment of this boot was
}

// NodeStageVolume attaches the volume and mounts it on the staging path (for a raw
// block volume: attaches it alone).
func (s *Server) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	st, err := s.readStaging(req)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	var v *staged
	err = s.exclusive(ctx, st.volume, func() (err error) {
		v, err = s.stage(ctx, st)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("stage volume %s: %w", st.volume, err)
	}
	if v != nil {
		s.cfg.Log.Info("volume staged", obs.KeyVolume, st.volume, obs.KeyName, st.context.Name, "mounter", v.mounter(),
			"fs", v.FS, obs.KeyPath, st.target, obs.KeyTook, time.Since(start))
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (s *Server) readStaging(req *csi.NodeStageVolumeRequest) (*staging, error) {
	if req.GetVolumeId() == "" {
		return nil, fault.New(fault.Invalid, "volume_id is missing")
	}
	target, err := readPath("staging_target_path", req.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	c, err := readCapability(s.cfg.Driver, req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	handle, err := s.readID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	vctx, err := readContext(handle, req)
	if err != nil {
		return nil, err
	}
	if vctx.ClusterID == "" {
		vctx.ClusterID = string(handle.Cluster)
	}
	if vctx.ClusterID != string(handle.Cluster) {
		return nil, fault.New(fault.Invalid, "volume_context names cluster %q, the volume id cluster %q", vctx.ClusterID, handle.Cluster)
	}
	c.ro = vctx.ReadOnly == "true" || req.GetPublishContext()[volumeid.PublishReadOnly] == "true"
	return &staging{
		handle: handle, volume: req.GetVolumeId(), target: target, cap: c, context: vctx, secrets: req.GetSecrets(),
		publication: req.GetPublishContext()[volumeid.PublishID],
	}, nil
}

// stage returns nil, nil when the volume is staged so already.
func (s *Server) stage(ctx context.Context, st *staging) (*staged, error) {
	old, err := s.current(st.volume)
	if err != nil {
		return nil, err
	}
	if old != nil {
		ready, err := s.restage(ctx, st, old, s.fencedSince(ctx, st.volume))
		if ready || err != nil {
			return nil, err
		}
	}
	if err := s.connect(ctx, st); err != nil {
		return nil, err
	}
	if err := s.announce(ctx, st); err != nil {
		return nil, err
	}
	v := &staged{
		Volume: st.volume, Boot: s.boot, Cluster: st.handle.Cluster, Staging: st.target, Block: st.cap.block,
		Mode: st.cap.mode.String(), ReadOnly: st.cap.readOnly(), Published: map[string]published{},
	}
	if old != nil {
		v.Published = old.Published // pods are there whatever became of the staging
	}
	if err := os.MkdirAll(st.target, 0o750); err != nil && !dead(st.target) {
		return nil, fmt.Errorf("make staging path: %w", err)
	}
	if s.cfg.Driver == storage.CephFS {
		err = s.stageDirectory(ctx, st, v)
	} else {
		err = s.stageImage(ctx, st, v)
	}
	if err == nil {
		err = s.state.save(v)
	}
	if err != nil {
		if old == nil { // else pods may have it
			s.settleLater(ctx, st.volume, time.Now())
		}
		return nil, err
	}
	return v, nil
}

// current returns the volume's record if it is of this boot; after a reboot nothing of
// it is attached any more.
func (s *Server) current(volume string) (*staged, error) {
	v, err := s.state.load(volume)
	if err != nil || v == nil || v.Boot != s.boot {
		return nil, err
	}
	return v, nil
}

// restage decides what to do with a volume that is staged: true if it is fine as it
// is. What is broken is taken down, so that it can be staged anew.
func (s *Server) restage(ctx context.Context, st *staging, old *staged, fenced *time.Time) (bool, error) {
	trouble := s.ready(ctx, old)
	if fenced != nil && (trouble == nil || !errors.Is(trouble, attach.ErrLost)) {
		trouble = attach.Lost("this node was fenced at %s", fenced.Format(time.RFC3339))
	}
	switch {
	case trouble == nil && old.Staging != st.target:
		return false, fault.New(fault.Precondition, "the volume is staged at %s on this node: unstage it there first", old.Staging)
	case trouble == nil && (old.Block != st.cap.block || old.Mode != st.cap.mode.String()):
		return false, fault.New(fault.Exists, "the volume is staged with access mode %s (block: %t), not %s (block: %t)", old.Mode, old.Block, st.cap.mode, st.cap.block)
	case trouble == nil && old.ReadOnly != st.cap.readOnly():
		return false, fault.New(fault.Exists, "the volume is staged read-only: %t, asked for is %t: unstage it first", old.ReadOnly, st.cap.readOnly())
	case trouble == nil && st.cap.fs != "" && old.FS != "" && st.cap.fs != old.FS:
		return false, fault.New(fault.Exists, "the volume is staged with %s, not %s", old.FS, st.cap.fs)
	case trouble == nil:
		return true, nil
	case !errors.Is(trouble, attach.ErrLost):
		return false, trouble // nothing is known; what works must not be taken down
	}
	s.cfg.Log.Warn("staged volume is broken; staging it anew", obs.KeyVolume, st.volume, obs.KeyError, trouble)
	if err := s.mounts.Drop(old.Staging); err != nil {
		return false, err
	}
	if old.Device != nil {
		if err := s.cfg.Devices.Forget(ctx, *old.Device); err != nil {
			return false, err
		}
	}
	return false, nil // the record stays until the next one: it knows the targets
}

// ready is trouble for a volume that is to be used from now on: what an unfinished
// unstaging has begun is taken back. It runs under the volume's lock.
func (s *Server) ready(ctx context.Context, v *staged) error {
	if err := s.trouble(ctx, v); err != nil || v.Device == nil {
		return err
	}
	return s.cfg.Devices.Keep(ctx, *v.Device)
}

// trouble says what is wrong with a staged volume, nil if nothing is.
func (s *Server) trouble(ctx context.Context, v *staged) error {
	var err error
	switch {
	case v.Device != nil:
		err = s.cfg.Devices.Check(ctx, *v.Device)
	case v.Mount != nil:
		err = s.cfg.Directories.Check(ctx, *v.Mount)
	}
	if err != nil || v.Block {
		return err
	}
	at, err := s.mounts.At(v.Staging)
	switch {
	case err != nil:
		return err
	case at == nil:
		return attach.Lost("nothing is mounted on %s any more", v.Staging)
	case v.Device != nil && at.Source != v.Device.Path:
		return attach.Lost("%s is mounted on %s, not %s", at.Source, v.Staging, v.Device.Path)
	}
	return s.answers(ctx, v.Staging)
}

// connect reaches the volume's cluster.
func (s *Server) connect(ctx context.Context, st *staging) error {
	var err error
	if st.site, err = s.cfg.Clusters.Cluster(st.handle.Cluster); err != nil {
		return err
	}
	if st.creds, err = s.credentials(st.secrets, st.handle.Cluster); err != nil {
		return err
	}
	if st.conn, err = s.cfg.Dialer.Dial(ctx, st.site.Endpoint(), st.creds); err != nil {
		return err
	}
	st.fsid, err = st.conn.FSID(ctx)
	return err
}

// stageDirectory mounts a CephFS volume.
func (s *Server) stageDirectory(ctx context.Context, st *staging, v *staged) error {
	if st.context.SubvolumePath == "" {
		return fault.New(fault.Invalid, "volume_context lacks subvolumePath")
	}
	if st.fenced {
		if err := s.cfg.Directories.Discard(ctx, st.volume); err != nil && !errors.Is(err, fault.Unsupported) && !errors.Is(err, fault.Unavailable) {
			return err
		}
	}
	start := time.Now()
	m, err := s.mountDirectory(ctx, attach.Directory{
		Cluster: st.conn, Volume: st.volume, FSID: st.fsid, Endpoint: st.site.Endpoint(), Credentials: st.creds,
		Filesystem: st.context.Filesystem, Path: st.context.SubvolumePath, ReadOnly: st.cap.readOnly(), Mounter: st.context.Mounter,
		KernelOptions: st.context.KernelMountOptions, FuseOptions: st.context.FuseMountOptions, Options: st.cap.flags,
	}, st.target)
	s.cfg.Observer.Attached(s.cfg.Driver, m.Mounter, time.Since(start), err)
	v.Mount = &m
	if err != nil {
		return err
	}
	if err := s.claimDirectory(ctx, st, m); err != nil {
		return errors.Join(err, s.mounts.Drop(st.target), s.cfg.Directories.Release(context.WithoutCancel(ctx), st.volume, m.Mounter))
	}
	return nil
}

func (s *Server) claimDirectory(ctx context.Context, st *staging, m attach.Mount) error {
	client, err := s.cfg.Directories.Client(ctx, m)
	if err == nil && client == "" {
		s.cfg.Log.Warn("the kernel does not tell its client's address: this mount cannot be fenced", obs.KeyVolume, st.volume)
	}
	if err != nil {
		return err
	}
	return s.claim(ctx, st, m.Mounter, client)
}

// mountDirectory mounts a directory on target. What a living attacher has mounted for
// pods is shown there again, so that they and those to come share it; a dead one is ended.
func (s *Server) mountDirectory(ctx context.Context, dir attach.Directory, target string) (attach.Mount, error) {
	m, found, err := s.cfg.Directories.Adopt(ctx, dir, target)
	if err != nil {
		return m, err
	}
	if found {
		if err := s.answers(ctx, target); !errors.Is(err, attach.ErrLost) {
			return m, err
		}
		if err := s.cfg.Directories.Discard(ctx, dir.Volume); err != nil {
			return m, err
		}
	}
	// Whatever else is mounted there is of no use: it may be dead.
	if err := s.mounts.Drop(target); err != nil {
		return m, err
	}
	return s.cfg.Directories.Mount(ctx, dir, target)
}
