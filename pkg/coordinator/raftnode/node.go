// Package raftnode keeps a coordinator's state in a raft log: hashicorp/raft over mutual TLS, on a bbolt store, with
// snapshots, and a watchdog for disks that hang.
//
// Invariant: what Apply has answered without an error is in the logs of a majority, fsynced, and every later leader
// has it. An error of fault.Unavailable says nothing about whether the command was done: give it again with its key.
//
// It is the sole importer of hashicorp/raft, and knows nothing of what commands mean.
package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Member is one of the coordinators.
type Member struct {
	Name    string `json:"name"`
	Address string `json:"address"` // host:port of its raft listener
}

// DefaultHeartbeat lets the next write be committed within two seconds of a leader's death: the first of the others stands after
// one or two heartbeats, and raft needs another one when two of them stand at once.
const DefaultHeartbeat = 500 * time.Millisecond

// Config is what a member needs.
type Config struct {
	Name    string
	Dir     string // its own; made with mode 0700
	Address string // host:port that the others reach it at
	// Listener gives raft's connections, from coordinators alone. The node closes it.
	Listener net.Listener
	Certs    *certs.Store
	// Members make a new cluster, if Dir holds nothing yet. A member that joins an existing cluster has none.
	Members []Member
	// Discover finds the Members of a new cluster when they are not given; it must give the same to each of them. Nil: nobody does.
	Discover func() ([]Member, error)
	// Heartbeat is how long a member waits for its leader before it stands itself; 0: DefaultHeartbeat.
	Heartbeat time.Duration
	// Stall is how long a write of the store may take before the disk counts as hung; 0: three seconds.
	Stall time.Duration
	// SnapshotEvery is how many entries the log grows by before a snapshot takes their place; 0: 16384.
	SnapshotEvery uint64
	// Stalled hears that the disk hangs. This member has no connections any more then; the process should end: a new
	// one is the only way back, since calls into the store may never return.
	Stalled func(error)
	Log     *slog.Logger
}

// Node is a running member.
type Node struct {
	cfg     Config
	raft    *raft.Raft
	machine *machine
	store   *watched
	bolt    *raftboltdb.BoltStore
	layer   *layer
	wire    *raft.NetworkTransport
	reads   reads
	ready   atomic.Uint64 // the term in which this member, as leader, has everything that was committed before
	stop    context.CancelFunc
	done    chan struct{}
}

// The names in a member's directory.
const (
	storeFile   = "raft.db"
	snapshotDir = "."
)

// retained is how many snapshots are kept.
const retained = 3

// Start brings a member up. fault.Invalid: Dir is another member's.
func Start(cfg Config) (*Node, error) {
	cfg.defaults()
	if err := own(cfg.Dir, cfg.Name); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, machine: newMachine(), done: make(chan struct{})}
	var err error
	if n.bolt, err = raftboltdb.NewBoltStore(filepath.Join(cfg.Dir, storeFile)); err != nil {
		return nil, fmt.Errorf("open raft store: %w", err)
	}
	n.store = watch(n.bolt)
	if err := n.join(); err != nil {
		return nil, errors.Join(err, n.bolt.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go n.attend(ctx)
	return n, nil
}

func (c *Config) defaults() {
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.Stall == 0 {
		c.Stall = 3 * time.Second
	}
	if c.SnapshotEvery == 0 {
		c.SnapshotEvery = 16384
	}
	if c.Stalled == nil {
		c.Stalled = func(error) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// own makes a member's directory, or refuses that of another member.
func own(dir, name string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of coordinator: %w", err)
	}
	path := filepath.Join(dir, "name")
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := durable.WriteFile(path, []byte(name), 0o600); err != nil {
			return fmt.Errorf("name of coordinator: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("read name of coordinator: %w", err)
	case string(data) != name:
		return fault.New(fault.Invalid, "%s belongs to coordinator %q, not %q", dir, data, name)
	}
	return nil
}

// join starts raft on the open store.
func (n *Node) join() error {
	log := logger(n.cfg.Log)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(n.cfg.Dir, snapshotDir), retained, log)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	n.layer = newLayer(n.cfg)
	n.wire = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: n.layer, MaxPool: 3, Timeout: 20 * n.cfg.Heartbeat, Logger: log,
	})
	rc := n.cfg.raft()
	rc.Logger = log
	if err := n.bootstrap(rc, snapshots); err != nil {
		return errors.Join(err, n.wire.Close())
	}
	if n.raft, err = raft.NewRaft(rc, n.machine, n.store, n.store, snapshots, n.wire); err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), n.wire.Close())
	}
	return nil
}

// raft is the library's configuration.
func (c Config) raft() *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.Name)
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = c.Heartbeat, c.Heartbeat, c.Heartbeat
	rc.CommitTimeout = 20 * time.Millisecond
	rc.SnapshotThreshold, rc.TrailingLogs = c.SnapshotEvery, c.SnapshotEvery/4
	rc.SnapshotInterval = 10 * time.Second // how often the log is looked at
	rc.NoLegacyTelemetry = true
	rc.BatchApplyCh = true
	return rc
}

// bootstrap writes the first configuration into a store that holds nothing.
func (n *Node) bootstrap(rc *raft.Config, snapshots raft.SnapshotStore) error {
	if len(n.cfg.Members) == 0 && n.cfg.Discover == nil {
		return nil
	}
	has, err := raft.HasExistingState(n.store, n.store, snapshots)
	if err != nil || has {
		return err
	}
	if len(n.cfg.Members) == 0 {
		if n.cfg.Members, err = n.cfg.Discover(); err != nil {
			return err
		}
	}
	if err := raft.BootstrapCluster(rc, n.store, n.store, snapshots, n.wire, configuration(n.cfg.Members)); err != nil {
		return fmt.Errorf("make a new cluster: %w", err)
	}
	return nil
}

func configuration(members []Member) raft.Configuration {
	var c raft.Configuration
	for _, m := range members {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(m.Name), Address: raft.ServerAddress(m.Address)})
	}
	return c
}

// attend watches the disk and waits for leadership.
func (n *Node) attend(ctx context.Context) {
	defer close(n.done)
	ticker := time.NewTicker(n.cfg.Stall / 12)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case lead := <-n.raft.LeaderCh():
			if lead {
				n.settle()
			}
		case <-ticker.C:
			if took := n.store.stalled(); took > n.cfg.Stall {
				n.layer.cut()
				n.wire.CloseStreams()
				n.cfg.Stalled(fault.New(fault.Unavailable, "the disk of coordinator %s hangs: a write has taken %v: it takes no part any more", n.cfg.Name, took.Round(time.Millisecond)))
				return
			}
		}
	}
}

// settle marks the term in which everything committed before is applied here.
func (n *Node) settle() {
	term := n.raft.CurrentTerm()
	barrier := n.raft.Barrier(0)
	go func() { // ends with raft: every future is answered when it shuts down
		if barrier.Error() == nil {
			n.ready.Store(term)
		}
	}()
}

// Close takes the member down. With a disk that hangs it may not return in time: see Config.Stalled.
func (n *Node) Close() error {
	n.stop()
	<-n.done
	err := n.raft.Shutdown().Error()
	return errors.Join(err, n.wire.Close(), n.bolt.Close())
}

// Name is this member's.
func (n *Node) Name() string { return n.cfg.Name }

// View shows the state as this member has it: a member that is cut off shows the past. f must not keep or change
// anything of it.
func (n *Node) View(f func(*fsm.State)) { n.machine.view(f) }

// Changed returns a channel that is closed with the next change of the state.
func (n *Node) Changed() <-chan struct{} { return n.machine.next() }

// CommitIndex is the newest entry of the log that a majority has, as this member knows.
func (n *Node) CommitIndex() uint64 { return n.raft.CommitIndex() }

// AppliedIndex is the newest entry of the log that View shows.
func (n *Node) AppliedIndex() uint64 { return n.raft.AppliedIndex() }

// State is leader, candidate, follower or shutdown.
func (n *Node) State() string { return strings.ToLower(n.raft.State().String()) }

// LastContact is when this member heard of its leader; now, for the leader itself.
func (n *Node) LastContact() time.Time {
	if n.raft.State() == raft.Leader {
		return time.Now()
	}
	return n.raft.LastContact()
}

// Term is the newest term that this member knows.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }
