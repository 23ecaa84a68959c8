package native

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// subvolumes implements ceph.Subvolumes by the commands of the manager's volumes module.
type subvolumes struct {
	cluster           *cluster
	filesystem, group string
}

var _ ceph.Subvolumes = (*subvolumes)(nil)

func (s *subvolumes) mgr(ctx context.Context, prefix, name string, more map[string]any) ([]byte, error) {
	cmd := map[string]any{"prefix": prefix, "vol_name": s.filesystem, "group_name": s.group}
	if name != "" {
		cmd["sub_name"] = name
	}
	for key, value := range more {
		cmd[key] = value
	}
	out, err := s.cluster.Mgr(ctx, cmd, nil)
	if err != nil {
		return nil, fmt.Errorf("subvolume %s/%s/%s: %w", s.filesystem, s.group, name, err)
	}
	return out, nil
}

func (s *subvolumes) Create(ctx context.Context, name string, spec ceph.SubvolumeSpec) error {
	more := map[string]any{"size": int64(spec.Size), "mode": strconv.FormatUint(uint64(spec.Mode), 8)}
	if spec.DataPool != "" {
		more["pool_layout"] = spec.DataPool
	}
	_, err := s.mgr(ctx, "fs subvolume create", name, more)
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	// The group is missing (or the file system: then this fails and says so).
	if _, err := s.mgr(ctx, "fs subvolumegroup create", "", nil); err != nil {
		return err
	}
	_, err = s.mgr(ctx, "fs subvolume create", name, more)
	return err
}

func (s *subvolumes) Info(ctx context.Context, name string) (ceph.SubvolumeInfo, error) {
	info, err := s.ask(ctx, name)
	if isAgain(err) { // a clone that is not complete
		status, err := s.askClone(ctx, name)
		return ceph.SubvolumeInfo{State: string(status.State)}, err
	}
	return info, err
}

// ask fails with EAGAIN for a clone that is not complete.
func (s *subvolumes) ask(ctx context.Context, name string) (ceph.SubvolumeInfo, error) {
	out, err := s.mgr(ctx, "fs subvolume info", name, nil)
	if err != nil {
		return ceph.SubvolumeInfo{}, err
	}
	return decodeSubvolumeInfo(out)
}

func (s *subvolumes) Resize(ctx context.Context, name string, size storage.Bytes) error {
	info, err := s.Info(ctx, name)
	if err != nil {
		return err
	}
	if size < info.Quota {
		return fault.New(fault.Range, "resize subvolume %s to %d bytes: it has %d, and shrinking is refused", name, size, info.Quota)
	}
	_, err = s.mgr(ctx, "fs subvolume resize", name, map[string]any{"new_size": strconv.FormatInt(int64(size), 10), "no_shrink": true})
	return err
}

func (s *subvolumes) Remove(ctx context.Context, name string) error {
	return s.remove(ctx, name, nil)
}

func (s *subvolumes) Retire(ctx context.Context, name string) error {
	return s.remove(ctx, name, map[string]any{"retain_snapshots": true})
}

// remove removes a clone whose copy failed or was canceled by force, as the manager wants it.
func (s *subvolumes) remove(ctx context.Context, name string, more map[string]any) error {
	_, err := s.mgr(ctx, "fs subvolume rm", name, more)
	if !isAgain(err) {
		return err
	}
	status, statusErr := s.askClone(ctx, name)
	if statusErr != nil {
		return statusErr
	}
	if status.State != ceph.CloneFailed && status.State != ceph.CloneCanceled {
		return fault.New(fault.Busy, "the subvolume is being copied into; wait for the copy or cancel it: %v", err)
	}
	_, err = s.mgr(ctx, "fs subvolume rm", name, map[string]any{"force": true})
	return err
}

// isAgain tells that the manager refuses for the time being: because a clone is not
// complete, or because the module itself is not ready.
func isAgain(err error) bool { return errno(err) == syscall.EAGAIN }

func (s *subvolumes) List(ctx context.Context) ([]string, error) {
	out, err := s.mgr(ctx, "fs subvolume ls", "", nil)
	if err != nil {
		return nil, err
	}
	return decodeNames(out)
}
