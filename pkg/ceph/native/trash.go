package native

import (
	"context"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

func (i *images) Rename(ctx context.Context, name, to string) error {
	return i.do(ctx, "rename", name, func(ioctx *rados.IOContext) error {
		return rbd.GetImage(ioctx, name).Rename(to)
	})
}

func (i *images) Trash(ctx context.Context, name string) error {
	return i.do(ctx, "move to the trash", name, func(ioctx *rados.IOContext) error {
		return rbd.GetImage(ioctx, name).Trash(0)
	})
}

func (i *images) Trashed(ctx context.Context) ([]ceph.TrashedImage, error) {
	var list []ceph.TrashedImage
	err := i.do(ctx, "list trashed", "", func(ioctx *rados.IOContext) error {
		found, err := rbd.GetTrashList(ioctx)
		for _, t := range found {
			list = append(list, ceph.TrashedImage{ID: t.Id, Name: t.Name, Since: t.DeletionTime})
		}
		return err
	})
	return list, err
}

// RemoveTrashed does not heed the time that an image is to stay in the trash: Trash sets
// none, and the clock of whoever trashed it may be ahead.
func (i *images) RemoveTrashed(ctx context.Context, id string) error {
	return i.do(ctx, "remove trashed", id, func(ioctx *rados.IOContext) error {
		return rbd.TrashRemove(ioctx, id, true)
	})
}
