package standalone

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
)

// pools are what a cluster starts with. Few PGs: see ceph.conf.
var pools = [...]struct {
	name, application string
	pgs               int
}{
	{daemon.PoolRBD, "rbd", 16},
	{daemon.PoolRecords, "holdfast", 8},
	{daemon.PoolMeta, "", 8}, // `fs new` sets the application of its pools
	{daemon.PoolData, "", 16},
}

// makePools creates the pools; a pool that is there already is left as it is (that is
// what the monitor does with the command).
func (s *Supervisor) makePools(ctx context.Context) error {
	for _, p := range pools {
		_, err := s.mon(ctx, "osd pool create", map[string]any{
			"pool": p.name, "pool_type": "replicated", "pg_num": p.pgs, "pgp_num": p.pgs,
			"yes_i_really_mean_it": p.name[0] == '.', // a name that begins with a dot needs it
		})
		if err != nil {
			return fmt.Errorf("create pool %s: %w", p.name, err)
		}
		if p.application == "" {
			continue
		}
		if _, err := s.mon(ctx, "osd pool application enable", map[string]any{"pool": p.name, "app": p.application}); err != nil {
			return fmt.Errorf("set the application of pool %s: %w", p.name, err)
		}
	}
	return nil
}

func (s *Supervisor) makeFilesystem(ctx context.Context) error {
	_, err := s.mon(ctx, "fs new", map[string]any{
		"fs_name": daemon.Filesystem, "metadata": daemon.PoolMeta, "data": daemon.PoolData,
	})
	if err != nil {
		return fmt.Errorf("create file system: %w", err)
	}
	if err := s.startMDS(ctx); err != nil {
		return err
	}
	if s.state.Formed {
		return nil
	}
	// validates the pool for snapshots, which the first image would otherwise wait for
	_, err = s.tools.Runner.Run(ctx, command.Cmd{Name: "rbd", Args: []string{
		"--conf", s.paths.Conf(), "--name", daemon.Admin, "pool", "init", daemon.PoolRBD,
	}})
	return err
}

// startMDS starts the MDS after the manager: a manager that follows a dead one blocklists
// the dead one's CephFS client, and an MDS that starts then does not wait for it to
// reconnect (MDSRank::reconnect_start).
func (s *Supervisor) startMDS(ctx context.Context) error {
	err := within(ctx, waitMgr, "no manager became active", s.paths.Log(), func(ctx context.Context) (bool, error) {
		var mgr struct {
			Available bool   `json:"available"`
			GID       uint64 `json:"active_gid"`
		}
		if err := s.monJSON(ctx, "mgr dump", nil, &mgr); err != nil {
			return false, err
		}
		return mgr.Available && mgr.GID != s.oldMgr, nil
	})
	if err != nil {
		return err
	}
	_, err = s.startDaemon(mdsRef())
	return err
}

func (s *Supervisor) awaitMDS(ctx context.Context) error {
	return within(ctx, waitMDS, "no MDS became active", s.paths.Log(), func(ctx context.Context) (bool, error) {
		r, err := s.cephReport(ctx)
		if err != nil {
			return false, err
		}
		return r.mdsActive(), fmt.Errorf("the MDS is not active yet")
	})
}

// makeGroup makes the subvolume group; that the volumes module does it shows that the
// mgr is not only active but serves commands.
func (s *Supervisor) makeGroup(ctx context.Context) error {
	return within(ctx, waitMgr, "the mgr does not serve commands", s.paths.Log(), func(ctx context.Context) (bool, error) {
		r, err := s.cephReport(ctx)
		if err != nil || !r.MgrMap.Available {
			return false, err
		}
		cluster, err := s.connect(ctx)
		if err != nil {
			return false, err
		}
		_, err = cluster.Mgr(ctx, map[string]any{
			"prefix": "fs subvolumegroup create", "vol_name": daemon.Filesystem, "group_name": daemon.SubvolumeGroup,
		}, nil)
		return err == nil, err
	})
}

// ensureUsers gives every entity the capabilities that this version of Holdfast wants.
func (s *Supervisor) ensureUsers(ctx context.Context) error {
	entities := daemon.Entities(s.state.daemons())
	errs := make(chan error, len(entities))
	var wg sync.WaitGroup
	for _, e := range entities {
		if e.Name != "mon." {
			wg.Go(func() { errs <- s.ensureUser(ctx, e) })
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Supervisor) ensureUser(ctx context.Context, e daemon.Entity) error {
	var has []struct {
		Caps daemon.Caps `json:"caps"`
	}
	if err := s.monJSON(ctx, "auth get", map[string]any{"entity": e.Name}, &has); err != nil {
		return fmt.Errorf("look up user %s: %w", e.Name, err)
	}
	if len(has) == 1 && maps.Equal(has[0].Caps, e.Caps) {
		return nil
	}
	var pairs []string
	for _, service := range slices.Sorted(maps.Keys(e.Caps)) {
		pairs = append(pairs, service, e.Caps[service])
	}
	if _, err := s.mon(ctx, "auth caps", map[string]any{"entity": e.Name, "caps": pairs}); err != nil {
		return fmt.Errorf("set the capabilities of %s: %w", e.Name, err)
	}
	s.tools.Log.Info("updated capabilities", "name", e.Name)
	return nil
}

// mon sends a monitor command as the administrator.
func (s *Supervisor) mon(ctx context.Context, prefix string, args map[string]any) ([]byte, error) {
	cluster, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	cmd := map[string]any{"prefix": prefix}
	maps.Copy(cmd, args)
	return cluster.Mon(ctx, cmd, nil)
}

func (s *Supervisor) monJSON(ctx context.Context, prefix string, args map[string]any, into any) error {
	out, err := s.mon(ctx, prefix, args)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("decode the answer to %q: %w", prefix, err)
	}
	return nil
}
