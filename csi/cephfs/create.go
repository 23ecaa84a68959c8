package cephfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// copyPause is the pause between two questions how far a copy is.
const copyPause = 250 * time.Millisecond

// Create makes the subvolume and notes its path. Of one that is there Ceph sets quota, mode and owner anew
// (mgr/volumes: "idempotent creation"). So what an earlier call began is not asked for again: that call may still be
// on its way to the manager when this one has answered, and the volume is in use.
func (b *Backend) Create(ctx context.Context, site clustermap.Site, r *record.Record) error {
	switch {
	case r.ReadOnly:
		r.Context["subvolumePath"] = r.Origin.Path
		return nil
	case r.Origin != nil:
		if err := b.copy(ctx, site, r); err != nil {
			return err
		}
	case r.Resumed:
		return record.ErrUnsure
	default:
		spec := ceph.SubvolumeSpec{Size: r.Size, DataPool: r.Settings()["pool"], Mode: rootMode}
		if err := subvolumes(site, r).Create(ctx, r.BackendName(), spec); err != nil {
			return err
		}
	}
	info, err := subvolumes(site, r).Info(ctx, r.BackendName())
	if err != nil {
		return err
	}
	r.Context["subvolumePath"] = info.Path
	return nil
}

// source returns the subvolumes among which the origin's is, and its name.
func source(ctx context.Context, site clustermap.Site, r *record.Record) (ceph.Subvolumes, string, error) {
	h, name, err := r.Origin.Place(storage.CephFS)
	if err != nil {
		return nil, "", err
	}
	list, err := site.Cluster.Filesystems(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, f := range list {
		if f.ID != h.Pool {
			continue
		}
		if fs := r.Context["fsName"]; fs != f.Name {
			return nil, "", fault.New(fault.Invalid, "the source is on file system %s, the volume is to be made on %s: Ceph copies within one only", f.Name, fs)
		}
		return site.Cluster.Subvolumes(f.Name, r.Group), name, nil
	}
	return nil, "", fault.New(fault.NotFound, "the source's file system (id %d) is gone", h.Pool)
}

// copy makes the subvolume by a copy of the origin's snapshot, or of one that is taken for it
// and removed again.
func (b *Backend) copy(ctx context.Context, site clustermap.Site, r *record.Record) error {
	from, name, err := source(ctx, site, r)
	if err != nil {
		return err
	}
	begun, err := b.begin(ctx, site, r, from, name)
	if err != nil {
		return err
	}
	if err := b.wait(ctx, site, r, begun); err != nil {
		return err
	}
	if err := dropOwnSnapshot(ctx, site, r); err != nil {
		return err
	}
	info, err := subvolumes(site, r).Info(ctx, r.BackendName())
	if err != nil {
		return err
	}
	if info.Quota >= r.Size { // a copy has its source's quota, which may have grown meanwhile
		r.Size = info.Quota
		return nil
	}
	return subvolumes(site, r).Resize(ctx, r.BackendName(), r.Size)
}

// begin starts the copy unless an earlier call did.
func (b *Backend) begin(ctx context.Context, site clustermap.Site, r *record.Record, from ceph.Subvolumes, name string) (ceph.CloneStatus, error) {
	status, err := subvolumes(site, r).CloneStatus(ctx, r.BackendName())
	if !errors.Is(err, fault.NotFound) {
		return status, err
	}
	if r.Origin.Kind == record.KindVolume {
		if err := from.CreateSnapshot(ctx, name, r.BackendName()); err != nil && !errors.Is(err, fault.Exists) {
			return status, err
		}
	}
	snapshot := ceph.SubvolumeSnapshot{Subvolume: name, Snapshot: r.SourceSnapshot()}
	err = from.Clone(ctx, r.BackendName(), snapshot, ceph.SubvolumeSpec{DataPool: r.Settings()["pool"]})
	if err != nil && !errors.Is(err, fault.Exists) {
		return status, err
	}
	return ceph.CloneStatus{State: ceph.ClonePending}, nil
}

// wait returns when the copy is done. One that failed is not begun again under the same
// name: what it left is removed with the volume.
func (b *Backend) wait(ctx context.Context, site clustermap.Site, r *record.Record, status ceph.CloneStatus) error {
	err := poll.Until(ctx, copyPause, func() (done bool, err error) {
		switch status.State {
		case ceph.CloneComplete:
			return true, nil
		case ceph.CloneFailed, ceph.CloneCanceled:
			return false, fault.New(fault.Precondition, "the copy of %s is %s: %s", r.Origin.Handle, status.State, status.Reason)
		}
		status, err = subvolumes(site, r).CloneStatus(ctx, r.BackendName())
		return status.State == ceph.CloneComplete, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the copy of %s is %s; it goes on, ask again: %w", r.Origin.Handle, progress(status), err)
	}
	return err
}

func running(status ceph.CloneStatus) bool {
	return status.State == ceph.ClonePending || status.State == ceph.CloneInProgress
}

// progress is how far a copy is, for people.
func progress(status ceph.CloneStatus) string {
	if status.Percent > 0 {
		return fmt.Sprintf("%s, %d %% done", status.State, status.Percent)
	}
	return string(status.State)
}

// copying is the condition of a volume that is being made.
func (b *Backend) copying(ctx context.Context, site clustermap.Site, r *record.Record) (storage.Condition, error) {
	if r.Origin == nil {
		return storage.Condition{Abnormal: true, Message: "the volume is being made"}, nil
	}
	status, err := subvolumes(site, r).CloneStatus(ctx, r.BackendName())
	if errors.Is(err, fault.NotFound) {
		return storage.Condition{Abnormal: true, Message: "the volume is being made; its copy has not begun"}, nil
	}
	return storage.Condition{Abnormal: true, Message: "the volume is being copied: " + progress(status)}, err
}

// dropOwnSnapshot removes the snapshot that was taken of a volume for the copy r alone.
func dropOwnSnapshot(ctx context.Context, site clustermap.Site, r *record.Record) error {
	if r.Origin == nil || r.Origin.Kind != record.KindVolume {
		return nil
	}
	from, name, err := source(ctx, site, r)
	if err == nil {
		err = from.RemoveSnapshot(ctx, name, r.BackendName())
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
