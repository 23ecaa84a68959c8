// Package flight runs one piece of work at a time for each key, detached from its
// caller: a caller whose context ends is released at once, the work goes on to its
// end. Two calls on one key meet by waiting for each other, never by an error.
// Pure but for goroutines; imports the standard library only.
package flight

import (
	"context"
	"sync"
	"time"
)

// Group owns the work that its Do started. The zero value is not usable; see New.
type Group struct {
	limit time.Duration

	mu    sync.Mutex
	turns map[string]*turn
	work  sync.WaitGroup
}

// turn is a key's lock: whoever put a token into it has the turn.
type turn struct {
	token chan struct{}
	users int
}

// New returns a Group whose pieces of work get a context that ends after limit.
func New(limit time.Duration) *Group {
	return &Group{limit: limit, turns: map[string]*turn{}}
}

// Do waits for key's turn and runs fn on a context of its own, which carries ctx's
// values but not its end. It returns fn's result, or ctx.Err() if ctx ends first.
func Do[T any](ctx context.Context, g *Group, key string, fn func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var zero T
	release, err := g.acquire(ctx, key)
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

// acquire takes key's turn, or fails with ctx.Err().
func (g *Group) acquire(ctx context.Context, key string) (release func(), err error) {
	g.mu.Lock()
	t, ok := g.turns[key]
	if !ok {
		t = &turn{token: make(chan struct{}, 1)}
		g.turns[key] = t
	}
	t.users++
	g.mu.Unlock()
	leave := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(g.turns, key)
		}
	}
	select {
	case t.token <- struct{}{}:
		return func() { <-t.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// Wait returns when all work has ended. Nothing may be started after it.
func (g *Group) Wait() { g.work.Wait() }
