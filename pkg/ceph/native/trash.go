package native

import (
	"context"
	"errors"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func (i *images) Rename(ctx context.Context, name, to string) error {
	return i.do(ctx, "rename", name, func(ioctx *rados.IOContext) error {
		err := rbd.GetImage(ioctx, name).Rename(to)
		if errors.Is(err, rbd.ErrExist) {
			return finishRename(ioctx, name, to, err)
		}
		return err
	})
}

// Trash looks for watchers itself: librbd 16.2 asks a client that has the image open for
// the exclusive lock, gets it if that client is idle, and moves the image away under it. A client
// that comes between is found by RemoveTrashed, for which librbd does look.
func (i *images) Trash(ctx context.Context, name string) error {
	return i.do(ctx, "move to the trash", name, func(ioctx *rados.IOContext) error {
		image, err := rbd.OpenImageReadOnly(ioctx, name, rbd.NoSnapshot)
		switch {
		case errors.Is(err, rbd.ErrNotFound): // cut off in its creation or removal: it has no clients
		case err != nil:
			return err
		default:
			if err := thenClose(image, i.unwatched(ctx, ioctx, image)); err != nil {
				return err
			}
		}
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
		err := rbd.TrashRemove(ioctx, id, true)
		switch errno(err) {
		case syscall.ENOTEMPTY:
			visible, lookErr := snapshotInSight(ioctx, id)
			if lookErr == nil && visible {
				return fault.New(fault.Precondition, "it has snapshots: %v", err)
			}
			return errors.Join(err, lookErr)
		case syscall.EBUSY:
			if image, openErr := rbd.OpenImageByIdReadOnly(ioctx, id, rbd.NoSnapshot); openErr == nil && thenClose(image, i.unwatched(ctx, ioctx, image)) == nil {
				return rbd.TrashRemove(ioctx, id, true)
			}
			return err
		default:
			return err
		}
	})
}

// snapshotInSight tells that an image in the trash has a snapshot beside those that only its clones need, for which
// librbd's answer is the same.
func snapshotInSight(ioctx *rados.IOContext, id string) (visible bool, err error) {
	image, err := rbd.OpenImageByIdReadOnly(ioctx, id, rbd.NoSnapshot)
	if err != nil {
		return false, err
	}
	found, err := image.GetSnapshotNames()
	for _, s := range found {
		kind, kindErr := image.GetSnapNamespaceType(s.Id)
		visible = visible || kindErr == nil && kind == rbd.SnapNamespaceTypeUser
	}
	return visible, thenClose(image, err)
}

func (i *images) Restore(ctx context.Context, id, name string) error {
	return i.do(ctx, "restore trashed", id, func(ioctx *rados.IOContext) error {
		return rbd.TrashRestore(ioctx, id, name)
	})
}
