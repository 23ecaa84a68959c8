package cephtest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// image is an image, in sight or in the trash.
type image struct {
	info                  ceph.ImageInfo
	pool, namespace, name string
	metadata              map[string]string
	watchers              []ceph.Watcher
	blocks                blocks
	snapshots             []*snapshot
	parent                *snapshot
}

func (m *image) movePool(from, to string) {
	if m.pool == from {
		m.pool = to
	}
}

// idle refuses what cannot be done to an image that a client has open.
func (m *image) idle() error {
	if len(m.watchers) > 0 {
		return fault.New(fault.Busy, "image %s has watchers", m.name)
	}
	return nil
}

// free refuses while the image has snapshots, and lets go of the parent.
func (m *image) free() error {
	if err := m.idle(); err != nil {
		return err
	}
	if len(m.snapshots) > 0 {
		return fault.New(fault.Busy, "image %s has snapshots", m.name)
	}
	m.detach()
	return nil
}

type fakeImages struct {
	*connection
	poolName, namespace string
}

// begin enters and checks the pool; on success the mutex is held.
func (i *fakeImages) begin(ctx context.Context, op, name string) (*ceph.PoolInfo, error) {
	if name != "" {
		op += " " + name
	}
	if err := i.enter(ctx, "Images."+op); err != nil {
		return nil, err
	}
	pool, err := i.pool(i.poolName)
	if err != nil {
		i.mu.Unlock()
	}
	return pool, err
}

func (i *fakeImages) key(name string) string { return path(i.poolName, i.namespace, name) }

// idKey is the object that every image has by its name.
func (i *fakeImages) idKey(name string) string { return i.key("rbd_id." + name) }

func (i *fakeImages) get(name string) (*image, error) {
	found, ok := i.images[i.key(name)]
	if !ok {
		return nil, fault.New(fault.NotFound, "image %s does not exist", name)
	}
	return found, nil
}

// with runs fn on the image under the mutex.
func (i *fakeImages) with(ctx context.Context, op, name string, fn func(*image) error) error {
	if _, err := i.begin(ctx, op, name); err != nil {
		return err
	}
	defer i.mu.Unlock()
	found, err := i.get(name)
	if err != nil {
		return err
	}
	return fn(found)
}

// withRoom is with, for what a full pool refuses.
func (i *fakeImages) withRoom(ctx context.Context, op, name string, fn func(*image) error) error {
	return i.with(ctx, op, name, func(m *image) error {
		if pool, _ := i.pool(i.poolName); pool.Full {
			return fault.New(fault.Exhausted, "pool %s is full", pool.Name)
		}
		return fn(m)
	})
}

// place puts a new image under a free name.
func (i *fakeImages) place(pool *ceph.PoolInfo, name string, spec ceph.ImageSpec) (*image, error) {
	if pool.Full {
		return nil, fault.New(fault.Exhausted, "pool %s is full", pool.Name)
	}
	if _, ok := i.images[i.key(name)]; ok {
		return nil, fault.New(fault.Exists, "image %s exists", name)
	}
	dataPool := pool.ID
	if spec.DataPool != "" {
		data, err := i.pool(spec.DataPool)
		if err != nil {
			return nil, err
		}
		dataPool = data.ID
	}
	i.serial++
	made := &image{
		pool: i.poolName, namespace: i.namespace, name: name, metadata: map[string]string{}, blocks: blocks{},
		info: ceph.ImageInfo{ID: fmt.Sprintf("%x", i.serial), Size: spec.Size, DataPool: dataPool, Features: spec.Features},
	}
	i.images[i.key(name)] = made
	i.objects[i.idKey(name)] = &object{locks: map[string]heldLock{}}
	if directory := i.key(ceph.ImageDirectory); i.objects[directory] == nil {
		i.objects[directory] = &object{locks: map[string]heldLock{}}
	}
	return made, nil
}

func (i *fakeImages) Create(ctx context.Context, name string, spec ceph.ImageSpec) error {
	pool, err := i.begin(ctx, "Create", name)
	if err != nil {
		return err
	}
	defer i.mu.Unlock()
	made, err := i.place(pool, name, spec)
	if err != nil {
		return err
	}
	maps.Copy(made.metadata, spec.Metadata)
	return nil
}

func (i *fakeImages) Size(ctx context.Context, name string) (size storage.Bytes, err error) {
	err = i.with(ctx, "Size", name, func(m *image) error {
		size = m.info.Size
		return nil
	})
	return size, err
}

func (i *fakeImages) Info(ctx context.Context, name string) (info ceph.ImageInfo, err error) {
	err = i.with(ctx, "Info", name, func(m *image) error {
		info = m.info
		if m.parent != nil {
			info.Parent = m.parent.ref()
		}
		return nil
	})
	return info, err
}

func (i *fakeImages) Resize(ctx context.Context, name string, size storage.Bytes) error {
	return i.with(ctx, "Resize", name, func(m *image) error {
		m.info.Size = size
		m.blocks.truncate(uint64(size))
		return nil
	})
}

func (i *fakeImages) Grow(ctx context.Context, name string, size storage.Bytes) error {
	return i.with(ctx, "Grow", name, func(m *image) error {
		m.info.Size = max(m.info.Size, size)
		return nil
	})
}

func (i *fakeImages) Write(ctx context.Context, name string, offset uint64, data []byte) error {
	return i.withRoom(ctx, "Write", name, func(m *image) error {
		if offset+uint64(len(data)) > uint64(m.info.Size) {
			return fault.New(fault.Invalid, "write beyond the end of image %s", name)
		}
		i.serial++
		for n := offset / fakeBlock; n*fakeBlock < offset+uint64(len(data)); n++ {
			m.blocks[n] = i.serial
		}
		return nil
	})
}

func (i *fakeImages) Remove(ctx context.Context, name string) error {
	return i.with(ctx, "Remove", name, func(m *image) error {
		if err := m.free(); err != nil {
			return err
		}
		delete(i.images, i.key(name))
		delete(i.objects, i.idKey(name))
		return nil
	})
}

func (i *fakeImages) Rename(ctx context.Context, name, to string) error {
	return i.with(ctx, "Rename", name, func(m *image) error {
		if other, err := i.get(to); err == nil && other != m {
			return fault.New(fault.Exists, "image %s exists", to)
		}
		delete(i.images, i.key(name))
		delete(i.objects, i.idKey(name))
		i.objects[i.idKey(to)] = &object{locks: map[string]heldLock{}}
		m.name = to
		i.images[i.key(to)] = m
		return nil
	})
}

func (i *fakeImages) Watchers(ctx context.Context, name string) (list []ceph.Watcher, err error) {
	err = i.with(ctx, "Watchers", name, func(m *image) error {
		list = slices.Clone(m.watchers)
		return nil
	})
	return list, err
}

func (i *fakeImages) Unwatched(ctx context.Context, name string) error {
	return i.with(ctx, "Unwatched", name, func(m *image) error {
		if len(m.watchers) > 0 {
			return fault.New(fault.Busy, "client %s has it open", m.watchers[0].Address)
		}
		return nil
	})
}

func (i *fakeImages) Metadata(ctx context.Context, name string) (pairs map[string]string, err error) {
	err = i.with(ctx, "Metadata", name, func(m *image) error {
		pairs = maps.Clone(m.metadata)
		return nil
	})
	return pairs, err
}

func (i *fakeImages) SetMetadata(ctx context.Context, name string, pairs map[string]string) error {
	return i.with(ctx, "SetMetadata", name, func(m *image) error {
		maps.Copy(m.metadata, pairs)
		return nil
	})
}

func (i *fakeImages) List(ctx context.Context) ([]string, error) {
	if _, err := i.begin(ctx, "List", ""); err != nil {
		return nil, err
	}
	defer i.mu.Unlock()
	return under(i.images, i.key("")), nil
}
