package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

const (
	leaseFor      = time.Minute
	renewAfter    = leaseFor / 3
	progressEvery = 5 * time.Second
)

// work is the lease that this node holds, and how much of the journal was told under it.
type work struct {
	id      plan.ID
	subject string
	term    uint64
	step    int // the first that the coordinators do not know to be verified
	records int // of the journal, that were told
	last    *executor.Record
	renewed time.Time
	moved   time.Time // when progress was told
}

// begin takes the next work, unless some is at hand.
func (u *Uplink) begin(ctx context.Context, local []agentapi.Plan) error {
	if u.work != nil {
		return nil
	}
	m := next(u.plans, u.Node)
	if m == nil {
		return nil
	}
	return u.lease(ctx, plan.ID(m.GetId()), local)
}

// lease takes a plan's lease and has the agent run the plan under its term.
func (u *Uplink) lease(ctx context.Context, id plan.ID, local []agentapi.Plan) error {
	w, err := call(ctx, u, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Work, error) {
		return api.TakeWork(ctx, &v1.TakeWorkRequest{Plan: string(id), For: durationpb.New(leaseFor)}, o...)
	})
	u.asked = time.Time{} // it has changed by this, or was not as it seemed
	if errors.Is(err, fault.Precondition) || errors.Is(err, fault.Denied) || errors.Is(err, fault.NotFound) {
		u.Log.Debug("no work", obs.KeyPlan, id, obs.KeyError, err)
		return nil
	}
	if err != nil {
		return err
	}
	p, err := plan.Parse(w.GetPlan())
	if err != nil {
		return err
	}
	var known []executor.Record
	if err := json.Unmarshal(w.GetRecords(), &known); err != nil {
		return fmt.Errorf("read records of plan %s: %w", id, err)
	}
	verified, _ := executor.Reached(known)
	u.work = &work{id: id, subject: u.subject(p), term: w.GetLease().GetTerm(), step: verified, renewed: time.Now()}
	err = u.order(ctx, p, local)
	if err == nil || errors.Is(err, fault.Unavailable) || ctx.Err() != nil {
		if err != nil {
			u.work = nil // the agent is not ready: later
		}
		return err
	}
	u.Log.Warn("the agent refuses a plan", obs.KeyPlan, id, obs.KeyError, err)
	return u.send(ctx, executor.Record{Event: executor.Stopped, Step: verified, Error: err.Error()})
}

// order has the agent run a plan, or go on with it.
func (u *Uplink) order(ctx context.Context, p plan.Plan, local []agentapi.Plan) error {
	if err := u.take(ctx, agent.Order{Term: u.work.term, Do: agentapi.Approve, Plan: &p, Token: p.Token()}); err != nil {
		return err
	}
	at := slices.IndexFunc(local, func(l agentapi.Plan) bool { return l.Plan.ID == p.ID })
	if at < 0 || !rests(local[at]) {
		return nil
	}
	return u.take(ctx, agent.Order{Term: u.work.term, Do: agentapi.Resume, ID: p.ID})
}

// rests reports whether a plan of this node needs a word to go on.
func rests(p agentapi.Plan) bool {
	switch p.Status.Phase {
	case executor.Failed, executor.Ended, executor.Held:
		return true
	default:
		return p.Pausing || p.Cancelling
	}
}

// report tells what the journal has that was not told, how far the step is, and at least that somebody is at work.
func (u *Uplink) report(ctx context.Context) error {
	w := u.work
	if w == nil {
		return nil
	}
	records, err := u.Records(w.id)
	if err != nil {
		return err
	}
	for w.records < len(records) {
		if r := records[w.records]; w.tells(r, w.records == len(records)-1) {
			if err := u.send(ctx, r); err != nil || u.work != w {
				return err
			}
		}
		w.records++
	}
	return u.tellProgress(ctx, w)
}

// tells reports whether a record is news. What the coordinators conclude themselves (that a plan is complete or rests) is not told, and
// that it stopped or ended only as long as it has not gone on.
func (w *work) tells(r executor.Record, newest bool) bool {
	switch r.Event {
	case executor.StepBegun, executor.StepDone, executor.StepVerified:
		return r.Step >= w.step
	case executor.Stopped, executor.Cancelled, executor.Abandoned:
		return newest
	default:
		return false
	}
}

// tellProgress tells of the step at work, from what the agent sees.
func (u *Uplink) tellProgress(ctx context.Context, w *work) error {
	list, err := u.Agent.Plans()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list, func(p agentapi.Plan) bool { return p.Plan.ID == w.id })
	if at < 0 {
		return u.send(ctx, executor.Record{Event: executor.Stopped, Step: w.step, Error: "the plan has gone from the node"})
	}
	s := list[at].Status
	switch {
	case s.Phase == executor.Failed: // it could not even be begun: no journal tells that
		return u.send(ctx, executor.Record{Event: executor.Stopped, Step: w.step, Error: s.Error})
	case s.Phase == executor.Held:
		u.work = nil // until it is resumed
		return nil
	case s.Phase == executor.Running && s.Step == w.step && s.Progress.Total > 0 && time.Since(w.moved) >= progressEvery:
		w.moved = time.Now()
		return u.send(ctx, executor.Record{Event: executor.StepProgress, Step: s.Step, Progress: &s.Progress})
	case time.Since(w.renewed) < renewAfter:
		return nil
	case w.last != nil && w.last.Step == w.step:
		return u.send(ctx, *w.last)
	default: // it waits for another plan of this node
		u.work = nil
		return u.lease(ctx, w.id, list)
	}
}

// send tells a record, and draws the consequences of the answer: the lease may have ended with it.
func (u *Uplink) send(ctx context.Context, r executor.Record) error {
	w := u.work
	if r.Event == executor.Abandoned {
		r.Event, r.State, r.Error = executor.Stopped, nil, "it was given up at the node: abandon it here, too"
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	o, err := call(ctx, u, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Orders, error) {
		return api.ReportStep(ctx, &v1.ReportStepRequest{Plan: string(w.id), Term: w.term, Record: data, For: durationpb.New(leaseFor)}, o...)
	})
	switch {
	case errors.Is(err, fault.Unavailable):
		return err
	case err != nil: // the work is not this lease's any more
		u.work, u.asked = nil, time.Time{}
		return fmt.Errorf("plan %s, term %d: %w", w.id, w.term, err)
	case o.GetLease() == nil:
		u.work, u.asked = nil, time.Time{}
		delete(u.told, w.subject) // it is not what it was
		u.seen = 0
	}
	w.last, w.renewed = &r, time.Now()
	if r.Event == executor.StepVerified {
		w.step = r.Step + 1
	}
	return nil
}
