package fsm

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// entry finds a plan.
func (s *State) entry(id plan.ID) (*Entry, error) {
	e, ok := s.Plans[id]
	if !ok {
		return nil, fault.New(fault.NotFound, "there is no plan %s", id)
	}
	return e, nil
}

func (b *Propose) apply(s *State, c Command) (any, error) {
	p := b.Plan
	if err := s.proposable(b); err != nil {
		return nil, err
	}
	if known, ok := s.Plans[p.ID]; ok && !known.Over() {
		if c.Version >= 2 && known.Node != b.Node {
			return nil, fault.New(fault.Exists, "plan %s is another node's", p.ID)
		}
		return known.changed(), nil
	}
	if s.proposals() >= mostProposals {
		return nil, fault.New(fault.Precondition, "%d plans wait for approval: cancel those that nobody wants", mostProposals)
	}
	if c.Version >= 2 && b.Node != "" && s.proposalsOf(b.Node) >= mostNodeProposals {
		return nil, fault.New(fault.Precondition, "%d plans for node %s wait for approval: cancel those that nobody wants", mostNodeProposals, b.Node)
	}
	e := &Entry{Plan: p, Node: b.Node, On: b.Subject, Phase: Proposed, By: c.Who, At: c.At}
	e.Saw = s.Subjects[e.Subject()].State
	if err := s.fresh(e); err != nil {
		return nil, err
	}
	s.Plans[p.ID] = e
	s.note(c, string(p.ID), "proposed: %s: %s", e.Subject(), p.What)
	if name := s.allowing(p); name != "" && s.conflict(e) == nil {
		e.Approval, e.Phase = &Approval{By: "policy " + name, At: c.At}, Approved
		s.note(c, string(p.ID), "approved by policy %s", name)
	}
	return e.changed(), nil
}

// Changed is the answer to what concerns a plan. The plan itself may be large, and answers are kept.
type Changed struct {
	Plan  plan.ID `json:"plan"`
	Phase Phase   `json:"phase"`
}

func (e *Entry) changed() Changed { return Changed{e.Plan.ID, e.Phase} }

// proposals counts the plans that wait for approval.
func (s *State) proposals() int {
	n := 0
	for _, e := range s.Plans {
		if e.Phase == Proposed {
			n++
		}
	}
	return n
}

// proposalsOf counts those of them that are for a node.
func (s *State) proposalsOf(node storage.NodeID) int {
	n := 0
	for _, e := range s.Plans {
		if e.Phase == Proposed && e.Node == node {
			n++
		}
	}
	return n
}

// proposable refuses what can never run.
func (s *State) proposable(b *Propose) error {
	if err := b.Plan.Check(); err != nil {
		return err
	}
	if len(b.Plan.Steps) == 0 {
		return fault.New(fault.Invalid, "plan %s has no steps", b.Plan.ID)
	}
	for _, step := range b.Plan.Steps {
		if step.Executor == Coordinator {
			continue
		}
		if step.Executor != "node" {
			return fault.New(fault.Invalid, "plan %s: step %q is for %q, which is neither node nor %s", b.Plan.ID, step.What, step.Executor, Coordinator)
		}
		if _, ok := s.Nodes[b.Node]; !ok {
			return fault.New(fault.NotFound, "plan %s: no agent of node %q has reported", b.Plan.ID, b.Node)
		}
	}
	if on := cmp.Or(b.Subject, b.Plan.Subject); s.Subjects[on].Hash == "" {
		return fault.New(fault.Precondition, "plan %s: nothing is known of %s: its state must be told first", b.Plan.ID, on)
	}
	return nil
}

// fresh refuses a plan whose subject is not as it was when the plan was made, with the difference.
func (s *State) fresh(e *Entry) error {
	now := s.Subjects[e.Subject()]
	if now.Hash == e.Plan.Parent {
		return nil
	}
	text := "it was made from a state that is not known here"
	if lines := Difference(e.Saw, now.State); len(lines) > 0 {
		text = strings.Join(lines, "; ")
	}
	return fault.New(fault.Precondition, "plan %s is stale: %s has changed since it was made (%s): make a new plan", e.Plan.ID, e.Subject(), text)
}

// allowing is the first policy by name that lets a plan run without a person, "" for none.
func (s *State) allowing(p plan.Plan) string {
	if len(p.Of(plan.Take))+len(p.Of(plan.Release)) > 0 {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(s.Policies)) {
		kinds := s.Policies[name].Approves
		if !slices.ContainsFunc(p.Steps, func(step plan.Step) bool { return !slices.Contains(kinds, step.Kind) }) {
			return name
		}
	}
	return ""
}

// conflict is why a plan must not run beside those that are held.
func (s *State) conflict(e *Entry) error {
	for _, id := range slices.Sorted(maps.Keys(s.Plans)) {
		other := s.Plans[id]
		if other == e || !other.Held() {
			continue
		}
		if other.Subject() == e.Subject() {
			return fault.New(fault.Busy, "plan %s is %s for %s, too: let it end, or cancel it", id, other.Phase, e.Subject())
		}
		if slices.Contains(e.Plan.Excludes, other.Subject()) || slices.Contains(other.Plan.Excludes, e.Subject()) {
			return fault.New(fault.Busy, "plan %s is %s for %s, beside which nothing for %s may run: let it end, or cancel it", id, other.Phase, other.Subject(), e.Subject())
		}
		for _, d := range e.Plan.Disks {
			if slices.ContainsFunc(other.Plan.Disks, func(o plan.Disk) bool { return o.ID == d.ID }) {
				return fault.New(fault.Busy, "plan %s, which is %s, has disk %s, too: let it end, or cancel it", id, other.Phase, d.ID)
			}
		}
	}
	return nil
}

func (b *Approve) apply(s *State, c Command) (any, error) {
	e, err := s.entry(b.Plan)
	if err != nil {
		return nil, err
	}
	if want := e.Plan.Token(); b.Token != want {
		return nil, fault.New(fault.Denied, "approving plan %s asks for the token %q, which names what is at stake", b.Plan, want)
	}
	if e.Held() || e.Phase == Completed {
		return e.changed(), nil
	}
	if e.Phase != Proposed {
		return nil, fault.New(fault.Precondition, "plan %s is %s: propose it anew", b.Plan, e.Phase)
	}
	if err := s.fresh(e); err != nil {
		return nil, err
	}
	if err := s.conflict(e); err != nil {
		return nil, err
	}
	e.Approval, e.Phase = &Approval{By: c.Who, At: c.At}, Approved
	s.note(c, string(b.Plan), "approved")
	return e.changed(), nil
}

func (b *PausePlan) apply(s *State, c Command) (any, error) {
	e, err := s.entry(b.Plan)
	if err != nil {
		return nil, err
	}
	if !e.Held() || e.Phase == Cancelled {
		return nil, fault.New(fault.Precondition, "plan %s is %s: there is nothing to pause", b.Plan, e.Phase)
	}
	own := e.Pause != nil && e.Pause.By == Coordinator
	if e.Pause == nil || own && (c.Who != Coordinator || c.Version >= 2 && e.Pause.Why != b.Why) { // a person's pause stays until a person lifts it
		e.Pause = &Pause{By: c.Who, Why: b.Why, At: c.At}
		s.note(c, string(b.Plan), "paused: %s", b.Why)
	}
	return e.changed(), nil
}

func (b *Resume) apply(s *State, c Command) (any, error) {
	e, err := s.entry(b.Plan)
	if err != nil {
		return nil, err
	}
	if !e.Held() {
		return nil, fault.New(fault.Precondition, "plan %s is %s: there is nothing to resume", b.Plan, e.Phase)
	}
	if b.PausedBy != "" {
		if e.Pause != nil && e.Pause.By == b.PausedBy {
			e.Pause = nil
			s.note(c, string(b.Plan), "goes on")
		}
		return e.changed(), nil
	}
	if e.Pause == nil && !e.Cancel && e.Phase != Stopped && e.Phase != Cancelled {
		return e.changed(), nil
	}
	e.Pause, e.Cancel, e.Ended = nil, false, time.Time{}
	if e.Phase == Stopped || e.Phase == Cancelled {
		e.Phase = Running
	}
	s.note(c, string(b.Plan), "resumed")
	return e.changed(), nil
}

func (b *Cancel) apply(s *State, c Command) (any, error) {
	e, err := s.entry(b.Plan)
	if err != nil {
		return nil, err
	}
	switch {
	case b.Own && e.By != c.Who:
		return nil, fault.New(fault.Denied, "plan %s is no proposal of %s", b.Plan, c.Who)
	case e.Phase == Cancelled:
		return e.changed(), nil
	case e.Over(), b.Own && e.Phase != Proposed:
		return nil, fault.New(fault.Precondition, "plan %s is %s: there is nothing to cancel", b.Plan, e.Phase)
	case s.worked(e):
		e.Cancel = true
		s.note(c, string(b.Plan), "to be cancelled before its next step")
	default:
		s.end(c, e, Cancelled)
		s.note(c, string(b.Plan), "cancelled")
	}
	return e.changed(), nil
}

func (b *Abandon) apply(s *State, c Command) (any, error) {
	e, err := s.entry(b.Plan)
	if err != nil {
		return nil, err
	}
	switch {
	case e.Phase == Abandoned:
		return e.changed(), nil
	case !e.Held():
		return nil, fault.New(fault.Precondition, "plan %s is %s: there is nothing to abandon", b.Plan, e.Phase)
	case s.worked(e):
		return nil, fault.New(fault.Busy, "%s works on plan %s now: cancel it first, it ends before its next step", e.Lease.Holder, b.Plan)
	}
	if executor.Touched(e.Records) { // what the subject is like now must be told anew
		delete(s.Subjects, e.Subject())
	}
	s.end(c, e, Abandoned)
	s.note(c, string(b.Plan), "abandoned at step %d of %d", e.Status().Step+1, len(e.Plan.Steps))
	return e.changed(), nil
}

// worked reports whether somebody may be at work on the plan.
func (s *State) worked(e *Entry) bool { return e.Lease != nil && e.Lease.Until.After(s.Clock) }

// end closes a plan, and forgets the oldest of those that are over: of those beyond the last few what their steps needed, then all.
func (s *State) end(c Command, e *Entry, phase Phase) {
	e.Phase, e.Ended, e.Lease, e.Pause, e.Cancel = phase, s.Clock, nil, nil, false
	var over []*Entry
	for _, o := range s.Plans {
		if o.Over() {
			over = append(over, o)
		}
	}
	if len(over) <= keepWhole {
		return
	}
	slices.SortFunc(over, func(a, b *Entry) int {
		return cmp.Or(a.Ended.Compare(b.Ended), cmp.Compare(a.Plan.ID, b.Plan.ID))
	})
	if c.Version >= 2 {
		for _, o := range over[:len(over)-keepWhole] {
			o.trim()
		}
	}
	for _, o := range over[:max(0, len(over)-keepOver)] {
		delete(s.Plans, o.Plan.ID)
	}
}

// trim leaves of a plan what history tells: what it was to do, not how.
func (e *Entry) trim() {
	if e.Trimmed {
		return
	}
	e.Trimmed, e.Saw, e.Plan.State = true, nil, nil
	e.Plan.Steps = slices.Clone(e.Plan.Steps)
	for i := range e.Plan.Steps {
		e.Plan.Steps[i].Args = nil
	}
}
