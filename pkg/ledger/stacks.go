package ledger

import (
	"fmt"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// Stacks is the first word of the subject of a stack's plan.
const Stacks = "stack"

// Stack finds the stack of a name as the last plan left it; false if there is none. fault.Busy while a plan is between
// its steps.
func (l Ledger) Stack(name string) (stack.Stack, bool, error) {
	list, err := journal.List(l.Dir)
	if err != nil {
		return stack.Stack{}, false, err
	}
	for _, e := range list {
		if e.Err != nil {
			return stack.Stack{}, false, e.Err
		}
		if e.Plan.Subject != Stacks+" "+name || !executor.Touched(e.Records) {
			continue
		}
		if s := executor.StatusOf(e.Plan, e.Records); !s.Phase.Final() {
			return stack.Stack{}, false, fault.New(fault.Busy, "plan %s of stack %s has not come to its end (%s): `holdfast plan run %s` goes on with it", e.Plan.ID, name, s, e.Plan.ID)
		}
	}
	_, found, there, err := newest(list, name)
	return found, there, err
}

// Last is the last plan that changed a stack, to bring it up by; false if there is none.
func (l Ledger) Last(name string) (plan.Plan, bool, error) {
	list, err := journal.List(l.Dir)
	if err != nil {
		return plan.Plan{}, false, err
	}
	last, _, there, err := newest(list, name)
	return last.Plan, there, err
}

// LastOfAll are the last plans of all stacks, by the stacks' names.
func (l Ledger) LastOfAll() (map[string]plan.Plan, error) {
	list, err := journal.List(l.Dir)
	if err != nil {
		return nil, err
	}
	all := map[string]plan.Plan{}
	for _, e := range list {
		kind, name := Subject(e.Plan)
		if e.Err != nil || kind != Stacks || all[name].ID != "" {
			continue
		}
		last, _, there, err := newest(list, name)
		if err != nil {
			return nil, err
		}
		if there {
			all[name] = last.Plan
		}
	}
	return all, nil
}

// newest is the last plan that changed a stack, and the state that it leads to; false if there is none. Plans are
// told apart by the generation of their state: clocks may have been wrong.
func newest(list []journal.Entry, name string) (last journal.Entry, state stack.Stack, there bool, err error) {
	for _, e := range list {
		if e.Err != nil || e.Plan.Subject != Stacks+" "+name || !executor.Touched(e.Records) {
			continue
		}
		s, left, err := leads(e)
		if err != nil {
			return e, s, false, err
		}
		if left && (!there || s.Generation > state.Generation) {
			last, state, there = e, s, true
		}
	}
	return last, state, there, nil
}

// leads is the state that a plan ends with: its own, or what it left when it was abandoned; false if that is none.
func leads(e journal.Entry) (stack.Stack, bool, error) {
	state := []byte(e.Plan.State)
	for _, r := range e.Records {
		if r.Event == executor.Abandoned {
			state = r.State
		}
	}
	if len(state) == 0 || string(state) == "null" {
		return stack.Stack{}, false, nil
	}
	s, err := stack.Parse(state)
	return s, true, err
}

// Now is what the stack of a plan is like, which the hash of is the plan's parent if the plan is fresh.
func (l Ledger) Now(p plan.Plan) (stack.Stack, error) {
	after, err := stack.Parse(p.State)
	if err != nil {
		return stack.Stack{}, err
	}
	now, there, err := l.Stack(after.Name)
	if err == nil && !there {
		now = stack.Stack{Name: after.Name, UUID: after.UUID, Volume: after.Volume}
	}
	return now, err
}

// freshStack refuses a stack's plan that was made from another state than the one that there is.
func (l Ledger) freshStack(p plan.Plan) error {
	now, err := l.Now(p)
	if err != nil {
		return err
	}
	parent, err := plan.Hash(now)
	if err != nil || parent == p.Parent {
		return err
	}
	return fault.New(fault.Precondition, "plan %s is stale: stack %s has changed since: %s: plan again", p.ID, now.Name, difference(p, now))
}

// difference says what a stack has become since a plan was made of it.
func difference(p plan.Plan, now stack.Stack) string {
	before := map[plan.DiskID]bool{}
	for _, d := range p.Disks {
		before[d.ID] = d.Use != plan.Take
	}
	var list []string
	for _, d := range now.Disks {
		if !before[d.ID] {
			list = append(list, fmt.Sprintf("disk %s is part of it", d.ID))
		}
		delete(before, d.ID)
	}
	for _, d := range p.Disks {
		if before[d.ID] {
			list = append(list, fmt.Sprintf("disk %s is no part of it", d.ID))
		}
	}
	if c := now.Capacity(); c != p.Before {
		list = append(list, fmt.Sprintf("it holds %s and held %s", c, p.Before))
	}
	if len(list) == 0 {
		list = append(list, fmt.Sprintf("it is of generation %d", now.Generation))
	}
	return strings.Join(list, ", ")
}

// Parent is the state that a stack's plan was made from; false if the plan makes the stack. fault.NotFound if no plan here has led to it.
func (l Ledger) Parent(p plan.Plan) (stack.Stack, bool, error) {
	after, err := stack.Parse(p.State)
	if err != nil {
		return stack.Stack{}, false, err
	}
	none := stack.Stack{Name: after.Name, UUID: after.UUID, Volume: after.Volume}
	if hash, err := plan.Hash(none); err != nil || hash == p.Parent {
		return none, false, err
	}
	list, err := journal.List(l.Dir)
	if err != nil {
		return none, false, err
	}
	for _, e := range list {
		if e.Err != nil || e.Plan.Subject != p.Subject {
			continue
		}
		s, _, err := leads(e)
		if err != nil {
			return none, false, err
		}
		if hash, err := plan.Hash(s); err != nil || hash == p.Parent {
			return s, true, err
		}
	}
	return none, false, fault.New(fault.NotFound, "no plan in %s has led to the state that plan %s was made from", l.Dir, p.ID)
}
