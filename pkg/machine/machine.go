// Package machine runs the plans of a ledger on this machine: it joins the executor with the steps of stacks and of OSDs,
// with their limits, and with the wishes of those who do not run them. The agent runs plans by it, and so does the command
// line where there is no agent.
//
// Invariant: one process of a machine runs plans at a time, by the ledger's lock.
//
// It must not import how plans come here.
package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Limits bound how fast plans copy.
type Limits struct {
	Throttle executor.Throttle
	// Latency makes copying give way to clients while their requests take longer; 0 never does.
	Latency time.Duration
}

// Ends of the bound while copying gives way to clients: what no disk exceeds, and what still brings a plan to its end.
const (
	mostCopied  = storage.GiB
	leastCopied = 4 * storage.MiB
)

// Machine is this machine.
type Machine struct {
	Ledger  ledger.Ledger
	Devices live.Devices
	Limits  Limits
	// More are steps beside those of stacks; nil for none.
	More executor.Registry
	// Interval is how often md is looked at; 0 for the usual.
	Interval time.Duration
}

// Run brings up what is there and runs what is left of an approved plan. watch hears of all that happens. It ends with
// executor.ErrPaused or executor.ErrCancelled where somebody asked for that.
func (m *Machine) Run(ctx context.Context, id plan.ID, watch func(executor.Status)) error {
	j, err := m.Ledger.Open(id)
	if err != nil {
		return err
	}
	defer func() { _ = j.Close() }() // every record is on disk already
	p := j.Plan()
	stacks := m.stacks(m.limit(p))
	if err := m.prepare(ctx, stacks, j); err != nil {
		return err
	}
	if err := limits(p, stacks.Bound); err != nil {
		return err
	}
	registry := stacks.Registry()
	maps.Copy(registry, m.More)
	e := &executor.Executor{
		Registry: registry, Now: time.Now, Watch: watch,
		Cancelled: func() bool { return m.Ledger.Cancelled(id) }, Paused: func() bool { return m.Ledger.Paused(id) },
	}
	if err := errors.Join(e.Run(ctx, p, j), limits(p, stacks.Lift)); err != nil {
		return fmt.Errorf("plan %s: %w", id, err)
	}
	return nil
}

// Unbind lifts the limits that a pause has left on the arrays of a plan which nobody runs.
func (m *Machine) Unbind(p plan.Plan) error { return limits(p, m.stacks(nil).Lift) }

// limits sets or lifts those of the arrays of a plan, if it is of a stack.
func limits(p plan.Plan, do func(stack.Stack) error) error {
	if kind, _ := ledger.Subject(p); kind != ledger.Stacks {
		return nil
	}
	s, err := stack.During(p)
	if err != nil {
		return err
	}
	return do(s)
}

// prepare brings the plan's stack up, if it is one. That it cannot be is why the plan has stopped.
func (m *Machine) prepare(ctx context.Context, stacks *live.Machine, j *journal.Journal) error {
	p, begun := j.Plan(), len(j.Records()) > 0
	if kind, _ := ledger.Subject(p); kind != ledger.Stacks || !begun && p.Before == 0 {
		return nil // a new stack has nothing before its plan was begun
	}
	err := bringUp(ctx, stacks, p)
	if err == nil || ctx.Err() != nil {
		return err
	}
	verified, _ := executor.Reached(j.Records())
	return errors.Join(err, j.Append(executor.Record{Event: executor.Stopped, Step: verified, At: time.Now().UTC(), Error: err.Error()}))
}

// BringUp starts the arrays of a stack, its volume and its mount: after a boot nobody else may have done it. p is the stack's
// last plan.
func (m *Machine) BringUp(ctx context.Context, p plan.Plan) error {
	return bringUp(ctx, m.stacks(nil), p)
}

func bringUp(ctx context.Context, stacks *live.Machine, p plan.Plan) error {
	s, err := stack.During(p)
	if err != nil {
		return err
	}
	return stacks.Activate(ctx, s)
}

// stacks is the machine as package live sees it, which remembers beside the journals how far its arrays had come.
func (m *Machine) stacks(limit func() storage.Bytes) *live.Machine {
	s := live.New(m.Devices, command.Steady{}, limit)
	s.Events = filepath.Join(m.Ledger.Dir, "events")
	if m.Interval > 0 {
		s.Interval = m.Interval
	}
	return s
}

// limit is how fast md may copy at the moment: by a pause, the limit, its hours and how long clients wait.
func (m *Machine) limit(p plan.Plan) func() storage.Bytes {
	clients := m.yield(p)
	return func() storage.Bytes {
		if m.Ledger.Paused(p.ID) {
			return live.Standstill
		}
		return executor.Tighter(m.Limits.Throttle.At(time.Now()), clients())
	}
}

// yield is what clients leave, 0 if nobody asks.
func (m *Machine) yield(p plan.Plan) func() storage.Bytes {
	s, err := stack.Parse(p.State)
	if m.Limits.Latency == 0 || err != nil {
		return func() storage.Bytes { return 0 }
	}
	clients, yield := live.LatencyOf(s.Volume), &executor.Yield{Target: m.Limits.Latency, Most: mostCopied, Least: leastCopied}
	return func() storage.Bytes { return yield.Next(clients.Measure()) }
}
