package rbd

import (
	"cmp"
	"context"
	"slices"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// window is how much of an image is compared at a time. Within it the extents of an image that
// is striped come out of order, and are kept to be sorted.
const window = uint64(64 * storage.GiB)

// Changed compares two snapshots by librbd's diff-iterate, which asks the object map where the
// image has one. The header of an encrypted volume is left out.
func (b *Backend) Changed(ctx context.Context, site clustermap.Site, base, target *record.Record, from uint64, fn func(ceph.Extent) error) error {
	source, err := sourceOf(ctx, site, target)
	if err != nil {
		return err
	}
	since := ""
	if base != nil {
		since = base.BackendName()
	}
	header := uint64(imageSize(target, target.Size) - target.Size)
	end := uint64(target.Size) + header
	for start := from + header; start < end; start += window {
		var list []ceph.Extent
		err := source.either(func(image string) error {
			list = nil
			return source.images.Diff(ctx, image, since, target.BackendName(), start, min(start+window, end), func(e ceph.Extent) error {
				e.Offset -= header
				list = append(list, e)
				return nil
			})
		})
		if err != nil {
			return err
		}
		slices.SortFunc(list, func(a, b ceph.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
		for _, e := range list {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}
