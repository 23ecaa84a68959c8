package cephtest

import (
	"context"
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

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

func (s *fakeSubvolumes) get(name string) (ceph.SubvolumeInfo, error) {
	info, ok := s.subvolumes[path(s.filesystem, s.group, name)]
	if !ok {
		return info, fault.New(fault.NotFound, "subvolume %s does not exist", name)
	}
	return info, nil
}

func (s *fakeSubvolumes) Create(ctx context.Context, name string, spec ceph.SubvolumeSpec) error {
	if err := s.begin(ctx, "Create", name); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if _, err := s.get(name); err == nil {
		return nil
	}
	dataPool := spec.DataPool
	if dataPool == "" {
		dataPool = "cephfs.data"
	}
	if dataPool != "cephfs.data" {
		return fault.New(fault.Invalid, "pool %s is not a data pool of %s", dataPool, s.filesystem)
	}
	s.serial++
	s.subvolumes[path(s.filesystem, s.group, name)] = ceph.SubvolumeInfo{
		Path:  fmt.Sprintf("/volumes/%s/%s/%08x", s.group, name, s.serial),
		Quota: spec.Size, DataPool: dataPool, State: "complete",
	}
	return nil
}

func (s *fakeSubvolumes) Info(ctx context.Context, name string) (ceph.SubvolumeInfo, error) {
	if err := s.begin(ctx, "Info", name); err != nil {
		return ceph.SubvolumeInfo{}, err
	}
	defer s.mu.Unlock()
	return s.get(name)
}

func (s *fakeSubvolumes) Resize(ctx context.Context, name string, size storage.Bytes) error {
	if err := s.begin(ctx, "Resize", name); err != nil {
		return err
	}
	defer s.mu.Unlock()
	info, err := s.get(name)
	if err != nil {
		return err
	}
	if size < info.Quota {
		return fault.New(fault.Range, "shrinking subvolume %s is refused", name)
	}
	info.Quota = size
	s.subvolumes[path(s.filesystem, s.group, name)] = info
	return nil
}

func (s *fakeSubvolumes) Remove(ctx context.Context, name string) error {
	if err := s.begin(ctx, "Remove", name); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if _, err := s.get(name); err != nil {
		return err
	}
	delete(s.subvolumes, path(s.filesystem, s.group, name))
	return nil
}

func (s *fakeSubvolumes) List(ctx context.Context) ([]string, error) {
	if err := s.begin(ctx, "List", ""); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return under(s.subvolumes, path(s.filesystem, s.group, "")), nil
}
