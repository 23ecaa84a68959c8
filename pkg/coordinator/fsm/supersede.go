package fsm

import (
	"bytes"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

func (b *Supersede) apply(s *State, c Command) (any, error) {
	e, err := s.entry(b.Plan)
	if err != nil {
		return nil, err
	}
	hash, err := plan.Hash(b.State)
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	if err := s.replaceable(e, b, hash); err != nil {
		return nil, err
	}
	s.end(c, e, Abandoned)
	e.Superseded = &Superseded{Why: b.Why}
	s.Subjects[e.Plan.Subject] = Subject{State: bytes.Clone(b.State), Hash: hash}
	if b.By == nil {
		s.note(c, string(b.Plan), "given up at step %d of %d, with nothing left to do: %s", e.Status().Step+1, len(e.Plan.Steps), b.Why)
		return e.changed(), nil
	}
	e.Superseded.By = b.By.ID
	s.note(c, string(b.Plan), "superseded by plan %s at step %d of %d: %s", b.By.ID, e.Status().Step+1, len(e.Plan.Steps), b.Why)
	return (&Propose{Plan: *b.By}).apply(s, c)
}

// replaceable is why a plan must not be superseded so.
func (s *State) replaceable(e *Entry, b *Supersede, hash string) error {
	id := e.Plan.ID
	switch {
	case !e.Held() || e.Phase == Cancelled:
		return fault.New(fault.Precondition, "plan %s is %s: there is nothing to supersede", id, e.Phase)
	case e.Cancel:
		return fault.New(fault.Precondition, "plan %s is to be cancelled: what it was to do is not wanted any more", id)
	case e.Pause != nil && e.Pause.By != Coordinator:
		return fault.New(fault.Precondition, "plan %s is paused by %s: %s", id, e.Pause.By, e.Pause.Why)
	case e.Worker() != Coordinator:
		return fault.New(fault.Busy, "%s works on plan %s", e.Worker(), id)
	case b.By == nil:
		return nil
	case b.By.Subject != e.Plan.Subject || b.By.Parent != hash || b.By.ID == id:
		return fault.New(fault.Invalid, "plan %s is none in the place of plan %s: another subject, or another state", b.By.ID, id)
	case s.proposals() >= mostProposals:
		return fault.New(fault.Precondition, "%d plans wait for approval: cancel those that nobody wants", mostProposals)
	}
	for _, step := range b.By.Steps {
		if step.Executor != Coordinator {
			return fault.New(fault.Invalid, "plan %s has steps for a node", b.By.ID)
		}
	}
	return s.proposable(&Propose{Plan: *b.By})
}
