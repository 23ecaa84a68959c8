package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"

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
	out, err := s.mgr(ctx, "fs subvolume info", name, nil)
	if err != nil {
		return ceph.SubvolumeInfo{}, err
	}
	var answer struct {
		Path     string          `json:"path"`
		Quota    json.RawMessage `json:"bytes_quota"` // a number, or "infinite"
		Used     int64           `json:"bytes_used"`
		DataPool string          `json:"data_pool"`
		State    string          `json:"state"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return ceph.SubvolumeInfo{}, fmt.Errorf("decode subvolume info: %w", err)
	}
	quota, err := strconv.ParseInt(string(answer.Quota), 10, 64)
	if err != nil {
		quota = 0
	}
	return ceph.SubvolumeInfo{
		Path: answer.Path, Quota: storage.Bytes(quota), Used: storage.Bytes(answer.Used),
		DataPool: answer.DataPool, State: answer.State,
	}, nil
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
	_, err := s.mgr(ctx, "fs subvolume rm", name, nil)
	return err
}

func (s *subvolumes) List(ctx context.Context) ([]string, error) {
	out, err := s.mgr(ctx, "fs subvolume ls", "", nil)
	if err != nil {
		return nil, err
	}
	var entries []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(out, &entries); err != nil {
		return nil, fmt.Errorf("decode subvolume list: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name)
	}
	sort.Strings(names)
	return names, nil
}
