package main

import (
	"context"
	"path/filepath"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// nodeSide takes volumes through the node service: "mount" is ControllerPublishVolume,
// NodeStageVolume with mkfs and NodePublishVolume, "mount again" the same of a volume that has
// its file system.
func (b *bench) nodeSide() side {
	volumes := newKnown[csiclient.Volume]()
	mount := func(ctx context.Context, name string) error {
		return b.client.Mount(ctx, volumes.get(name), csiclient.MountOptions{Target: filepath.Join(b.scratch, name)})
	}
	unmount := func(ctx context.Context, name string) error { return b.client.Unmount(ctx, volumes.get(name), "") }
	return side{settle: nothing, calls: []call{
		{"(create)", func(ctx context.Context, name string) error {
			v, err := b.client.Create(ctx, csiclient.Request{Name: name, Driver: storage.RBD, Bytes: storage.GiB})
			volumes.put(name, v)
			return err
		}},
		{"mount", mount}, {"unmount", unmount}, {"mount again", mount}, {"unmount again", unmount},
		{"(delete)", func(ctx context.Context, name string) error {
			return b.client.Delete(ctx, volumes.get(name))
		}},
	}}
}

// handSide does the same by hand.
func (b *bench) handSide() side {
	images, hand := b.cluster.Images("rbd", ""), b.hand()
	return side{settle: nothing, calls: []call{
		{"(create)", func(ctx context.Context, v string) error {
			return images.Create(ctx, v, ceph.ImageSpec{Size: storage.GiB})
		}},
		{"mount", func(ctx context.Context, v string) error { return hand.mount(ctx, v, true) }},
		{"unmount", hand.unmount},
		{"mount again", func(ctx context.Context, v string) error { return hand.mount(ctx, v, false) }},
		{"unmount again", hand.unmount},
		{"(delete)", images.Remove},
	}}
}

func (b *bench) hand() byHand {
	return byHand{b.runner, filepath.Join(b.dir, "ceph.conf"), b.scratch}
}
