package cephtest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// trashed is an image in the trash, which is kept by its id.
type trashed struct {
	image *image
	since time.Time
}

func (i *fakeImages) Trash(ctx context.Context, name string) error {
	return i.with(ctx, "Trash", name, func(m *image) error {
		if err := m.idle(); err != nil {
			return err
		}
		delete(i.images, i.key(name))
		delete(i.objects, i.idKey(name))
		i.trash[i.key(m.info.ID)] = &trashed{image: m, since: i.now()}
		return nil
	})
}

func (i *fakeImages) Trashed(ctx context.Context) ([]ceph.TrashedImage, error) {
	if _, err := i.begin(ctx, "Trashed", ""); err != nil {
		return nil, err
	}
	defer i.mu.Unlock()
	var list []ceph.TrashedImage
	for _, id := range under(i.trash, i.key("")) {
		found := i.trash[i.key(id)]
		list = append(list, ceph.TrashedImage{ID: id, Name: found.image.name, Since: found.since})
	}
	slices.SortFunc(list, func(a, b ceph.TrashedImage) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

func (i *fakeImages) RemoveTrashed(ctx context.Context, id string) error {
	if _, err := i.begin(ctx, "RemoveTrashed", id); err != nil {
		return err
	}
	defer i.mu.Unlock()
	found, ok := i.trash[i.key(id)]
	if !ok {
		return fault.New(fault.NotFound, "image %s is not in the trash", id)
	}
	if slices.ContainsFunc(found.image.snapshots, func(s *snapshot) bool { return !s.removed }) {
		return fault.New(fault.Precondition, "image %s has snapshots", id)
	}
	if err := found.image.free(); err != nil {
		return err
	}
	delete(i.trash, i.key(id))
	return nil
}

func (i *fakeImages) Restore(ctx context.Context, id, name string) error {
	if _, err := i.begin(ctx, "Restore", id); err != nil {
		return err
	}
	defer i.mu.Unlock()
	found, ok := i.trash[i.key(id)]
	if !ok {
		return fault.New(fault.NotFound, "image %s is not in the trash", id)
	}
	if _, err := i.get(name); err == nil {
		return fault.New(fault.Exists, "image %s exists", name)
	}
	delete(i.trash, i.key(id))
	i.objects[i.idKey(name)] = &object{locks: map[string]heldLock{}}
	found.image.name = name
	i.images[i.key(name)] = found.image
	return nil
}
