// Package keylock serialises work by key: one holder a key at a time, the others wait
// under their contexts. It keeps nothing for keys that nobody uses.
package keylock

import (
	"context"
	"sync"
)

// Locks are locks by key. Make them with New.
type Locks struct {
	mu    sync.Mutex
	locks map[string]*waited
}

type waited struct {
	slot  chan struct{}
	users int
}

// New returns locks of which none is held.
func New() *Locks { return &Locks{locks: map[string]*waited{}} }

// Lock waits for the key, or for the end of ctx (then it returns its error). The
// returned function lets go; call it once.
func (k *Locks) Lock(ctx context.Context, key string) (func(), error) {
	k.mu.Lock()
	w := k.locks[key]
	if w == nil {
		w = &waited{slot: make(chan struct{}, 1)}
		k.locks[key] = w
	}
	w.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		if w.users--; w.users == 0 {
			delete(k.locks, key)
		}
		k.mu.Unlock()
	}
	select {
	case w.slot <- struct{}{}:
		return func() { <-w.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
