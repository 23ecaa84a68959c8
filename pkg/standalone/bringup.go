package standalone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// How long the parts of bring-up may take on a slow and busy machine.
const (
	waitMon    = 60 * time.Second
	waitOSDs   = 120 * time.Second
	waitMgr    = 90 * time.Second
	waitMDS    = 90 * time.Second
	waitCSI    = 30 * time.Second
	waitHealth = 60 * time.Second
	pollEvery  = 100 * time.Millisecond
)

// steps are the bring-up, for a new cluster as for one that was stopped, killed or cut
// off anywhere in its making.
func (s *Supervisor) steps() []step {
	list := []step{
		{name: "keys", check: s.keysMade, do: s.makeKeys},
		{name: "configuration", check: never, do: s.writeConfig},
		{name: "monitors", check: never, do: s.startMons, verify: s.awaitMons},
		{name: "OSD stores", check: s.osdsMade, do: s.makeOSDs},
		{name: "daemons", check: never, do: s.startDaemons, verify: s.awaitOSDs},
		{name: "pools", check: never, do: s.makePools},
		{name: "file system", check: never, do: s.makeFilesystem, verify: s.awaitMDS},
		{name: "manager", check: never, do: s.makeGroup},
		{name: "users", check: never, do: s.ensureUsers},
		// Also without the CSI services: then they run elsewhere, in Kubernetes say.
		{name: "CSI files", check: never, do: s.writeCSIFiles},
	}
	if s.state.CSI {
		list = append(list, step{name: "CSI services", check: never, do: s.startCSI, verify: s.awaitCSI})
	}
	// Neither Ceph nor a volume needs the coordinators: what is wrong with them keeps none of those down.
	list = append(list, step{name: "coordinators", check: never, do: s.startCoordinators}, step{name: "leader", check: never, do: s.giveKey, verify: s.awaitLeader})
	if s.state.Agent {
		list = append(list, step{name: "agent", check: never, do: s.startAgent, verify: s.awaitAgent})
	}
	return append(list, step{name: "health", check: s.healthy, do: s.awaitHealth})
}

// within gives a part of bring-up its time, and says in words when that is over.
func within(ctx context.Context, d time.Duration, what, see string, fn func(context.Context) (bool, error)) error {
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := poll(limited, pollEvery, fn)
	if err != nil && ctx.Err() == nil {
		return fault.New(fault.Unavailable, "%s within %s; see %s: %w", what, d, see, err)
	}
	return err
}

func (s *Supervisor) writeConfig(ctx context.Context) error {
	if err := os.MkdirAll(s.paths.Crash(), 0o750); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := writeIfChanged(s.paths.Conf(), []byte(s.config.CephConf()), 0o644); err != nil {
		return err
	}
	_, err := s.tools.Runner.Run(ctx, s.config.MonMapCommand())
	return err
}

// made is the file in a daemon's store that says that its mkfs came to its end.
func (s *Supervisor) made(r daemon.Ref) string { return s.paths.Data(r) + "/holdfast-made" }

func (s *Supervisor) isMade(r daemon.Ref) bool {
	_, err := os.Stat(s.made(r))
	return err == nil
}

func (s *Supervisor) startMons(ctx context.Context) error {
	for _, m := range s.config.Monitors {
		if !s.isMade(m.Ref) {
			if err := s.makeMon(ctx, m.Ref); err != nil {
				return err
			}
		}
		if _, err := s.startDaemon(m.Ref); err != nil {
			return err
		}
	}
	return nil
}

// makeMon makes a monitor's store. Half a store, of a mkfs that was cut off, goes first:
// a monitor without the mark never ran.
func (s *Supervisor) makeMon(ctx context.Context, r daemon.Ref) error {
	data := s.paths.Data(r)
	if err := os.RemoveAll(data); err != nil {
		return fmt.Errorf("clear the unfinished store of %s: %w", r.Name(), err)
	}
	if err := os.Mkdir(data, 0o750); err != nil {
		return fmt.Errorf("make the store of %s: %w", r.Name(), err)
	}
	if _, err := s.tools.Runner.Run(ctx, s.config.MonMkfsCommand(r)); err != nil {
		return fmt.Errorf("make the store of %s: %w", r.Name(), err)
	}
	return durable.WriteFile(s.made(r), nil, 0o644)
}

// awaitMons waits for a quorum: only then does a monitor answer a client. A port is tried
// first, since a client that finds it closed waits for seconds before its next attempt.
func (s *Supervisor) awaitMons(ctx context.Context) error {
	dialer := &net.Dialer{Timeout: time.Second}
	return within(ctx, waitMon, "no monitor answers", s.paths.Log(), func(ctx context.Context) (bool, error) {
		for _, m := range s.config.Monitors {
			conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(s.state.Address, strconv.Itoa(m.V2)))
			if err != nil {
				return false, fmt.Errorf("reach monitor %s: %w", m.Ref.ID, err)
			}
			conn.Close()
		}
		_, err := s.mon(ctx, "mon stat", nil)
		return err == nil, err
	})
}

// startDaemons starts the manager and the OSDs, which wait for what they need by
// themselves. The MDS comes later: see makeFilesystem.
func (s *Supervisor) startDaemons(ctx context.Context) error {
	var before osdMap
	var mgr struct {
		GID uint64 `json:"active_gid"`
	}
	if err := s.monJSON(ctx, "mgr dump", nil, &mgr); err != nil {
		return err
	}
	if err := s.monJSON(ctx, "osd dump", nil, &before); err != nil {
		return err
	}
	for _, osd := range s.state.OSDs {
		// creates the OSD's entry; the same id and uuid again change nothing
		if _, err := s.mon(ctx, "osd new", map[string]any{"uuid": osd.UUID, "id": osd.ID}); err != nil {
			return fmt.Errorf("register osd.%d: %w", osd.ID, err)
		}
	}
	for _, r := range s.state.daemons() {
		if r.Kind == daemon.MDS {
			continue
		}
		started, err := s.startDaemon(r)
		if err != nil {
			return err
		}
		if started && r.Kind == daemon.OSD {
			s.bootedAfter[r.ID] = before.Epoch
		}
		if started && r.Kind == daemon.Mgr {
			s.oldMgr = mgr.GID
		}
	}
	return nil
}

// startDaemon hands a daemon to its keeper. It returns false for one that ran already.
func (s *Supervisor) startDaemon(r daemon.Ref) (started bool, err error) {
	if err := os.MkdirAll(s.paths.Data(r), 0o750); err != nil {
		return false, fmt.Errorf("make the directory of %s: %w", r.Name(), err)
	}
	return s.keep(r.Name(), s.config.Command(r))
}

// awaitOSDs waits until all OSDs are up. After a crash the map still calls the dead
// ones up: an OSD that was started here counts from the map that it booted into.
func (s *Supervisor) awaitOSDs(ctx context.Context) error {
	err := within(ctx, waitOSDs, "not all OSDs came up", s.paths.Log(), func(ctx context.Context) (bool, error) {
		var now osdMap
		if err := s.monJSON(ctx, "osd dump", nil, &now); err != nil {
			return false, err
		}
		up := 0
		for _, osd := range now.OSDs {
			if osd.Up == 1 && osd.UpFrom > s.bootedAfter[strconv.Itoa(osd.ID)] {
				up++
			}
		}
		return up == len(s.state.OSDs), fmt.Errorf("%d of %d OSDs are up", up, len(s.state.OSDs))
	})
	if err != nil && s.state.Formed && errors.Is(err, fault.Unavailable) {
		// an old cluster does its work with what there is: status says what is missing
		s.note("not all OSDs came up; `holdfast status` says which")
		return nil
	}
	return err
}

func (s *Supervisor) healthy(ctx context.Context) (bool, error) {
	r, err := s.cephReport(ctx)
	if err != nil {
		return false, err
	}
	return r.settled(), nil
}

// awaitHealth ends when Ceph is content. A cluster that formed before and is not content
// is up all the same.
func (s *Supervisor) awaitHealth(ctx context.Context) error {
	var last *cephReport
	err := within(ctx, waitHealth, "the cluster runs but is not HEALTH_OK", "`holdfast status`", func(ctx context.Context) (bool, error) {
		r, err := s.cephReport(ctx)
		if err != nil {
			return false, err
		}
		last = r
		return r.settled(), r.summary()
	})
	if err != nil && last != nil && s.state.Formed && ctx.Err() == nil {
		s.note(fmt.Sprintf("the cluster is up and %s: see `holdfast status`", last.Health.Status))
		return nil
	}
	return err
}
