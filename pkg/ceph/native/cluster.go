package native

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/ceph/go-ceph/rados"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// cluster is one connection.
type cluster struct {
	conn        *rados.Conn
	dialer      *Dialer
	forget      func()
	manager     *manager
	pools       *memo[[]ceph.PoolInfo]
	filesystems *memo[[]ceph.Filesystem]

	mu        sync.Mutex
	active    int  // calls under way
	forgotten bool // no further call is made; with the end of the last one the connection ends
}

// enter begins a call; false: the connection is of no use any more.
func (c *cluster) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.forgotten {
		c.active++
	}
	return !c.forgotten
}

// leave ends a call, and the connection with the last one of it.
func (c *cluster) leave() {
	c.mu.Lock()
	c.active--
	last := c.forgotten && c.active == 0
	c.mu.Unlock()
	if last {
		c.shutdown()
	}
}

// retire refuses further calls; false if that was done before.
func (c *cluster) retire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forgotten {
		return false
	}
	c.forgotten = true
	c.active++ // whoever retires it leaves it
	return true
}

var _ ceph.Cluster = (*cluster)(nil)

func (c *cluster) Objects(pool, namespace string) ceph.Objects {
	return &objects{cluster: c, pool: pool, namespace: namespace}
}

func (c *cluster) Images(pool, namespace string) ceph.Images {
	return &images{cluster: c, pool: pool, namespace: namespace}
}

func (c *cluster) Subvolumes(filesystem, group string) ceph.Subvolumes {
	return &subvolumes{cluster: c, filesystem: filesystem, group: group}
}

func (c *cluster) FSID(ctx context.Context) (string, error) {
	return call(ctx, c, "get the cluster's fsid", c.conn.GetFSID)
}

func (c *cluster) Mon(ctx context.Context, cmd map[string]any, input []byte) ([]byte, error) {
	line, err := encodeCommand(cmd)
	if err != nil {
		return nil, err
	}
	return call(ctx, c, fmt.Sprintf("monitor command %q", cmd["prefix"]), func() ([]byte, error) {
		out, status, err := c.conn.MonCommandWithInputBuffer(line, input)
		return out, withStatus(err, "monitor", status)
	})
}

func (c *cluster) Mgr(ctx context.Context, cmd map[string]any, input []byte) ([]byte, error) {
	line, err := encodeCommand(cmd)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, c.dialer.timeouts.Mon)
	defer cancel()
	out, status, err := c.manager.command(bounded, line, input)
	if err != nil {
		err = patience(ctx, bounded, classify(withStatus(err, "manager", status)))
		return nil, fmt.Errorf("manager command %q: %w", cmd["prefix"], err)
	}
	return out, nil
}

// encodeCommand is cmd in JSON with "format": "json" added.
func encodeCommand(cmd map[string]any) ([]byte, error) {
	full := map[string]any{"format": "json"}
	for key, value := range cmd {
		full[key] = value
	}
	line, err := json.Marshal(full)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return line, nil
}

// withStatus adds the daemon's own words to an error.
func withStatus(err error, daemon, status string) error {
	if status = strings.TrimSpace(status); err != nil && status != "" {
		return fmt.Errorf("%w (the %s says: %s)", err, daemon, status)
	}
	return err
}

// osdDump is the part of `osd dump` that is used here.
type osdDump struct {
	FlagsSet []string `json:"flags_set"`
	Pools    []struct {
		ID           int64                     `json:"pool"`
		Name         string                    `json:"pool_name"`
		Flags        string                    `json:"flags_names"`
		Size         int                       `json:"size"`
		MinSize      int                       `json:"min_size"`
		PGs          int                       `json:"pg_num"`
		Applications map[string]map[string]any `json:"application_metadata"`
	} `json:"pools"`
}

type df struct {
	Pools []struct {
		ID    int64 `json:"id"`
		Stats struct {
			Stored   int64 `json:"stored"`
			MaxAvail int64 `json:"max_avail"`
		} `json:"stats"`
	} `json:"pools"`
}

func (c *cluster) monJSON(ctx context.Context, prefix string, into any) error {
	out, err := c.Mon(ctx, map[string]any{"prefix": prefix}, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("decode answer to %q: %w", prefix, err)
	}
	return nil
}

func (c *cluster) Pools(ctx context.Context) ([]ceph.PoolInfo, error) {
	pools, err := c.pools.get(ctx, c.askPools)
	return slices.Clone(pools), err
}

func (c *cluster) askPools(ctx context.Context) ([]ceph.PoolInfo, error) {
	var dump osdDump
	if err := c.monJSON(ctx, "osd dump", &dump); err != nil {
		return nil, err
	}
	var usage df
	if err := c.monJSON(ctx, "df", &usage); err != nil {
		return nil, err
	}
	pools := make([]ceph.PoolInfo, 0, len(dump.Pools))
	for _, p := range dump.Pools {
		info := ceph.PoolInfo{
			ID: p.ID, Name: p.Name, Size: p.Size, MinSize: p.MinSize, PGs: p.PGs,
			Full: slices.Contains(strings.Split(p.Flags, ","), "full") || slices.Contains(dump.FlagsSet, "full"),
		}
		for application := range p.Applications {
			info.Applications = append(info.Applications, application)
		}
		sort.Strings(info.Applications)
		for _, u := range usage.Pools {
			if u.ID == p.ID {
				info.Stored, info.MaxAvail = storage.Bytes(u.Stats.Stored), storage.Bytes(u.Stats.MaxAvail)
			}
		}
		pools = append(pools, info)
	}
	sort.Slice(pools, func(i, j int) bool { return pools[i].Name < pools[j].Name })
	return pools, nil
}

func (c *cluster) Filesystems(ctx context.Context) ([]ceph.Filesystem, error) {
	list, err := c.filesystems.get(ctx, c.askFilesystems)
	return slices.Clone(list), err
}

func (c *cluster) askFilesystems(ctx context.Context) ([]ceph.Filesystem, error) {
	var dump struct {
		Filesystems []struct {
			ID     int64 `json:"id"`
			MDSMap struct {
				Name         string  `json:"fs_name"`
				MetadataPool int64   `json:"metadata_pool"`
				DataPools    []int64 `json:"data_pools"`
			} `json:"mdsmap"`
		} `json:"filesystems"`
	}
	if err := c.monJSON(ctx, "fs dump", &dump); err != nil {
		return nil, err
	}
	var osds osdDump
	if err := c.monJSON(ctx, "osd dump", &osds); err != nil {
		return nil, err
	}
	poolName := map[int64]string{}
	for _, p := range osds.Pools {
		poolName[p.ID] = p.Name
	}
	var list []ceph.Filesystem
	for _, f := range dump.Filesystems {
		fs := ceph.Filesystem{ID: f.ID, Name: f.MDSMap.Name, MetadataPool: poolName[f.MDSMap.MetadataPool]}
		for _, id := range f.MDSMap.DataPools {
			fs.DataPools = append(fs.DataPools, poolName[id])
		}
		list = append(list, fs)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}
