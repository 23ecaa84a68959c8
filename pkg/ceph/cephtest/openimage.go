package cephtest

import (
	"context"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// openImage is an image, or a snapshot of it, that somebody has open.
type openImage struct {
	images *fakeImages
	of     *image
	blocks blocks // of the snapshot; nil: the image's own
	name   string
	size   uint64
}

func (i *fakeImages) Open(ctx context.Context, name, snapshot string) (opened ceph.OpenImage, err error) {
	err = i.with(ctx, "Open", name, func(m *image) error {
		o := &openImage{images: i, of: m, name: name, size: uint64(m.info.Size)}
		if snapshot != "" {
			s, err := m.snapshot(snapshot)
			if err != nil {
				return err
			}
			o.blocks, o.size = s.blocks, uint64(s.size)
		}
		opened = o
		return nil
	})
	return opened, err
}

func (o *openImage) Size() storage.Bytes { return storage.Bytes(o.size) }

func (*openImage) Close() error { return nil }

func (o *openImage) within(p []byte, offset uint64) error {
	if offset > o.size || uint64(len(p)) > o.size-offset {
		return fault.New(fault.Range, "%d bytes at offset %d are not within the image's %d", len(p), offset, o.size)
	}
	return nil
}

func (o *openImage) ReadAt(ctx context.Context, p []byte, offset uint64) error {
	if err := o.within(p, offset); err != nil {
		return err
	}
	if err := o.images.enter(ctx, "OpenImage.ReadAt "+o.name); err != nil {
		return err
	}
	defer o.images.mu.Unlock()
	state := o.blocks
	if state == nil {
		state = o.of.blocks
	}
	clear(p)
	o.eachBlock(p, offset, func(n uint64, inside int, part []byte) {
		if content := o.images.contents[state[n]]; content != nil {
			copy(part, content[inside:])
		}
	})
	return nil
}

func (o *openImage) WriteAt(ctx context.Context, p []byte, offset uint64) error {
	if err := o.within(p, offset); err != nil {
		return err
	}
	if o.blocks != nil {
		return fault.New(fault.Unsupported, "a snapshot is only read")
	}
	if err := o.images.enter(ctx, "OpenImage.WriteAt "+o.name); err != nil {
		return err
	}
	defer o.images.mu.Unlock()
	if pool, err := o.images.pool(o.images.poolName); err != nil || pool.Full {
		return fault.New(fault.Exhausted, "pool %s is full", o.images.poolName)
	}
	o.eachBlock(p, offset, func(n uint64, inside int, part []byte) {
		content := make([]byte, fakeBlock)
		copy(content, o.images.contents[o.of.blocks[n]])
		copy(content[inside:], part)
		o.images.serial++
		o.of.blocks[n] = o.images.serial
		o.images.contents[o.images.serial] = content
	})
	return nil
}

// eachBlock calls fn for each block that p touches: its number, where in it p's part begins, and the part.
func (*openImage) eachBlock(p []byte, offset uint64, fn func(n uint64, inside int, part []byte)) {
	for len(p) > 0 {
		n, inside := offset/fakeBlock, int(offset%fakeBlock)
		part := p[:min(len(p), fakeBlock-inside)]
		fn(n, inside, part)
		p, offset = p[len(part):], offset+uint64(len(part))
	}
}
