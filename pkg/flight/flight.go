// Package flight runs one piece of work at a time for each key, detached from its
// caller: a caller whose context ends is released at once, the work goes on to its
// end. Two calls on one key meet by waiting for each other, never by an error.
// Imports keylock alone.
package flight

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/keylock"
)

// Group owns the work that its Do started. The zero value is not usable; see New.
type Group struct {
	limit time.Duration
	turns *keylock.Locks
	work  sync.WaitGroup
}

// New returns a Group whose pieces of work get a context that ends after limit.
func New(limit time.Duration) *Group {
	return &Group{limit: limit, turns: keylock.New()}
}

// Do waits for key's turn and runs fn on a context of its own, which carries ctx's
// values but not its end. It returns fn's result, or ctx.Err() if ctx ends first.
func Do[T any](ctx context.Context, g *Group, key string, fn func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var zero T
	release, err := g.turns.Lock(ctx, key)
	if err != nil {
		return zero, err
	}
	done := make(chan outcome, 1)
	g.work.Go(func() {
		defer release()
		work, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.limit)
		defer cancel()
		value, err := fn(work)
		done <- outcome{value, err}
	})
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// Wait returns when all work has ended. Nothing may be started after it.
func (g *Group) Wait() { g.work.Wait() }
