package native

import (
	"context"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/keylock"
)

// memoAge is how old an answer may be that is given again. Hundreds of volumes made at
// once ask for the pools once a second, not once each.
const memoAge = time.Second

// memo keeps the last answer to a question for a short time. Callers who come while it
// is being asked wait for that answer.
type memo[T any] struct {
	turn  *keylock.Locks
	at    time.Time
	value T
}

func newMemo[T any]() *memo[T] { return &memo[T]{turn: keylock.New()} }

func (m *memo[T]) get(ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	release, err := m.turn.Lock(ctx, "")
	if err != nil {
		var zero T
		return zero, err
	}
	defer release()
	if !m.at.IsZero() && time.Since(m.at) < memoAge {
		return m.value, nil
	}
	value, err := ask(ctx)
	if err == nil {
		m.at, m.value = time.Now(), value
	}
	return value, err
}
