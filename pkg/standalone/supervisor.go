package standalone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Supervisor is the one process that looks after a directory's cluster.
type Supervisor struct {
	tools  Tools
	dir    string
	paths  daemon.Paths
	lock   *os.File
	state  *State
	config daemon.Config
	events *hub
	watch  *observer

	bootedAfter map[string]int // OSDs started here: the map's epoch before
	oldMgr      uint64         // a manager started here: the id of the active one before, 0: none

	keeping context.Context // its end makes the keepers let go of the children
	letGo   context.CancelFunc
	keepers sync.WaitGroup

	mu       sync.Mutex
	phase    string // localapi.State...
	trouble  error  // why bring-up does not come to its end
	children map[string]*child
	order    []string
	stopping chan localapi.DownRequest
}

// Open checks what can be checked before anything runs, claims the directory and
// decides or loads what the cluster is. fault.Busy: a supervisor runs there already.
func Open(ctx context.Context, o Options, tools Tools) (*Supervisor, error) {
	if err := checkRoot(); err != nil {
		return nil, err
	}
	o.DataDir = filepath.Clean(o.DataDir)
	if err := checkDir(o.DataDir); err != nil {
		return nil, err
	}
	if !o.Stop {
		if err := checkPackages(lookPath, o.CSI == nil || *o.CSI); err != nil {
			return nil, err
		}
	}
	lock, err := claim(ctx, o.DataDir)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{
		tools: tools, dir: o.DataDir, paths: daemon.Paths{Dir: o.DataDir}, lock: lock,
		events: newHub(), bootedAfter: map[string]int{}, phase: localapi.StateStarting,
		children: map[string]*child{}, stopping: make(chan localapi.DownRequest, 1),
	}
	state, note, err := establish(ctx, o, tools.Runner)
	if err == nil {
		s.state, s.config = state, state.config(s.dir)
		if !o.Stop {
			err = s.checkWorld()
		}
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	if note != "" {
		s.note(note)
	}
	s.keeping, s.letGo = context.WithCancel(context.WithoutCancel(ctx))
	s.watch = newObserver(s)
	return s, nil
}

// checkWorld refuses to start when something else has what the cluster needs.
func (s *Supervisor) checkWorld() error {
	if err := s.checkLife(); err != nil {
		return err
	}
	for _, m := range s.config.Monitors {
		if _, err := find(s.recordOf(m.Ref.Name()), s.config.Command(m.Ref)); err == nil {
			continue // it runs: the ports are taken by itself
		}
		for _, port := range []int{m.V2, m.V1} {
			if err := checkPort(s.state.Address, port); err != nil {
				return fmt.Errorf("monitor %s: %w; the address of a monitor cannot change: stop what has the port, then run `holdfast up` again", m.Ref.ID, err)
			}
		}
	}
	for _, c := range s.state.Coordinators {
		if _, err := find(s.recordOf(childCoordinator(c)), s.coordinatorCommand(c)); err == nil {
			continue
		}
		if err := checkPort(s.state.Address, c.Port); err != nil {
			err = fmt.Errorf("coordinator %s: %w; the address of a coordinator cannot change: stop what has the port", c.Name, err)
			if !s.state.Formed {
				return err
			}
			s.note(err.Error()) // data is served without it, and it is started again and again
		}
	}
	return nil
}

func (s *Supervisor) recordOf(name string) string { return filepath.Join(s.paths.Run(), name+".pid") }

// Close lets go of the directory; children go on running.
func (s *Supervisor) Close() error {
	s.letGo()
	s.keepers.Wait()
	return s.lock.Close()
}

const retryBringUp = 15 * time.Second

// Run brings the cluster up and looks after it until ctx ends (the children go on) or
// `down` is asked for (the children are stopped). report gets the progress of the first
// attempt; its errors (nobody listens any more) end the reports alone.
func (s *Supervisor) Run(ctx context.Context, report func(localapi.Event) error) error {
	server, err := s.serve(ctx)
	if err != nil {
		return err
	}
	defer server.close()
	working, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { s.bringUp(working) })
	wg.Go(func() { s.watch.run(working) })
	wg.Go(func() { s.renew(working) })
	wg.Go(func() { _ = s.Follow(working, report) })
	var request *localapi.DownRequest
	select {
	case <-ctx.Done():
	case r := <-s.stopping:
		request = &r
	}
	stop()
	wg.Wait()
	s.letGo()
	s.keepers.Wait()
	if request == nil {
		s.tools.Log.Info("supervisor leaves; the daemons go on (`holdfast down` stops them)")
		return nil
	}
	return s.stopAll(ctx, *request)
}

// bringUp works through the steps until they succeed once.
func (s *Supervisor) bringUp(ctx context.Context) {
	for {
		err := runSteps(ctx, s.steps(), s.tell)
		if err == nil {
			err = errors.Join(s.finish(), s.awaitKeepers(ctx), s.watch.look(ctx, observeWithin))
		}
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.trouble = err
		if err == nil {
			s.phase = localapi.StateUp
		}
		events := s.events
		s.mu.Unlock()
		if err == nil {
			s.tools.Log.Info("cluster is up")
			events.publish(localapi.Event{State: localapi.EventReady})
			return
		}
		s.tools.Log.Error("bring-up failed; will be tried again", obs.KeyError, err, "in", retryBringUp)
		events.publish(localapi.Event{State: localapi.EventFail, Text: err.Error()})
		if !sleep(ctx, retryBringUp) {
			return
		}
		s.mu.Lock()
		s.events = newHub()
		s.mu.Unlock()
	}
}

// awaitKeepers waits until each keeper has found its process, or started it: what an earlier supervisor left answers
// before it is found, and status would call it stopped.
func (s *Supervisor) awaitKeepers(ctx context.Context) error {
	return within(ctx, waitCSI, "not all processes are looked after", s.paths.Log(), func(context.Context) (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.children {
			if d, _ := c.status(); d.State == localapi.DaemonStopped {
				return false, nil
			}
		}
		return true, nil
	})
}

func (s *Supervisor) finish() error {
	if s.state.Formed {
		return nil
	}
	s.state.Formed = true
	return s.state.save(s.dir)
}

// Follow passes on the progress of the bring-up under way, from its beginning.
func (s *Supervisor) Follow(ctx context.Context, fn func(localapi.Event) error) error {
	return s.hub().follow(ctx, fn)
}

func (s *Supervisor) hub() *hub {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events
}

func (s *Supervisor) tell(e localapi.Event) {
	s.hub().publish(e)
	if e.State == localapi.EventDone {
		s.tools.Log.Info("finished step", obs.KeyStep, e.Step, obs.KeyTook, time.Duration(e.Took*float64(time.Second)).Round(time.Millisecond))
	}
}

func (s *Supervisor) note(text string) {
	s.tools.Log.Warn("note", "text", text)
	s.tell(localapi.Event{State: localapi.EventNote, Text: text})
}

// keep starts the keeper of a child, once. started: the child did not run before.
func (s *Supervisor) keep(name string, cmd command.Cmd) (started bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.children[name] != nil {
		return false, nil
	}
	c := newChild(s.paths, name, cmd, s.tools.Log)
	_, err = find(c.record, cmd)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return false, err
	}
	s.children[name] = c
	s.order = append(s.order, name)
	s.keepers.Go(func() { c.run(s.keeping) })
	return err != nil, nil
}

// connect returns the administrator's connection; the Dialer shares it.
func (s *Supervisor) connect(ctx context.Context) (ceph.Cluster, error) {
	key, err := s.readKey(daemon.Admin)
	if err != nil {
		return nil, err
	}
	return s.tools.Dialer.Dial(ctx,
		ceph.Endpoint{ID: storage.ClusterID(s.state.FSID), Monitors: s.config.MonitorAddresses()},
		ceph.Credentials{User: "admin", Key: key})
}
