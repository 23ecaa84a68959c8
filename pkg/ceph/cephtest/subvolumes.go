package cephtest

import (
	"context"
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// subvolume is a subvolume, or what is left of a retired one: its snapshots.
type subvolume struct {
	info      ceph.SubvolumeInfo
	mode      uint32 // of its root
	snapshots map[string]*subvolumeSnapshot
	copy      *subvolumeCopy // nil unless it was made as a clone
}

// ready refuses what takes a subvolume that is complete.
func (v *subvolume) ready(name string) error {
	switch {
	case v.retired():
		return fault.New(fault.NotFound, "subvolume %s has only snapshots left", name)
	case v.copy.unfinished():
		return fault.New(fault.Busy, "subvolume %s is not complete", name)
	}
	return nil
}

func (v *subvolume) retired() bool { return v.info.State == ceph.SubvolumeRetained }

type fakeSubvolumes struct {
	*connection
	filesystem, group string
}

// begin enters and checks the file system; on success the mutex is held.
func (s *fakeSubvolumes) begin(ctx context.Context, op, name string) error {
	if err := s.enter(ctx, "Subvolumes."+op+" "+name); err != nil {
		return err
	}
	if s.filesystem != "cephfs" {
		s.mu.Unlock()
		return fault.New(fault.NotFound, "file system %s does not exist", s.filesystem)
	}
	return nil
}

func (s *fakeSubvolumes) key(name string) string { return path(s.filesystem, s.group, name) }

func (s *fakeSubvolumes) get(name string) (*subvolume, error) {
	found, ok := s.subvolumes[s.key(name)]
	if !ok {
		return nil, fault.New(fault.NotFound, "subvolume %s does not exist", name)
	}
	return found, nil
}

// with runs fn on the subvolume under the mutex.
func (s *fakeSubvolumes) with(ctx context.Context, op, name string, fn func(*subvolume) error) error {
	if err := s.begin(ctx, op, name); err != nil {
		return err
	}
	defer s.mu.Unlock()
	found, err := s.get(name)
	if err != nil {
		return err
	}
	return fn(found)
}

// place puts a subvolume under a free name.
func (s *fakeSubvolumes) place(name string, spec ceph.SubvolumeSpec) (*subvolume, error) {
	dataPool := spec.DataPool
	if dataPool == "" {
		dataPool = "cephfs.data"
	}
	if dataPool != "cephfs.data" {
		return nil, fault.New(fault.Invalid, "pool %s is not a data pool of %s", dataPool, s.filesystem)
	}
	s.serial++
	made := &subvolume{snapshots: map[string]*subvolumeSnapshot{}, info: ceph.SubvolumeInfo{
		Path:  fmt.Sprintf("/volumes/%s/%s/%08x", s.group, name, s.serial),
		Quota: spec.Size, DataPool: dataPool, State: string(ceph.CloneComplete),
	}}
	s.subvolumes[s.key(name)] = made
	return made, nil
}

func (s *fakeSubvolumes) Create(ctx context.Context, name string, spec ceph.SubvolumeSpec) error {
	if err := s.begin(ctx, "Create", name); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if found, err := s.get(name); err == nil {
		if found.retired() {
			return fault.New(fault.Exists, "subvolume %s is retired", name)
		}
		if err := found.ready(name); err != nil {
			return err
		}
		found.info.Quota, found.mode = spec.Size, spec.Mode
		return nil
	}
	made, err := s.place(name, spec)
	if err == nil {
		made.mode = spec.Mode
	}
	return err
}

// Mode is that of a subvolume's root directory; SetMode is what a pod does to it.
func (f *Fake) Mode(filesystem, group, name string) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.subvolumes[path(filesystem, group, name)].mode
}

// SetMode changes what Mode tells.
func (f *Fake) SetMode(filesystem, group, name string, mode uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subvolumes[path(filesystem, group, name)].mode = mode
}

func (s *fakeSubvolumes) Info(ctx context.Context, name string) (info ceph.SubvolumeInfo, err error) {
	err = s.with(ctx, "Info", name, func(v *subvolume) error {
		s.progress(v)
		info = v.info
		if v.copy.unfinished() {
			info = ceph.SubvolumeInfo{State: string(v.copy.status.State)}
		}
		return nil
	})
	return info, err
}

// Resize looks and sets in two steps, as with the manager: another client may come between.
func (s *fakeSubvolumes) Resize(ctx context.Context, name string, size storage.Bytes) error {
	err := s.with(ctx, "Resize", name, func(v *subvolume) error {
		if err := v.ready(name); err != nil {
			return err
		}
		if size < v.info.Quota {
			return fault.New(fault.Range, "shrinking subvolume %s is refused", name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.with(ctx, "SetQuota", name, func(v *subvolume) error {
		if err := v.ready(name); err != nil {
			return err
		}
		v.info.Quota = size
		return nil
	})
}

func (s *fakeSubvolumes) Remove(ctx context.Context, name string) error {
	return s.with(ctx, "Remove", name, func(v *subvolume) error { return s.remove(name, v) })
}

func (s *fakeSubvolumes) remove(name string, v *subvolume) error {
	if v.copy.running() {
		return fault.New(fault.Busy, "subvolume %s is being copied into", name)
	}
	if len(v.snapshots) > 0 {
		return fault.New(fault.Busy, "subvolume %s has snapshots", name)
	}
	delete(s.subvolumes, s.key(name))
	return nil
}

func (s *fakeSubvolumes) Retire(ctx context.Context, name string) error {
	return s.with(ctx, "Retire", name, func(v *subvolume) error {
		if len(v.snapshots) == 0 {
			return s.remove(name, v)
		}
		v.info = ceph.SubvolumeInfo{State: ceph.SubvolumeRetained}
		return nil
	})
}

func (s *fakeSubvolumes) List(ctx context.Context) ([]string, error) {
	if err := s.begin(ctx, "List", ""); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return under(s.subvolumes, s.key("")), nil
}
