package osd

import (
	"context"
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/executor"
)

// State is what a check finds.
type State = executor.State

// The states.
const (
	Todo  = executor.Todo
	Begun = executor.Begun
	Done  = executor.Done
)

// Step is one thing done to an OSD. Every function may be called again at any time: after a
// crash the same steps are made from the same request and run again.
type Step struct {
	Kind string // for a registry: "osd-register", ...
	What string // in words

	check  func(ctx context.Context) (State, error)
	do     func(ctx context.Context) error
	verify func(ctx context.Context) error
}

var _ executor.Step = Step{}

// Check looks at the world and changes nothing. Its error says why the step must not be done.
func (s Step) Check(ctx context.Context) (State, error) { return s.check(ctx) }

// Do brings the world to where Verify holds, from any point at which an earlier Do ended.
func (s Step) Do(ctx context.Context) error { return s.do(ctx) }

// Verify confirms the step's end: without a check of its own, Check must find Done.
func (s Step) Verify(ctx context.Context) error {
	if s.verify != nil {
		return s.verify(ctx)
	}
	state, err := s.check(ctx)
	if err == nil && state != Done {
		err = fmt.Errorf("%s: it was done, and what it does is not there", s.What)
	}
	return err
}

// Run runs the steps in order and tells note (may be nil) of each that is not done yet.
func Run(ctx context.Context, steps []Step, note func(what string)) error {
	for _, s := range steps {
		state, err := s.Check(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.What, err)
		}
		if state == Done {
			continue
		}
		if note != nil {
			note(s.What)
		}
		if err := s.Do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.What, err)
		}
		if err := s.Verify(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.What, err)
		}
	}
	return nil
}
