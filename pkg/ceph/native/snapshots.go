package native

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func (i *images) CreateSnapshot(ctx context.Context, name, snapshot string) error {
	return i.open(ctx, "create snapshot "+snapshot+" of", name, false, func(image *rbd.Image) error {
		_, err := image.CreateSnapshot(snapshot)
		return err
	})
}

func (i *images) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	return i.open(ctx, "remove snapshot "+snapshot+" of", name, false, func(image *rbd.Image) error {
		err := image.GetSnapshot(snapshot).Remove()
		if !errors.Is(err, rbd.ErrNotFound) {
			return err
		}
		if finishErr := finishRemoval(image, snapshot); finishErr != nil {
			return finishErr
		}
		return err
	})
}

// finishRemoval frees snapshots of that name whose removal was cut off: librbd moves a
// snapshot into the trash namespace first, whether it has clones or not
// (src/librbd/operation/SnapshotRemoveRequest.cc), and nobody else takes it from there.
func finishRemoval(image *rbd.Image, snapshot string) error {
	found, err := image.GetSnapshotNames()
	if err != nil {
		return err
	}
	for _, s := range found {
		if kind, err := image.GetSnapNamespaceType(s.Id); err != nil || kind != rbd.SnapNamespaceTypeTrash {
			continue
		}
		if was, err := image.GetSnapTrashNamespace(s.Id); err != nil || was != snapshot {
			continue
		}
		// EBUSY: clones need it, and the last of them frees it.
		if err := image.RemoveSnapByID(s.Id); err != nil && errno(err) != syscall.EBUSY && !errors.Is(err, rbd.ErrNotFound) {
			return fmt.Errorf("finish its removal: %w", err)
		}
	}
	return nil
}

func (i *images) Snapshots(ctx context.Context, name string) ([]ceph.ImageSnapshot, error) {
	var list []ceph.ImageSnapshot
	err := i.open(ctx, "list snapshots of", name, true, func(image *rbd.Image) error {
		found, err := image.GetSnapshotNames()
		if err != nil {
			return err
		}
		for _, s := range found {
			kind, err := image.GetSnapNamespaceType(s.Id)
			if err != nil {
				return fmt.Errorf("get namespace of snapshot %s: %w", s.Name, err)
			}
			list = append(list, ceph.ImageSnapshot{
				Name: s.Name, ID: s.Id, Size: storage.Bytes(s.Size), Removed: kind == rbd.SnapNamespaceTypeTrash,
			})
		}
		return nil
	})
	return list, err
}

func (i *images) Clone(ctx context.Context, name string, from ceph.ImageSnapshotRef, spec ceph.ImageSpec) error {
	parent := &images{cluster: i.cluster, pool: from.Pool, namespace: from.Namespace}
	verb := fmt.Sprintf("clone snapshot %s of image %s to", from.Snapshot, parent.path(from.Image))
	return i.do(ctx, verb, name, func(to *rados.IOContext) error {
		options, err := imageOptions(spec)
		if err != nil {
			return err
		}
		defer options.Destroy()
		if err := options.SetUint64(rbd.ImageOptionCloneFormat, 2); err != nil {
			return fmt.Errorf("set image options: %w", err)
		}
		return i.cluster.withPool(from.Pool, from.Namespace, func(source *rados.IOContext) error {
			return rbd.CloneImage(source, from.Image, from.Snapshot, to, name, options)
		})
	})
}

// parentOf returns the snapshot that an image is a clone of, zero if it is none.
func parentOf(image *rbd.Image) (ceph.ImageSnapshotRef, error) {
	parent, err := image.GetParent()
	if errors.Is(err, rbd.ErrNotFound) {
		return ceph.ImageSnapshotRef{}, nil
	}
	if err != nil {
		return ceph.ImageSnapshotRef{}, fmt.Errorf("get parent: %w", err)
	}
	return ceph.ImageSnapshotRef{
		Pool: parent.Image.PoolName, Namespace: parent.Image.PoolNamespace, Image: parent.Image.ImageName,
		Snapshot: parent.Snap.SnapName,
	}, nil
}
