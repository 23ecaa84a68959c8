package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
)

// NodePublishVolume shows a staged volume at a pod's target path.
func (s *Server) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, fault.New(fault.Invalid, "volume_id is missing")
	}
	target, err := readPath("target_path", req.GetTargetPath())
	if err != nil {
		return nil, err
	}
	c, err := readCapability(s.cfg.Driver, req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	staging, err := readPath("staging_target_path", req.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	if _, err := s.readID(req.GetVolumeId()); err != nil {
		return nil, err
	}
	want := published{Mode: c.mode.String(), ReadOnly: req.GetReadonly() || c.readOnly(), Block: c.block}
	err = s.exclusive(ctx, req.GetVolumeId(), func() error { return s.publish(ctx, req.GetVolumeId(), staging, target, c, want) })
	if err != nil {
		return nil, fmt.Errorf("publish volume %s: %w", req.GetVolumeId(), err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (s *Server) publish(ctx context.Context, volume, staging, target string, c access, want published) error {
	v, err := s.current(volume)
	switch {
	case err != nil:
		return err
	case v == nil || v.Staging != staging:
		return fault.New(fault.Precondition, "the volume is not staged at %s", staging)
	case v.Block != c.block:
		return fault.New(fault.Precondition, "the volume is staged with block: %t, not block: %t", v.Block, c.block)
	}
	want.ReadOnly = want.ReadOnly || v.ReadOnly
	if err := s.ready(ctx, v); err != nil {
		return fault.As(fault.Precondition, fmt.Errorf("the staged volume is broken, stage it again: %w", err))
	}
	have, known := v.Published[target]
	if known && s.shown(v, target, have.ReadOnly) {
		if have != want {
			return fault.New(fault.Exists, "the volume is published at %s as %+v, not as %+v", target, have, want)
		}
		return nil
	}
	if err := s.alone(v, target, c, want); err != nil {
		return err
	}
	// The note goes first: what is shown is known, whatever happens in between.
	v.Published[target] = want
	if err := s.state.save(v); err != nil {
		return err
	}
	if err := s.show(v, target, want); err != nil {
		return err
	}
	s.cfg.Log.Info("volume published", obs.KeyVolume, volume, obs.KeyPath, target, "readonly", want.ReadOnly)
	return nil
}

// alone refuses what the other targets of the volume forbid.
func (s *Server) alone(v *staged, target string, c access, want published) error {
	for path, other := range v.Published {
		if path == target || !s.shown(v, path, false) {
			continue
		}
		if c.oneTarget() || other.Mode != want.Mode && other.Mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER.String() {
			return fault.New(fault.Precondition, "the volume is published at %s, and access mode %s allows one target path", path, c.mode)
		}
		if v.Block && other.ReadOnly != want.ReadOnly && !v.ReadOnly {
			return fault.New(fault.Precondition, "the raw device is published at %s (read-only: %t): a device is read-only for all or for none", path, other.ReadOnly)
		}
	}
	return nil
}

// shown reports whether the staged volume is what stands at target. readOnly: it must not
// be writable there; a crash between bind and remount leaves it so.
func (s *Server) shown(v *staged, target string, readOnly bool) bool {
	if v.Block {
		var a, b unix.Stat_t
		return unix.Stat(target, &a) == nil && unix.Stat(v.Device.Path, &b) == nil && a.Mode&unix.S_IFMT == unix.S_IFBLK && a.Rdev == b.Rdev
	}
	there, err := s.mounts.At(target)
	if err != nil || there == nil || readOnly && !slices.Contains(strings.Split(there.Options, ","), "ro") {
		return false
	}
	here, err := s.mounts.At(v.Staging)
	return err == nil && here != nil && here.Major == there.Major && here.Minor == there.Minor && here.Root == there.Root
}

// show binds the volume to target, over nothing: what is mounted there is stale.
func (s *Server) show(v *staged, target string, want published) error {
	if err := s.mounts.Drop(target); err != nil {
		return err
	}
	if err := makeTarget(target, v.Block); err != nil {
		return err
	}
	if !v.Block {
		return s.mounts.Bind(v.Staging, target, want.ReadOnly)
	}
	// A read-only mount of a device node does not keep anybody from writing to the
	// device: the device itself is set read-only.
	if !v.ReadOnly {
		if err := setReadOnly(v.Device.Path, want.ReadOnly); err != nil {
			return err
		}
	}
	return s.mounts.Bind(v.Device.Path, target, false)
}

// makeTarget makes what is mounted on: a file for a device, a directory for the rest.
func makeTarget(target string, block bool) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return fmt.Errorf("make target path: %w", err)
	}
	if !block {
		if err := os.Mkdir(target, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make target path: %w", err)
		}
		return nil
	}
	if info, err := os.Lstat(target); err == nil && info.IsDir() {
		_ = os.Remove(target) // some callers make a directory; OpenFile tells if it is not empty
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make target path: %w", err)
	}
	return f.Close()
}

// setReadOnly sets the block device's own flag (BLKROSET).
func setReadOnly(device string, readOnly bool) error {
	f, err := os.Open(device)
	if err != nil {
		return fmt.Errorf("set %s read-only: %w", device, err)
	}
	defer f.Close()
	value := 0
	if readOnly {
		value = 1
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, value); err != nil {
		return fmt.Errorf("set %s read-only (%t): %w", device, readOnly, err)
	}
	return nil
}

// NodeUnpublishVolume takes a target path away. One that is gone is done.
func (s *Server) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, fault.New(fault.Invalid, "volume_id is missing")
	}
	target, err := readPath("target_path", req.GetTargetPath())
	if err != nil {
		return nil, err
	}
	if _, err := s.readKnown(req.GetVolumeId()); err != nil {
		return nil, err
	}
	err = s.exclusive(ctx, req.GetVolumeId(), func() error { return s.unpublish(req.GetVolumeId(), target) })
	if err != nil {
		return nil, fmt.Errorf("unpublish volume %s: %w", req.GetVolumeId(), err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (s *Server) unpublish(volume, target string) error {
	if err := unmountOne(s.mounts, target); err != nil {
		return err
	}
	// Remove, not RemoveAll: if anything is in there it is not ours.
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove target path: %w", err)
	}
	v, err := s.current(volume)
	if err != nil || v == nil {
		return err
	}
	if _, known := v.Published[target]; !known {
		return nil
	}
	delete(v.Published, target)
	s.cfg.Log.Info("volume unpublished", obs.KeyVolume, volume, obs.KeyPath, target)
	return s.state.save(v)
}
