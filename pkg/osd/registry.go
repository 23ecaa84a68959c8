package osd

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// Args are those of every step of a plan for OSDs: the request that its list of steps is made from. The step's kind says which of
// the list it is.
type Args struct {
	Prepare *Request  `json:"prepare,omitempty"`
	Adopt   *Adoption `json:"adopt,omitempty"`
	Grow    *Growth   `json:"grow,omitempty"`
	Remove  *Removal  `json:"remove,omitempty"`
}

// steps is the list that a step belongs to.
func (n *Node) steps(a Args) ([]Step, error) {
	switch {
	case a.Prepare != nil:
		return n.Prepare(*a.Prepare)
	case a.Adopt != nil:
		return n.Adopt(*a.Adopt), nil
	case a.Grow != nil:
		return n.Grow(*a.Grow), nil
	case a.Remove != nil:
		return n.Remove(*a.Remove), nil
	default:
		return nil, fault.New(fault.Invalid, "a step of an OSD without a request")
	}
}

// Connect makes a Node for one step: the cluster may not have answered when the machine came up.
type Connect func(ctx context.Context) (*Node, error)

// Registry binds the steps of plans for OSDs to their behaviour.
func Registry(connect Connect) executor.Registry {
	registry := executor.Registry{}
	for _, kind := range []plan.Kind{
		"osd-claim", "osd-register", "osd-encrypt", "osd-mkfs", "osd-activate", "osd-in", "osd-class", "osd-expand", "osd-weight", "osd-out", "osd-drain", "osd-stop", "osd-purge",
		"osd-forget", "osd-wipe",
	} {
		registry[kind] = func(s plan.Step, _ func(executor.Progress)) (executor.Step, error) {
			var a Args
			if err := json.Unmarshal(s.Args, &a); err != nil {
				return nil, fault.New(fault.Invalid, "arguments of step %s: %w", s.Kind, err)
			}
			return &planned{connect: connect, kind: s.Kind, args: a}, nil
		}
	}
	return registry
}

// planned is a step as the executor runs it.
type planned struct {
	connect Connect
	kind    plan.Kind
	args    Args
	found   *Step
}

var _ executor.Step = (*planned)(nil)

// step makes the list anew and finds the step in it.
func (s *planned) step(ctx context.Context) (*Step, error) {
	if s.found != nil {
		return s.found, nil
	}
	n, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	list, err := n.steps(s.args)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(x Step) bool { return x.Kind == string(s.kind) })
	if i < 0 {
		return nil, fault.New(fault.Invalid, "the request has no step %s", s.kind)
	}
	s.found = &list[i]
	return s.found, nil
}

// Check implements executor.Step.
func (s *planned) Check(ctx context.Context) (executor.State, error) {
	step, err := s.step(ctx)
	if err != nil {
		return executor.Todo, err
	}
	return step.Check(ctx)
}

// Do implements executor.Step.
func (s *planned) Do(ctx context.Context) error { return s.with(ctx, Step.Do) }

// Verify implements executor.Step.
func (s *planned) Verify(ctx context.Context) error { return s.with(ctx, Step.Verify) }

func (s *planned) with(ctx context.Context, do func(Step, context.Context) error) error {
	step, err := s.step(ctx)
	if err != nil {
		return err
	}
	return do(*step, ctx)
}
