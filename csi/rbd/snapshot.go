package rbd

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Limits of the snapshots of an image, those included that only clones need. The kernel
// client maps none with more than 510 (RBD_MAX_SNAP_COUNT); from manySnapshots on, clones are
// flattened so that what only they need can go.
const (
	maxSnapshots  = 450
	manySnapshots = 250
)

// Snapshot takes a snapshot of the volume's image.
func (b *Backend) Snapshot(ctx context.Context, site clustermap.Site, r *record.Record) (crowded bool, err error) {
	from, err := sourceOf(ctx, site, r)
	if err != nil {
		return false, err
	}
	image := from.name
	list, err := from.images.Snapshots(ctx, image)
	if err != nil {
		return false, err
	}
	taken := slices.ContainsFunc(list, func(s ceph.ImageSnapshot) bool { return s.Name == r.BackendName() })
	if len(list) >= maxSnapshots && !taken {
		return false, full(list)
	}
	err = from.images.CreateSnapshot(ctx, image, r.BackendName())
	if err != nil && !errors.Is(err, fault.Exists) {
		return false, err
	}
	return len(list) >= manySnapshots && removed(list) > 0, nil
}

func removed(list []ceph.ImageSnapshot) int {
	n := 0
	for _, s := range list {
		if s.Removed {
			n++
		}
	}
	return n
}

func full(list []ceph.ImageSnapshot) error {
	n := removed(list)
	return fault.New(fault.Exhausted, "the volume has %d snapshots, and %d deleted ones that volumes made from them need: more than %d are too many for the kernel's client; delete some, or wait until those volumes have copies of their own",
		len(list)-n, n, maxSnapshots)
}

// DeleteSnapshot removes the snapshot. What clones need of it Ceph keeps out of sight.
func (b *Backend) DeleteSnapshot(ctx context.Context, site clustermap.Site, r *record.Record) error {
	if r.Foreign != nil {
		return b.deleteForeign(ctx, site, r)
	}
	from, err := sourceOf(ctx, site, r)
	if err == nil {
		err = from.either(func(image string) error { return from.images.RemoveSnapshot(ctx, image, r.BackendName()) })
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// snapshotPresent looks for a snapshot at its image, alive or tombstone.
func snapshotPresent(ctx context.Context, site clustermap.Site, r *record.Record) (there bool, err error) {
	wanted := cmp.Or(r.Origin.Snapshot, r.BackendName())
	from, err := sourceOf(ctx, site, r)
	if errors.Is(err, errNoPool) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = from.either(func(image string) error {
		list, err := from.images.Snapshots(ctx, image)
		there = slices.ContainsFunc(list, func(s ceph.ImageSnapshot) bool { return s.Name == wanted })
		return err
	})
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return there, err
}
