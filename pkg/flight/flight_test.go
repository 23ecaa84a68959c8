package flight_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/flight"
)

func TestWorkOfOneKeyNeverOverlapsAndOtherKeysRunBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := flight.New(time.Minute)
		var running, overlaps atomic.Int32
		var callers sync.WaitGroup
		start := time.Now()
		for i := range 10 {
			callers.Go(func() {
				_, err := flight.Do(t.Context(), group, []string{"a", "b"}[i%2], func(context.Context) (int, error) {
					if running.Add(1) > 2 {
						overlaps.Add(1)
					}
					time.Sleep(time.Second)
					running.Add(-1)
					return i, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if overlaps.Load() != 0 {
			t.Error("two pieces of work of one key ran at once")
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("took %v, want 5 s: two keys side by side", took)
		}
	})
}

func TestCallerWhoseContextEndsIsReleasedAndTheWorkFinishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := flight.New(time.Minute)
		var finished atomic.Bool
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := flight.Do(ctx, group, "k", func(work context.Context) (int, error) {
			time.Sleep(10 * time.Second)
			finished.Store(work.Err() == nil)
			return 1, nil
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		group.Wait()
		if !finished.Load() {
			t.Error("the work was cut off")
		}
	})
}

func TestWaiterWhoGivesUpLeavesTheTurnToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := flight.New(time.Minute)
		slow := func(context.Context) (int, error) { time.Sleep(10 * time.Second); return 0, nil }
		var callers sync.WaitGroup
		callers.Go(func() { _, _ = flight.Do(t.Context(), group, "k", slow) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := flight.Do(ctx, group, "k", slow); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if _, err := flight.Do(t.Context(), group, "k", slow); err != nil {
			t.Errorf("third caller: %v", err)
		}
		callers.Wait()
	})
}
