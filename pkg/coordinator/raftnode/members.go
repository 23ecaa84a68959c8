package raftnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Members lists the members of the configuration that counts.
func (n *Node) Members() ([]Member, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var list []Member
	for _, s := range f.Configuration().Servers {
		list = append(list, Member{string(s.ID), string(s.Address)})
	}
	return list, nil
}

// Add makes a process a member, or gives a member its new address. It copies what it needs from the leader.
func (n *Node) Add(ctx context.Context, m Member) error {
	if m.Name == "" || m.Address == "" {
		return fault.New(fault.Invalid, "a coordinator needs a name and an address: got %q, %q", m.Name, m.Address)
	}
	if err := n.layer.answers(ctx, m); err != nil { // a member that is not there counts for the majority all the same
		return fault.New(fault.Precondition, "coordinator %s does not answer at %s: start it there first: %w", m.Name, m.Address, err)
	}
	return n.wait(ctx, n.raft.AddVoter(raft.ServerID(m.Name), raft.ServerAddress(m.Address), 0, patience(ctx)))
}

// Remove takes a member out. fault.Precondition: the rest could not decide anything any more.
func (n *Node) Remove(ctx context.Context, name string) error {
	members, err := n.Members()
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.Name == name })
	switch len(rest) {
	case len(members):
		return fault.New(fault.NotFound, "there is no coordinator %q", name)
	case 0:
		return fault.New(fault.Precondition, "%s is the only coordinator", name)
	}
	up := 0
	for _, m := range rest {
		if m.Name == n.cfg.Name || n.layer.answers(ctx, m) == nil {
			up++
		}
	}
	if up <= len(rest)/2 {
		return fault.New(fault.Precondition, "without %s %d of %d coordinators answer, and nothing could be decided any more: bring the others up first", name, up, len(rest))
	}
	return n.wait(ctx, n.raft.RemoveServer(raft.ServerID(name), 0, patience(ctx)))
}

// Transfer hands leadership to a member, or with "" to the one that is furthest. It is done when this one leads already.
func (n *Node) Transfer(ctx context.Context, name string) error {
	if name == n.cfg.Name { // raft refuses this with an error of no class, whoever leads
		if n.raft.State() == raft.Leader {
			return nil
		}
		return &NotLeader{n.Leader()}
	}
	if name == "" {
		return n.wait(ctx, n.raft.LeadershipTransfer())
	}
	members, err := n.Members()
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Name == name {
			return n.wait(ctx, n.raft.LeadershipTransferToServer(raft.ServerID(m.Name), raft.ServerAddress(m.Address)))
		}
	}
	return fault.New(fault.NotFound, "there is no coordinator %q", name)
}

// Restore replaces the state of all members by a backup's, in which what was at work waits for a person. Only the leader can.
// fault.Invalid: it is no backup.
func (n *Node) Restore(ctx context.Context, backup []byte, who string) error {
	state, err := fsm.DecodeState(backup)
	if err != nil {
		return err
	}
	var term uint64
	n.View(func(s *fsm.State) { term = s.Term })
	state.Restored(time.Now().UTC(), who, term)
	data, err := state.Encode()
	if err != nil {
		return err
	}
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Size: int64(len(data))}
	return n.explain(n.raft.Restore(meta, bytes.NewReader(data), patience(ctx)))
}

// Recover makes the members named the whole cluster, in the store of one that is down: the way back when a majority
// is lost for ever. What only the lost members had is lost. It is run on one member; the others join it anew, empty.
func Recover(cfg Config, members []Member) error {
	cfg.defaults()
	if err := own(cfg.Dir, cfg.Name); err != nil {
		return err
	}
	bolt, err := raftboltdb.NewBoltStore(filepath.Join(cfg.Dir, storeFile))
	if err != nil {
		return fmt.Errorf("open raft store: %w", err)
	}
	log := logger(cfg.Log)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(cfg.Dir, snapshotDir), retained, log)
	if err != nil {
		return errors.Join(fmt.Errorf("open snapshots: %w", err), bolt.Close())
	}
	_, nowhere := raft.NewInmemTransport(raft.ServerAddress(cfg.Address))
	rc := cfg.raft()
	rc.Logger = log
	err = raft.RecoverCluster(rc, newMachine(), bolt, bolt, snapshots, nowhere, configuration(members))
	if err != nil {
		err = fmt.Errorf("recover cluster: %w", err)
	}
	return errors.Join(err, bolt.Close())
}
