package raftnode

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// watched is a store that tells how long a write is under way. A leader whose disk hangs goes on sending heartbeats, so
// nobody else stands for election, and its commits never end: only somebody beside it can see that.
type watched struct {
	*raftboltdb.BoltStore

	mu    sync.Mutex
	next  int
	under map[int]time.Time
}

var (
	_ raft.LogStore    = (*watched)(nil)
	_ raft.StableStore = (*watched)(nil)
)

func watch(b *raftboltdb.BoltStore) *watched {
	return &watched{BoltStore: b, under: map[int]time.Time{}}
}

// stalled is for how long the oldest write has been under way, 0 if there is none.
func (w *watched) stalled() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var longest time.Duration
	for _, since := range w.under {
		longest = max(longest, time.Since(since))
	}
	return longest
}

func (w *watched) timed(write func() error) error {
	w.mu.Lock()
	id := w.next
	w.next++
	w.under[id] = time.Now()
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.under, id)
		w.mu.Unlock()
	}()
	return write()
}

// StoreLog writes an entry.
func (w *watched) StoreLog(l *raft.Log) error {
	return w.timed(func() error { return w.BoltStore.StoreLog(l) })
}

// StoreLogs writes entries.
func (w *watched) StoreLogs(l []*raft.Log) error {
	return w.timed(func() error { return w.BoltStore.StoreLogs(l) })
}

// DeleteRange removes entries.
func (w *watched) DeleteRange(first, last uint64) error {
	return w.timed(func() error { return w.BoltStore.DeleteRange(first, last) })
}

// Set writes a value.
func (w *watched) Set(k, v []byte) error {
	return w.timed(func() error { return w.BoltStore.Set(k, v) })
}

// SetUint64 writes a number.
func (w *watched) SetUint64(k []byte, v uint64) error {
	return w.timed(func() error { return w.BoltStore.SetUint64(k, v) })
}
