package cephtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// snapshot is a snapshot of an image. One that was removed stays for as long as it has clones.
type snapshot struct {
	of      *image
	name    string
	id      uint64
	size    storage.Bytes
	blocks  blocks
	removed bool
	clones  int
}

func (s *snapshot) ref() ceph.ImageSnapshotRef {
	return ceph.ImageSnapshotRef{Pool: s.of.pool, Namespace: s.of.namespace, Image: s.of.name, Snapshot: s.name}
}

// reap forgets the snapshot if nobody needs it any more.
func (s *snapshot) reap() {
	if s.removed && s.clones == 0 {
		s.of.snapshots = slices.DeleteFunc(s.of.snapshots, func(other *snapshot) bool { return other == s })
	}
}

// detach lets go of the image's parent.
func (m *image) detach() {
	if m.parent != nil {
		m.parent.clones--
		m.parent.reap()
		m.parent = nil
	}
}

func (m *image) snapshot(name string) (*snapshot, error) {
	for _, s := range m.snapshots {
		if s.name == name && !s.removed {
			return s, nil
		}
	}
	return nil, fault.New(fault.NotFound, "image %s has no snapshot %s", m.name, name)
}

func (i *fakeImages) CreateSnapshot(ctx context.Context, name, snap string) error {
	return i.withRoom(ctx, "CreateSnapshot", name, func(m *image) error {
		if _, err := m.snapshot(snap); err == nil {
			return fault.New(fault.Exists, "image %s has a snapshot %s", name, snap)
		}
		i.serial++
		m.snapshots = append(m.snapshots, &snapshot{of: m, name: snap, id: uint64(i.serial), size: m.info.Size, blocks: maps.Clone(m.blocks)})
		return nil
	})
}

func (i *fakeImages) RemoveSnapshot(ctx context.Context, name, snap string) error {
	return i.with(ctx, "RemoveSnapshot", name, func(m *image) error {
		s, err := m.snapshot(snap)
		if err != nil {
			return err
		}
		i.serial++
		s.removed, s.name = true, fmt.Sprintf("removed-%d", i.serial)
		s.reap()
		return nil
	})
}

func (i *fakeImages) Snapshots(ctx context.Context, name string) (list []ceph.ImageSnapshot, err error) {
	err = i.with(ctx, "Snapshots", name, func(m *image) error {
		for _, s := range m.snapshots {
			list = append(list, ceph.ImageSnapshot{Name: s.name, ID: s.id, Size: s.size, Removed: s.removed})
		}
		return nil
	})
	return list, err
}

func (i *fakeImages) Clone(ctx context.Context, name string, from ceph.ImageSnapshotRef, spec ceph.ImageSpec) error {
	pool, err := i.begin(ctx, "Clone", name)
	if err != nil {
		return err
	}
	defer i.mu.Unlock()
	source := &fakeImages{i.connection, from.Pool, from.Namespace}
	if _, err := i.pool(from.Pool); err != nil {
		return err
	}
	parent, err := source.get(from.Image)
	if err != nil {
		return err
	}
	s, err := parent.snapshot(from.Snapshot)
	if err != nil {
		return err
	}
	spec.Size = s.size
	if spec.Features == nil {
		spec.Features = parent.info.Features
	}
	made, err := i.place(pool, name, spec)
	if err != nil {
		return err
	}
	made.metadata, made.blocks, made.parent = maps.Clone(parent.metadata), maps.Clone(s.blocks), s
	s.clones++
	return nil
}

func (i *fakeImages) Flatten(ctx context.Context, name string, progress func(done, total uint64)) error {
	return i.withRoom(ctx, "Flatten", name, func(m *image) error {
		if m.parent == nil {
			return nil
		}
		objects := (uint64(m.info.Size) + fakeObject - 1) / fakeObject
		for done := range objects {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("flatten image %s: %w", name, err)
			}
			if progress != nil {
				progress(done+1, objects)
			}
		}
		m.detach()
		return nil
	})
}

func (i *fakeImages) Sparsify(ctx context.Context, name string) error {
	return i.with(ctx, "Sparsify", name, func(*image) error { return nil })
}

func (i *fakeImages) Diff(ctx context.Context, name, since, snap string, from, to uint64, fn func(ceph.Extent) error) error {
	var changed []ceph.Extent
	err := i.with(ctx, "Diff", name, func(m *image) error {
		end, err := &snapshot{blocks: m.blocks, size: m.info.Size}, error(nil)
		if snap != "" {
			end, err = m.snapshot(snap)
		}
		if err != nil {
			return err
		}
		start := blocks{}
		if since != "" {
			s, err := m.snapshot(since)
			if err != nil {
				return err
			}
			if snap != "" && slices.Index(m.snapshots, s) > slices.Index(m.snapshots, end) {
				return fault.New(fault.Invalid, "snapshot %s is newer than %s", since, snap)
			}
			start = s.blocks
		}
		if to == 0 || to > uint64(end.size) {
			to = uint64(end.size)
		}
		changed = diff(start, end.blocks, from, to)
		return nil
	})
	for _, extent := range changed {
		err = errors.Join(err, ctx.Err())
		if err == nil {
			err = fn(extent)
		}
	}
	return err
}
