package cephtest

import (
	"context"
	"maps"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// subvolumeSnapshot is a snapshot of a subvolume.
type subvolumeSnapshot struct {
	info   ceph.SubvolumeInfo // of the subvolume when it was taken
	copies int                // under way
}

// subvolumeCopy is how a clone came to be.
type subvolumeCopy struct {
	from   *subvolumeSnapshot
	status ceph.CloneStatus
}

func (c *subvolumeCopy) running() bool {
	return c != nil && c.status.State.Running()
}

func (c *subvolumeCopy) unfinished() bool {
	return c != nil && c.status.State != ceph.CloneComplete
}

func (c *subvolumeCopy) end(as ceph.CloneState, reason string) {
	c.from.copies--
	c.status = ceph.CloneStatus{State: as, Percent: -1, Reason: reason}
}

// progress moves a copy on by one state, unless HoldClones is set: whoever asks how far
// it is sees it pending, in progress and complete.
func (s *fakeSubvolumes) progress(v *subvolume) {
	if s.holdClones || !v.copy.running() {
		return
	}
	if v.copy.status.State == ceph.ClonePending {
		v.copy.status.State = ceph.CloneInProgress
		return
	}
	v.copy.end(ceph.CloneComplete, "")
}

// HoldClones makes copies of subvolumes stay where they are, or go on.
func (f *Fake) HoldClones(hold bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holdClones = hold
}

// FailClone makes a copy under way fail.
func (f *Fake) FailClone(filesystem, group, name, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := f.subvolumes[path(filesystem, group, name)]; v.copy.running() {
		v.copy.end(ceph.CloneFailed, reason)
	}
}

func (s *fakeSubvolumes) CreateSnapshot(ctx context.Context, name, snap string) error {
	return s.with(ctx, "CreateSnapshot", name, func(v *subvolume) error {
		if _, ok := v.snapshots[snap]; ok {
			return fault.New(fault.Exists, "subvolume %s has a snapshot %s", name, snap)
		}
		if err := v.ready(name); err != nil {
			return err
		}
		v.snapshots[snap] = &subvolumeSnapshot{info: v.info}
		return nil
	})
}

func (s *fakeSubvolumes) RemoveSnapshot(ctx context.Context, name, snap string) error {
	return s.with(ctx, "RemoveSnapshot", name, func(v *subvolume) error {
		found, ok := v.snapshots[snap]
		if !ok {
			return fault.New(fault.NotFound, "subvolume %s has no snapshot %s", name, snap)
		}
		if found.copies > 0 {
			return fault.New(fault.Busy, "snapshot %s of subvolume %s is being copied", snap, name)
		}
		delete(v.snapshots, snap)
		if v.retired() && len(v.snapshots) == 0 {
			delete(s.subvolumes, s.key(name))
		}
		return nil
	})
}

func (s *fakeSubvolumes) Snapshots(ctx context.Context, name string) (names []string, err error) {
	err = s.with(ctx, "Snapshots", name, func(v *subvolume) error {
		names = slices.Sorted(maps.Keys(v.snapshots))
		return nil
	})
	return names, err
}

func (s *fakeSubvolumes) Clone(ctx context.Context, name string, from ceph.SubvolumeSnapshot, spec ceph.SubvolumeSpec) error {
	if err := s.begin(ctx, "Clone", name); err != nil {
		return err
	}
	defer s.mu.Unlock()
	source, err := s.get(from.Subvolume)
	if err != nil {
		return err
	}
	snap, ok := source.snapshots[from.Snapshot]
	if !ok {
		return fault.New(fault.NotFound, "subvolume %s has no snapshot %s", from.Subvolume, from.Snapshot)
	}
	if _, err := s.get(name); err == nil {
		return fault.New(fault.Exists, "subvolume %s exists", name)
	}
	dataPool := spec.DataPool
	if dataPool == "" {
		dataPool = snap.info.DataPool
	}
	made, err := s.place(name, ceph.SubvolumeSpec{Size: snap.info.Quota, DataPool: dataPool})
	if err != nil {
		return err
	}
	snap.copies++
	made.copy = &subvolumeCopy{from: snap, status: ceph.CloneStatus{State: ceph.ClonePending, Percent: -1}}
	return nil
}

func (s *fakeSubvolumes) CloneStatus(ctx context.Context, name string) (status ceph.CloneStatus, err error) {
	err = s.with(ctx, "CloneStatus", name, func(v *subvolume) error {
		s.progress(v)
		switch {
		case v.copy == nil:
			status = ceph.CloneStatus{State: ceph.CloneComplete, Percent: -1}
		case v.retired():
			return v.ready(name)
		default:
			status = v.copy.status
		}
		return nil
	})
	return status, err
}

func (s *fakeSubvolumes) CancelClone(ctx context.Context, name string) error {
	return s.with(ctx, "CancelClone", name, func(v *subvolume) error {
		if !v.copy.running() {
			return fault.New(fault.Precondition, "no copy into subvolume %s is under way", name)
		}
		v.copy.end(ceph.CloneCanceled, "user interrupted clone operation")
		return nil
	})
}
