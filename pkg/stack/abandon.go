package stack

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Look says on which side of a step that was begun an array is: as after it, or as before. fault.Busy while md works at it.
type Look func(ArrayArgs) (after bool, err error)

// Abandon works out what a plan that will never come to its end has left: the steps that are verified have been done, and of the one that was
// begun look tells. parent is what the plan was made from; false in place of there if the plan was to make the stack. False is returned
// for exists where nothing is left that could be called a stack. fault.Precondition for a new stack that has its volume already: that plan can
// come to its end.
func Abandon(parent Stack, there bool, p plan.Plan, verified int, begun bool, look Look) (left Stack, exists bool, err error) {
	if !there {
		if slices.ContainsFunc(p.Steps[:verified], func(s plan.Step) bool { return s.Kind == KindVolumeCreate }) {
			return left, false, fault.New(fault.Precondition, "the new stack's volume is there, and what is left to do needs no more disks: put right what the plan stopped at")
		}
		return left, false, nil
	}
	after, err := Parse(p.State)
	if err != nil {
		return left, true, err
	}
	left = parent.clone()
	changed := false
	for i, s := range p.Steps[:min(verified+1, len(p.Steps))] {
		if i == verified && !begun {
			break
		}
		did, err := left.apply(s, i < verified, look)
		if err != nil {
			return parent, true, fmt.Errorf("step %d, %s: %w", i+1, s.What, err)
		}
		changed = changed || did
	}
	if !changed {
		return parent, true, nil
	}
	left.Generation = after.Generation
	left.settle(p, after)
	return left, true, nil
}

// apply does to the stack what a step did.
func (s *Stack) apply(step plan.Step, done bool, look Look) (changed bool, err error) {
	switch step.Kind {
	case KindCreate, KindRecover, KindReshape, KindReplace, KindWiden, KindProtect:
		var a ArrayArgs
		if err := json.Unmarshal(step.Args, &a); err != nil {
			return false, fault.New(fault.Invalid, "arguments of step %s: %w", step.Kind, err)
		}
		if !done {
			if done, err = look(a); err != nil || !done {
				return false, err
			}
		}
		s.put(a.After)
		return true, nil
	case KindDiskGrow:
		var a DiskArgs
		if err := json.Unmarshal(step.Args, &a); err != nil {
			return false, fault.New(fault.Invalid, "arguments of step %s: %w", step.Kind, err)
		}
		for i := range s.Disks {
			if s.Disks[i].ID == a.Disk.ID && done {
				s.Disks[i].Size = a.Disk.Size
				return true, nil
			}
		}
	}
	return false, nil
}

// put replaces the array of the same UUID, or adds it.
func (s *Stack) put(a Array) {
	if i := slices.IndexFunc(s.Arrays, func(x Array) bool { return x.UUID == a.UUID }); i >= 0 {
		s.Arrays[i] = a
		return
	}
	s.Arrays = append(s.Arrays, a)
}

// settle makes disks and layout what the arrays say: disks that are in an array are in the stack, those that the plan releases and are in
// none are not.
func (s *Stack) settle(p plan.Plan, after Stack) {
	in := func(id plan.DiskID) bool {
		return slices.ContainsFunc(s.Arrays, func(a Array) bool {
			return slices.ContainsFunc(a.Members, func(m Partition) bool { return m.Disk == id })
		})
	}
	released := p.Of(plan.Release)
	s.Disks = slices.DeleteFunc(s.Disks, func(d Disk) bool { return slices.Contains(released, d.ID) && !in(d.ID) })
	for _, d := range after.Disks {
		there := slices.ContainsFunc(s.Disks, func(x Disk) bool { return x.ID == d.ID })
		if !there && in(d.ID) {
			s.Disks = append(s.Disks, d)
		}
	}
	s.Layout.Disks = nil
	for _, d := range s.Disks {
		s.Layout.Disks = append(s.Layout.Disks, layout.Disk{ID: string(d.ID), Size: d.Size})
	}
	s.Layout.Slices = nil
	for _, a := range s.Arrays {
		slice := layout.Slice{Size: a.Size, Level: a.Level}
		for _, m := range a.Members {
			slice.Members = append(slice.Members, string(m.Disk))
		}
		s.Layout.Slices = append(s.Layout.Slices, slice)
	}
}

// Close plans what an abandoned plan has left undone: what its arrays have gained goes to the top of the stack, and arrays that are whole get their
// protection against crashes back. s is what Abandon returned, parent what the plan was made from. False if there is nothing to do.
func (s Stack) Close(parent Stack, whole func(Array) bool, rate storage.Bytes) (plan.Plan, bool, error) {
	b := &builder{Stack: s.clone(), rate: rate, survives: s.Layout.Survives(), reported: parent.Capacity(), inGroup: map[string]Array{}}
	b.Generation++
	for _, a := range parent.Arrays {
		b.inGroup[a.UUID] = a
	}
	for i, a := range s.Arrays {
		if whole(a) {
			b.protect(i, consistency(a.Level))
		}
	}
	if s.Capacity() != parent.Capacity() {
		b.extend()
	}
	if len(b.steps) == 0 {
		return plan.Plan{}, false, nil
	}
	_, p, err := b.seal(s, plan.Plan{What: "bring to an end what an abandoned plan has left"}, s.Layout.Survives())
	return p, err == nil, err
}
