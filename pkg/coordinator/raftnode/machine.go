package raftnode

import (
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
)

// machine is the state behind the log.
type machine struct {
	mu      sync.RWMutex
	state   *fsm.State
	changed chan struct{} // closed with the next change
}

var _ raft.FSM = (*machine)(nil)

func newMachine() *machine { return &machine{state: fsm.New(), changed: make(chan struct{})} }

// next is closed when the state changes.
func (m *machine) next() <-chan struct{} {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.changed
}

// tell lets those know who wait for a change; mu is held.
func (m *machine) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *machine) view(f func(*fsm.State)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	f(m.state)
}

// Apply does a committed command. One that cannot be read ends the process: a member that left it out would be of
// another state than the rest, and nobody would see it.
func (m *machine) Apply(l *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.Type != raft.LogCommand {
		return nil
	}
	c, err := fsm.Decode(l.Data)
	if err != nil {
		panic(fmt.Sprintf("entry %d of the coordinators' log: %v", l.Index, err))
	}
	defer m.tell()
	return m.state.Apply(c)
}

// snapshot is the state at one index.
type snapshot []byte

// Snapshot encodes the state: the commands wait meanwhile.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	data, err := m.state.Encode()
	return snapshot(data), err
}

// Persist writes it.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		_ = sink.Cancel()
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("close snapshot: %w", err)
	}
	return nil
}

// Release has nothing to let go of.
func (snapshot) Release() {}

// Restore replaces the state by a snapshot's.
func (m *machine) Restore(r io.ReadCloser) error {
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	s, err := fsm.DecodeState(data)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
	m.tell()
	return nil
}
