package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// CreateSnapshot asks first whether the snapshot is there: the manager answers a second
// creation with success (mksnap in the volumes module's fs/operations/snapshot_util.py), so
// it cannot tell. Two callers at once may both succeed.
func (s *subvolumes) CreateSnapshot(ctx context.Context, name, snapshot string) error {
	_, err := s.snapshot(ctx, "info", name, snapshot)
	if err == nil {
		return fault.New(fault.Exists, "subvolume %s/%s/%s has a snapshot %s", s.filesystem, s.group, name, snapshot)
	}
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	_, err = s.snapshot(ctx, "create", name, snapshot)
	return err
}

func (s *subvolumes) snapshot(ctx context.Context, verb, name, snapshot string) ([]byte, error) {
	return s.mgr(ctx, "fs subvolume snapshot "+verb, name, map[string]any{"snap_name": snapshot})
}

func (s *subvolumes) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	_, err := s.snapshot(ctx, "rm", name, snapshot)
	if isAgain(err) {
		return fault.New(fault.Busy, "the snapshot is being copied; wait for its clones or cancel them: %v", err)
	}
	if errors.Is(err, fault.NotFound) {
		return errors.Join(err, s.finishRetired(ctx, name))
	}
	return err
}

// finishRetired removes a retired subvolume that has no snapshots left: a manager that dies
// between the removal of the last snapshot and that of the subvolume leaves one.
func (s *subvolumes) finishRetired(ctx context.Context, name string) error {
	info, err := s.Info(ctx, name)
	if errors.Is(err, fault.NotFound) || err == nil && info.State != ceph.SubvolumeRetained {
		return nil
	}
	if err != nil {
		return err
	}
	err = s.Remove(ctx, name)
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Busy) {
		return nil
	}
	return err
}

func (s *subvolumes) Snapshots(ctx context.Context, name string) ([]string, error) {
	out, err := s.mgr(ctx, "fs subvolume snapshot ls", name, nil)
	if err != nil {
		return nil, err
	}
	return decodeNames(out)
}

// decodeNames reads [{"name": "a"}, ...], sorted.
func decodeNames(out []byte) ([]string, error) {
	var entries []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(out, &entries); err != nil {
		return nil, fmt.Errorf("decode list of names: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	return names, nil
}

// Clone asks first whether the name is taken: the manager itself would put the copy
// into a retired subvolume, beside the snapshots of another.
func (s *subvolumes) Clone(ctx context.Context, name string, from ceph.SubvolumeSnapshot, spec ceph.SubvolumeSpec) error {
	if _, err := s.Info(ctx, name); err == nil {
		return fault.New(fault.Exists, "subvolume %s/%s/%s exists", s.filesystem, s.group, name)
	} else if !errors.Is(err, fault.NotFound) {
		return err
	}
	more := map[string]any{"snap_name": from.Snapshot, "target_sub_name": name, "target_group_name": s.group}
	if spec.DataPool != "" {
		more["pool_layout"] = spec.DataPool
	}
	_, err := s.mgr(ctx, "fs subvolume snapshot clone", from.Subvolume, more)
	return err
}

func (s *subvolumes) CloneStatus(ctx context.Context, name string) (ceph.CloneStatus, error) {
	out, err := s.mgr(ctx, "fs clone status", "", map[string]any{"clone_name": name})
	if errors.Is(err, fault.Unsupported) {
		return ceph.CloneStatus{State: ceph.CloneComplete, Percent: -1}, nil // made empty
	}
	if err != nil {
		return ceph.CloneStatus{}, err
	}
	return decodeCloneStatus(out)
}

func (s *subvolumes) CancelClone(ctx context.Context, name string) error {
	_, err := s.mgr(ctx, "fs clone cancel", "", map[string]any{"clone_name": name})
	if errors.Is(err, fault.Invalid) || errors.Is(err, fault.Unsupported) {
		return fault.New(fault.Precondition, "no copy into subvolume %s is under way: %v", name, err)
	}
	return err
}
