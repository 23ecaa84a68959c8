package main

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// known remembers what calls returned, by volume name.
type known[T any] struct {
	mu sync.Mutex
	of map[string]T
}

func newKnown[T any]() *known[T] { return &known[T]{of: map[string]T{}} }

func (k *known[T]) put(name string, value T) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.of[name] = value
}

func (k *known[T]) get(name string) T {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.of[name]
}

// csi is the side of the CSI services.
func (b *bench) csi(driver storage.Driver) side {
	ids := newKnown[string]()
	create := func(ctx context.Context, name string, r csiclient.Request) error {
		r.Name, r.Driver = name, driver
		v, err := b.client.Create(ctx, r)
		ids.put(name, v.ID)
		return err
	}
	remove := func(ctx context.Context, name string) error {
		return b.client.Delete(ctx, csiclient.Volume{ID: ids.get(name), Driver: driver})
	}
	return side{settle: b.settle, calls: []call{
		{"create", func(ctx context.Context, v string) error {
			return create(ctx, v, csiclient.Request{Bytes: storage.GiB})
		}},
		{"expand", func(ctx context.Context, v string) error {
			_, err := b.client.Expand(ctx, csiclient.Volume{ID: ids.get(v), Driver: driver}, 2*storage.GiB)
			return err
		}},
		{"snapshot", func(ctx context.Context, v string) error {
			s, err := b.client.Snapshot(ctx, csiclient.Volume{ID: ids.get(v), Driver: driver}, v)
			ids.put("snapshot "+v, s.ID)
			return err
		}},
		{"restore", func(ctx context.Context, v string) error {
			return create(ctx, v+"-restored", csiclient.Request{FromSnapshot: ids.get("snapshot " + v)})
		}},
		{"delete restored", func(ctx context.Context, v string) error { return remove(ctx, v+"-restored") }},
		{"delete snapshot", func(ctx context.Context, v string) error {
			return b.client.DeleteSnapshot(ctx, csiclient.Snapshot{ID: ids.get("snapshot " + v), Driver: driver})
		}},
		{"delete", remove},
	}}
}

// settle waits until the background work has freed what was deleted.
func (b *bench) settle(ctx context.Context) error {
	images := b.cluster.Images("rbd", "")
	return poll.Until(ctx, 50*time.Millisecond, func() (bool, error) {
		trash, err := images.Trashed(ctx)
		if err != nil || len(trash) > 0 {
			return false, err
		}
		list, err := images.List(ctx)
		for _, name := range list {
			if strings.HasPrefix(name, "hf-gone-") {
				return false, nil
			}
		}
		return true, err
	})
}

func nothing(context.Context) error { return nil }

// images is the side of librbd.
func (b *bench) images() side {
	images := b.cluster.Images("rbd", "")
	return side{settle: nothing, calls: []call{
		{"create", func(ctx context.Context, v string) error {
			return images.Create(ctx, v, ceph.ImageSpec{Size: storage.GiB})
		}},
		{"expand", func(ctx context.Context, v string) error { return images.Resize(ctx, v, 2*storage.GiB) }},
		{"snapshot", func(ctx context.Context, v string) error { return images.CreateSnapshot(ctx, v, "s") }},
		{"restore", func(ctx context.Context, v string) error {
			return images.Clone(ctx, v+"-restored", ceph.ImageSnapshotRef{Pool: "rbd", Image: v, Snapshot: "s"}, ceph.ImageSpec{})
		}},
		{"delete restored", func(ctx context.Context, v string) error { return images.Remove(ctx, v+"-restored") }},
		{"delete snapshot", func(ctx context.Context, v string) error { return images.RemoveSnapshot(ctx, v, "s") }},
		{"delete", images.Remove},
	}}
}

// subvolumes is the side of the manager.
func (b *bench) subvolumes() side {
	list := b.cluster.Subvolumes("cephfs", clustermap.DefaultSubvolumeGroup)
	return side{settle: nothing, calls: []call{
		{"create", func(ctx context.Context, v string) error {
			if err := list.Create(ctx, v, ceph.SubvolumeSpec{Size: storage.GiB, Mode: 0o777}); err != nil {
				return err
			}
			_, err := list.Info(ctx, v) // a volume is of use only with its path
			return err
		}},
		{"expand", func(ctx context.Context, v string) error { return list.Resize(ctx, v, 2*storage.GiB) }},
		{"snapshot", func(ctx context.Context, v string) error { return list.CreateSnapshot(ctx, v, "s") }},
		{"restore", func(ctx context.Context, v string) error {
			if err := list.Clone(ctx, v+"-restored", ceph.SubvolumeSnapshot{Subvolume: v, Snapshot: "s"}, ceph.SubvolumeSpec{}); err != nil {
				return err
			}
			return poll.Until(ctx, 100*time.Millisecond, func() (bool, error) {
				status, err := list.CloneStatus(ctx, v+"-restored")
				return status.State == ceph.CloneComplete, err
			})
		}},
		{"delete restored", func(ctx context.Context, v string) error { return list.Remove(ctx, v+"-restored") }},
		{"delete snapshot", func(ctx context.Context, v string) error { return list.RemoveSnapshot(ctx, v, "s") }},
		{"delete", list.Remove},
	}}
}
