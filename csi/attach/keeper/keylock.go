package keeper

import (
	"context"
	"sync"
)

// keyLock is a lock a key, waited for under a context.
type keyLock struct {
	mu    sync.Mutex
	locks map[string]*waited
}

type waited struct {
	slot  chan struct{}
	users int
}

func newKeyLock() *keyLock { return &keyLock{locks: map[string]*waited{}} }

// lock waits for the key; the returned function lets go.
func (k *keyLock) lock(ctx context.Context, key string) (func(), error) {
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
