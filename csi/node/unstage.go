package node

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// NodeUnstageVolume unmounts the staging path and detaches the volume.
func (s *Server) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, fault.New(fault.Invalid, "volume_id is missing")
	}
	target, err := readPath("staging_target_path", req.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	handle, err := s.readKnown(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	err = s.exclusive(ctx, req.GetVolumeId(), func() error { return s.unstage(ctx, req.GetVolumeId(), handle, target) })
	if err != nil {
		return nil, fmt.Errorf("unstage volume %s: %w", req.GetVolumeId(), err)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (s *Server) unstage(ctx context.Context, volume string, handle volumeid.Handle, target string) error {
	v, err := s.current(volume)
	if err != nil {
		return err
	}
	if v != nil && v.Staging != target {
		// Staged elsewhere: this path alone is cleared.
		return unmountOne(s.mounts, target)
	}
	if v != nil {
		if at := s.stillPublished(v); at != "" {
			return fault.New(fault.Precondition, "the volume is still published at %s: unpublish it first", at)
		}
	}
	if err := unmountOne(s.mounts, target); err != nil {
		return err
	}
	if err := s.detach(ctx, volume, handle, v); err != nil {
		return err
	}
	s.settleLater(ctx, volume, time.Time{})
	if v != nil {
		s.cfg.Log.Info("volume unstaged", obs.KeyVolume, volume, "mounter", v.mounter(), obs.KeyPath, target)
	}
	return s.state.remove(volume)
}

// stillPublished returns a target path that is still mounted, "" without one.
func (s *Server) stillPublished(v *staged) string {
	var paths []string
	for path := range v.Published {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	for _, path := range paths {
		if at, err := s.mounts.At(path); err == nil && at != nil {
			return path
		}
	}
	return ""
}

// detach ends what stands behind the staging path. Without a record (the state is lost,
// or the machine was rebooted) it is looked for.
func (s *Server) detach(ctx context.Context, volume string, handle volumeid.Handle, v *staged) error {
	if s.cfg.Driver == storage.CephFS {
		mounter := ""
		if v != nil {
			mounter = v.mounter()
		}
		if mounter == attach.UserFS && s.fencedSince(ctx, volume) != nil {
			return s.cfg.Directories.Discard(ctx, volume) // it can write back nothing, and waits for that
		}
		return s.cfg.Directories.Release(ctx, volume, mounter)
	}
	if v != nil && v.Device != nil {
		return s.cfg.Devices.Detach(ctx, *v.Device)
	}
	image := volumeid.BackendName(handle.Incarnation)
	if uuid := handle.Foreign.UUID; uuid != "" {
		image = "csi-vol-" + uuid // unless its StorageClass said otherwise, which nobody says here
	}
	dev, found, err := s.cfg.Devices.Guess(ctx, volume, image)
	if err != nil || !found {
		return err
	}
	return s.cfg.Devices.Detach(ctx, dev)
}
