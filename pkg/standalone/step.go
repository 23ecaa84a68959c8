package standalone

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// step is one part of bring-up. Check says whether the work is done already; Do does
// it and may find it half done; Verify (may be nil: Check is asked again) waits until the world
// is as the next step needs it, and runs also where there was nothing to do.
type step struct {
	name   string
	check  func(context.Context) (bool, error)
	do     func(context.Context) error
	verify func(context.Context) error
}

// never is the check of a step whose Do is itself cheap and idempotent.
func never(context.Context) (bool, error) { return false, nil }

func runSteps(ctx context.Context, steps []step, tell func(localapi.Event)) error {
	for _, s := range steps {
		started := time.Now()
		tell(localapi.Event{Step: s.name, State: localapi.EventStart})
		did, err := s.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		state := localapi.EventSkip
		if did {
			state = localapi.EventDone
		}
		tell(localapi.Event{Step: s.name, State: state, Took: time.Since(started).Seconds()})
	}
	return nil
}

func (s step) run(ctx context.Context) (did bool, err error) {
	done, err := s.check(ctx)
	if err != nil {
		return false, err
	}
	if !done {
		if err := s.do(ctx); err != nil {
			return false, err
		}
	}
	if s.verify != nil {
		return !done, s.verify(ctx)
	}
	return !done, nil
}

// poll calls fn until it says true or ctx ends; the last error says what was missing.
func poll(ctx context.Context, every time.Duration, fn func(context.Context) (bool, error)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last error
	for {
		select {
		case <-ctx.Done():
			if last != nil {
				return fmt.Errorf("%w; the last answer: %w", ctx.Err(), last)
			}
			return ctx.Err()
		case <-timer.C:
		}
		ok, err := fn(ctx)
		if ok {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		timer.Reset(every)
	}
}
