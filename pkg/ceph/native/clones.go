package native

import (
	"context"
	"errors"
	"strings"

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
	switch {
	case isAgain(err):
		return s.whyKept(ctx, name, snapshot, err)
	case errors.Is(err, fault.NotFound):
		if finishErr := s.finishRetired(ctx, name); finishErr != nil {
			return finishErr
		}
	}
	return err
}

// whyKept makes of the manager's refusal to remove a snapshot Busy, if copies of it are
// under way.
func (s *subvolumes) whyKept(ctx context.Context, name, snapshot string, refusal error) error {
	out, err := s.snapshot(ctx, "info", name, snapshot)
	if err != nil {
		return err
	}
	clones, err := decodePendingClones(out)
	if err != nil || len(clones) == 0 {
		return refusal
	}
	return fault.New(fault.Busy, "it is being copied into %s; wait for that or cancel it: %v", strings.Join(clones, ", "), refusal)
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

// Clone asks first whether the name is taken: the manager itself would put the copy
// into a retired subvolume, beside the snapshots of another.
func (s *subvolumes) Clone(ctx context.Context, name string, from ceph.SubvolumeSnapshot, spec ceph.SubvolumeSpec) error {
	switch _, err := s.ask(ctx, name); {
	case err == nil || isAgain(err):
		return fault.New(fault.Exists, "subvolume %s/%s/%s exists", s.filesystem, s.group, name)
	case !errors.Is(err, fault.NotFound):
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
	status, err := s.askClone(ctx, name)
	if !errors.Is(err, fault.Unsupported) {
		return status, err
	}
	// It was made empty, or the manager cannot say: then it cannot say this either.
	if _, err := s.ask(ctx, name); err != nil {
		return ceph.CloneStatus{}, err
	}
	return ceph.CloneStatus{State: ceph.CloneComplete, Percent: -1}, nil
}

// askClone fails with fault.Unsupported for a subvolume that is no clone.
func (s *subvolumes) askClone(ctx context.Context, name string) (ceph.CloneStatus, error) {
	out, err := s.mgr(ctx, "fs clone status", "", map[string]any{"clone_name": name})
	if err != nil {
		return ceph.CloneStatus{}, err
	}
	return decodeCloneStatus(out)
}

// CancelClone takes until the copy has noticed, which it looks for after each piece of a
// file; no other command of the volumes module is answered meanwhile (16.2).
func (s *subvolumes) CancelClone(ctx context.Context, name string) error {
	_, err := s.mgr(ctx, "fs clone cancel", "", map[string]any{"clone_name": name})
	if !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.Unsupported) {
		return err
	}
	status, statusErr := s.CloneStatus(ctx, name)
	switch {
	case statusErr != nil:
		return statusErr
	case status.State.Running():
		return fault.New(fault.Unavailable, "the copy goes on; try again: %v", err)
	}
	return fault.New(fault.Precondition, "no copy is under way: %v", err)
}
