package cephfs

import (
	"context"
	"errors"
	"path"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Snapshot takes a snapshot of the volume's subvolume, and notes where its files are: of a
// volume that was deleted since Ceph does not tell.
func (b *Backend) Snapshot(ctx context.Context, site clustermap.Site, r *record.Record) (crowded bool, err error) {
	from, name, err := source(ctx, site, r)
	if err != nil {
		return false, err
	}
	info, err := from.Info(ctx, name)
	if err != nil {
		return false, err
	}
	if info.Path == "" {
		return false, fault.New(fault.NotFound, "subvolume %s is %s", name, info.State)
	}
	err = from.CreateSnapshot(ctx, name, r.BackendName())
	if err != nil && !errors.Is(err, fault.Exists) {
		return false, err
	}
	// A snapshot covers the directory above the volume's root (Ceph: mgr/volumes, subvolume_v2.py).
	r.Origin.Path = path.Join(path.Dir(info.Path), ".snap", r.BackendName(), path.Base(info.Path))
	return false, nil
}

// DeleteSnapshot removes the snapshot, and with the last one of a deleted volume what is
// left of that.
func (b *Backend) DeleteSnapshot(ctx context.Context, site clustermap.Site, r *record.Record) error {
	if r.Foreign != nil {
		return b.deleteForeign(ctx, site, r)
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
