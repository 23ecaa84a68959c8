package fsm

import (
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The bounds of a lease's time.
const (
	shortestLease = time.Second
	longestLease  = 10 * time.Minute
)

func (b *TakeLease) apply(s *State, c Command) (any, error) {
	e, err := s.entry(b.Plan)
	if err != nil {
		return nil, err
	}
	if e.Cancel && !s.worked(e) { // whoever was to end it has died
		s.end(c, e, Cancelled)
		s.note(c, string(b.Plan), "cancelled; its worker is gone")
	}
	if err := s.workable(e, b.Holder); err != nil {
		return nil, err
	}
	if b.For < shortestLease || b.For > longestLease {
		return nil, fault.New(fault.Range, "a lease of %v: from %v to %v is possible", b.For, shortestLease, longestLease)
	}
	s.Term++
	e.Lease = &Lease{Holder: b.Holder, Term: s.Term, Until: c.At.Add(b.For)}
	return Work{Lease: *e.Lease, Plan: e.Plan, Records: e.Records}, nil
}

// workable is why nobody, or not holder, may work on the plan now.
func (s *State) workable(e *Entry, holder string) error {
	id := e.Plan.ID
	switch {
	case e.Phase != Approved && e.Phase != Running:
		return fault.New(fault.Precondition, "plan %s is %s", id, e.Phase)
	case e.Pause != nil:
		return fault.New(fault.Precondition, "plan %s is paused by %s: %s", id, e.Pause.By, e.Pause.Why)
	case e.Cancel:
		return fault.New(fault.Precondition, "plan %s is being cancelled", id)
	case e.Worker() != holder:
		return fault.New(fault.Denied, "the next step of plan %s is for %s, not for %s", id, e.Worker(), holder)
	}
	if n := s.Nodes[storage.NodeID(holder)]; n.Maintenance != "" {
		return fault.New(fault.Precondition, "node %s is in maintenance: %s", holder, n.Maintenance)
	}
	return nil
}

// Orders are what a holder hears when it reports.
type Orders struct {
	Lease *Lease `json:"lease,omitempty"` // nil: the right to work has ended with this report
	Phase Phase  `json:"phase"`
	// Rest says why no further step may be begun, "" if one may.
	Rest string `json:"rest,omitempty"`
}

func (b *ReportStep) apply(s *State, c Command) (any, error) {
	e, err := s.entry(b.Plan)
	if err != nil {
		return nil, err
	}
	if e.Lease == nil || e.Lease.Term != b.Term {
		return nil, fault.New(fault.Aborted, "plan %s: the lease of term %d is not the one that counts: stop, and ask for the work anew", b.Plan, b.Term)
	}
	if e.Lease.Holder != b.Holder {
		return nil, fault.New(fault.Denied, "the work on plan %s is for %s", b.Plan, e.Lease.Holder)
	}
	if b.For < 0 || b.For > longestLease {
		return nil, fault.New(fault.Range, "a lease of %v: up to %v is possible", b.For, longestLease)
	}
	r := b.Record
	r.At = c.At
	if err := e.take(r); err != nil {
		return nil, err
	}
	if b.For > 0 {
		e.Lease.Until = c.At.Add(b.For)
	}
	s.follow(c, e, r)
	return e.orders(), nil
}

// take writes a record down: once, and in a step's order.
func (e *Entry) take(r executor.Record) error {
	at := e.Status().Step
	switch {
	case r.Step < at:
		return nil // told again
	case r.Step > at || r.Step >= len(e.Plan.Steps):
		return fault.New(fault.Invalid, "plan %s is at step %d, and step %d is told of", e.Plan.ID, at+1, r.Step+1)
	}
	switch r.Event {
	case executor.StepBegun, executor.StepDone, executor.StepVerified, executor.Stopped, executor.Cancelled:
	case executor.StepProgress:
		if r.Progress == nil {
			return fault.New(fault.Invalid, "plan %s: progress without figures", e.Plan.ID)
		}
	default:
		return fault.New(fault.Invalid, "plan %s: %q is nothing that a step tells", e.Plan.ID, r.Event)
	}
	// One record of each event of a step is enough, however often it was tried; the plan's first stays for its time.
	kept := e.Records[:min(1, len(e.Records))]
	for _, o := range e.Records[len(kept):] {
		if o.Step != r.Step || o.Event != r.Event {
			kept = append(kept, o)
		}
	}
	e.Records = kept
	e.Records = append(e.Records, r)
	return nil
}

// follow draws the consequences of a record that was just taken.
func (s *State) follow(c Command, e *Entry, r executor.Record) {
	at := e.Status().Step
	switch {
	case r.Event == executor.Stopped:
		e.Phase, e.Lease = Stopped, nil
		s.note(c, string(e.Plan.ID), "stopped: %s", r.Error)
	case r.Event == executor.Cancelled:
		s.end(c, e, Cancelled)
		s.note(c, string(e.Plan.ID), "cancelled before step %d of %d", r.Step+1, len(e.Plan.Steps))
	case r.Event != executor.StepVerified:
		e.Phase = Running
	case at >= len(e.Plan.Steps):
		s.complete(c, e)
	case e.Cancel:
		s.end(c, e, Cancelled)
		s.note(c, string(e.Plan.ID), "cancelled before step %d of %d", at+1, len(e.Plan.Steps))
	case e.Pause != nil || e.workerOf(at) != e.Lease.Holder:
		e.Lease = nil
	}
}

// complete ends a plan whose steps are all verified: its subject is now as it said.
func (s *State) complete(c Command, e *Entry) {
	s.end(c, e, Completed)
	e.Records = append(e.Records, executor.Record{Event: executor.Completed, Step: len(e.Plan.Steps), At: c.At})
	state := e.Plan.State
	hash, err := plan.Hash(state)
	if err != nil { // it has been JSON since it was proposed
		return
	}
	if e.On != "" && hash == e.Plan.Parent { // it says what there was before alone: what there is now must be told anew
		delete(s.Subjects, e.Subject())
	} else {
		s.Subjects[e.Subject()] = Subject{State: state, Hash: hash}
	}
	s.note(c, string(e.Plan.ID), "completed")
}

func (e *Entry) orders() Orders {
	o := Orders{Lease: e.Lease, Phase: e.Phase}
	switch {
	case e.Pause != nil:
		o.Rest = "paused by " + e.Pause.By + ": " + e.Pause.Why
	case e.Cancel:
		o.Rest = "cancelled"
	case e.Lease == nil:
		o.Rest = string(e.Phase)
	}
	return o
}
