package fsm

import (
	"bytes"
	"maps"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

func (b *ReportNode) apply(s *State, c Command) (any, error) {
	if b.Node == "" || b.Boot == "" || string(b.Node) == Coordinator {
		return nil, fault.New(fault.Invalid, "a report of node %q and boot %q", b.Node, b.Boot)
	}
	if len(b.Inventory) > maxBody {
		return nil, fault.New(fault.Range, "the inventory of node %s has %d bytes: %d are possible", b.Node, len(b.Inventory), maxBody)
	}
	n, known := s.Nodes[b.Node]
	if known && n.Boot == b.Boot && b.Generation < n.Generation {
		return nil, fault.New(fault.Aborted, "node %s has told generation %d, and now tells %d", b.Node, n.Generation, b.Generation)
	}
	if !known {
		s.note(c, string(b.Node), "the node's agent reported first")
	}
	n.Boot, n.Generation, n.Inventory, n.Reported = b.Boot, b.Generation, b.Inventory, c.At
	s.Nodes[b.Node] = n
	return struct{}{}, nil
}

func (b *Maintain) apply(s *State, c Command) (any, error) {
	n, ok := s.Nodes[b.Node]
	if !ok {
		return nil, fault.New(fault.NotFound, "there is no node %s", b.Node)
	}
	if n.Maintenance != b.Why {
		n.Maintenance = b.Why
		s.Nodes[b.Node] = n
		if b.Why == "" {
			s.note(c, string(b.Node), "maintenance ended")
		} else {
			s.note(c, string(b.Node), "maintenance: %s", b.Why)
		}
	}
	return struct{}{}, nil
}

func (b *SetSubject) apply(s *State, c Command) (any, error) {
	if b.Subject == "" {
		return nil, fault.New(fault.Invalid, "the state of a subject without a name")
	}
	if len(b.State) > maxBody {
		return nil, fault.New(fault.Range, "the state of %s has %d bytes: %d are possible", b.Subject, len(b.State), maxBody)
	}
	hash, err := plan.Hash(b.State)
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	if known, ok := s.Subjects[b.Subject]; ok && known.Hash == hash {
		return known, nil
	}
	for _, e := range s.Plans { // one at most is held
		if e.Subject() == b.Subject && e.Held() && executor.Touched(e.Records) {
			return nil, fault.New(fault.Busy, "plan %s is at work on %s: its state is told by that", e.Plan.ID, b.Subject)
		}
	}
	if c.Version >= 2 {
		if err := s.room(b); err != nil {
			return nil, err
		}
	}
	s.Subjects[b.Subject] = Subject{State: bytes.Clone(b.State), Hash: hash}
	s.note(c, b.Subject, "found in a new state")
	return s.Subjects[b.Subject], nil
}

// room makes room for the state of a node's subject, "... on NODE", if it must: those are forgotten then that no plan is about which is not
// over. They can be told anew.
func (s *State) room(b *SetSubject) error {
	at := strings.LastIndex(b.Subject, " on ")
	if at < 0 {
		return nil
	}
	node := b.Subject[at:]
	others := func(name string) bool { return name != b.Subject && strings.HasSuffix(name, node) }
	full := func(counts func(name string) bool) bool {
		number, size := 1, len(b.State)
		for name, known := range s.Subjects {
			if others(name) && counts(name) {
				number, size = number+1, size+len(known.State)
			}
		}
		return number > mostNodeSubjects || size > mostNodeStates
	}
	if !full(others) {
		return nil
	}
	live := map[string]bool{}
	for _, e := range s.Plans {
		live[e.Subject()] = live[e.Subject()] || !e.Over()
	}
	if full(func(name string) bool { return live[name] }) {
		return fault.New(fault.Precondition, "the states of what is%s are too many: cancel plans that nobody wants", node)
	}
	maps.DeleteFunc(s.Subjects, func(name string, _ Subject) bool { return others(name) && !live[name] })
	return nil
}

func (b *SetPolicy) apply(s *State, c Command) (any, error) {
	switch {
	case b.Name == "":
		return nil, fault.New(fault.Invalid, "a policy without a name")
	case b.Policy == nil:
		delete(s.Policies, b.Name)
		s.note(c, b.Name, "policy removed")
	default:
		s.Policies[b.Name] = *b.Policy
		s.note(c, b.Name, "policy written")
	}
	return struct{}{}, nil
}

func (b *SetThrottle) apply(s *State, c Command) (any, error) {
	t := b.Throttle
	if t.Backfills < 0 || t.Bytes < 0 || t.Latency < 0 {
		return nil, fault.New(fault.Range, "a throttle below zero: 0 is no bound")
	}
	s.Throttle = t
	s.note(c, "throttle", "%s", t)
	return t, nil
}
