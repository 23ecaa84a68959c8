package native

import (
	"context"
	"errors"
	"fmt"
	"sync"

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
		return image.GetSnapshot(snapshot).Remove()
	})
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
				Name: s.Name, Size: storage.Bytes(s.Size), Removed: kind == rbd.SnapNamespaceTypeTrash,
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

// progressGate passes progress on until the caller has returned.
type progressGate struct {
	mu sync.Mutex
	to func(done, total uint64)
}

func (p *progressGate) report(done, total uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to != nil {
		p.to(done, total)
	}
}

func (p *progressGate) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = nil
}

// aborted is what a callback returns to end an operation of librbd: -ECANCELED.
const aborted = -125

// interruptible tells librbd to go on for as long as ctx lasts.
func interruptible(ctx context.Context) int {
	if ctx.Err() != nil {
		return aborted
	}
	return 0
}

func (i *images) Flatten(ctx context.Context, name string, progress func(done, total uint64)) error {
	gate := &progressGate{to: progress}
	defer gate.close()
	return i.open(ctx, "flatten", name, false, func(image *rbd.Image) error {
		if parent, err := parentOf(image); err != nil || parent == (ceph.ImageSnapshotRef{}) {
			return err
		}
		return image.FlattenWithProgress(func(done, total uint64, _ any) int {
			gate.report(done, total)
			return interruptible(ctx)
		}, nil)
	})
}

// sparseSize is the smallest run of zeros that is given back, in bytes; librbd takes no
// less (librbd.h, rbd_sparsify).
const sparseSize = 4 << 10

func (i *images) Sparsify(ctx context.Context, name string) error {
	return i.open(ctx, "sparsify", name, false, func(image *rbd.Image) error {
		return image.SparsifyWithProgress(sparseSize, func(uint64, uint64, any) int { return interruptible(ctx) }, nil)
	})
}
