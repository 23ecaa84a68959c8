package rbd

import (
	"context"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Allocated is what the image holds, in bytes, what it shares with its source included.
func (b *Backend) Allocated(ctx context.Context, site clustermap.Site, r *record.Record) (storage.Bytes, error) {
	images, err := images(ctx, site, r)
	if err != nil {
		return 0, err
	}
	var total storage.Bytes
	err = images.Diff(ctx, r.BackendName(), "", "", 0, 0, func(e ceph.Extent) error {
		if !e.Zero {
			total += storage.Bytes(e.Length)
		}
		return nil
	})
	return total, err
}

// Sparsify gives zeroed blocks back to the pool. The OSD looks at each and frees it in one
// operation, so a client that begins to write meanwhile loses nothing.
func (b *Backend) Sparsify(ctx context.Context, site clustermap.Site, r *record.Record) error {
	if r.Encryption != nil {
		return fault.New(fault.Unsupported, "volume %q is encrypted: zeros in it are not zeros on the cluster; mount it and reclaim there", r.Name)
	}
	images, err := images(ctx, site, r)
	if err != nil {
		return err
	}
	return images.Sparsify(ctx, r.BackendName())
}
