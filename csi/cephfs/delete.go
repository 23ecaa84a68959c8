package cephfs

import (
	"context"
	"errors"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Delete removes the subvolume, or all of it but its snapshots. Ceph moves it aside and frees
// its space in the background; clients that have it mounted do not hinder that.
func (b *Backend) Delete(ctx context.Context, site clustermap.Site, r *record.Record) error {
	if r.ReadOnly {
		return nil
	}
	if r.Foreign != nil {
		return b.deleteForeign(ctx, site, r)
	}
	name, list := r.BackendName(), subvolumes(site, r)
	var err error
	if r.Origin != nil {
		err = b.discard(ctx, list, name)
	} else {
		err = removeOrRetire(ctx, list, name)
	}
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	return dropOwnSnapshot(ctx, site, r)
}

// discard is removeOrRetire for what may be a copy under way, of which nothing can be removed.
func (b *Backend) discard(ctx context.Context, list ceph.Subvolumes, name string) error {
	if status, err := list.CloneStatus(ctx, name); err == nil && running(status) {
		if err := list.CancelClone(ctx, name); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
	}
	return removeOrRetire(ctx, list, name)
}

func removeOrRetire(ctx context.Context, list ceph.Subvolumes, name string) error {
	err := list.Remove(ctx, name)
	if errors.Is(err, fault.Busy) {
		err = list.Retire(ctx, name)
	}
	return err
}

// Flatten has nothing to do: a copy shares nothing.
func (b *Backend) Flatten(context.Context, clustermap.Site, *record.Record, func(done, total uint64)) error {
	return nil
}

// Reap has nothing to do: Ceph itself purges what was removed.
func (b *Backend) Reap(context.Context, clustermap.Site, func(context.Context, string) (bool, error)) (bool, error) {
	return false, nil
}
