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

type fakeImages struct {
	*connection
	poolName, namespace string
}

// with runs fn on the image under the mutex.
func (i *fakeImages) with(ctx context.Context, op, name string, fn func(*image) error) error {
	if err := i.enter(ctx, "Images."+op+" "+name); err != nil {
		return err
	}
	defer i.mu.Unlock()
	found, ok := i.images[path(i.poolName, i.namespace, name)]
	if !ok {
		return fault.New(fault.NotFound, "image %s does not exist", name)
	}
	return fn(found)
}

func (i *fakeImages) Create(ctx context.Context, name string, spec ceph.ImageSpec) error {
	if err := i.enter(ctx, "Images.Create "+name); err != nil {
		return err
	}
	defer i.mu.Unlock()
	pool, err := i.pool(i.poolName)
	if err != nil {
		return err
	}
	if pool.Full {
		return fault.New(fault.Exhausted, "pool %s is full", pool.Name)
	}
	key := path(i.poolName, i.namespace, name)
	if _, ok := i.images[key]; ok {
		return fault.New(fault.Exists, "image %s exists", name)
	}
	i.serial++
	made := &image{metadata: map[string]string{}, info: ceph.ImageInfo{
		ID: fmt.Sprintf("%x", i.serial), Size: spec.Size, DataPool: pool.ID, Features: spec.Features,
	}}
	maps.Copy(made.metadata, spec.Metadata)
	if spec.DataPool != "" {
		data, err := i.pool(spec.DataPool)
		if err != nil {
			return err
		}
		made.info.DataPool = data.ID
	}
	i.images[key] = made
	i.objects[path(i.poolName, i.namespace, "rbd_header."+made.info.ID)] = &object{locks: map[string]heldLock{}}
	return nil
}

func (i *fakeImages) Info(ctx context.Context, name string) (info ceph.ImageInfo, err error) {
	err = i.with(ctx, "Info", name, func(m *image) error {
		info = m.info
		return nil
	})
	return info, err
}

func (i *fakeImages) Resize(ctx context.Context, name string, size storage.Bytes) error {
	return i.with(ctx, "Resize", name, func(m *image) error {
		m.info.Size = size
		return nil
	})
}

func (i *fakeImages) Remove(ctx context.Context, name string) error {
	return i.with(ctx, "Remove", name, func(m *image) error {
		if len(m.watchers) > 0 {
			return fault.New(fault.Busy, "image %s has watchers", name)
		}
		delete(i.images, path(i.poolName, i.namespace, name))
		delete(i.objects, path(i.poolName, i.namespace, "rbd_header."+m.info.ID))
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
	if err := i.enter(ctx, "Images.List"); err != nil {
		return nil, err
	}
	defer i.mu.Unlock()
	return under(i.images, path(i.poolName, i.namespace, "")), nil
}
