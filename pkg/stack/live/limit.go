package live

import (
	"errors"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Standstill is a limit in bytes a second by which md all but stops. It is what a pause asks for: interrupting a reshape is
// not safe in all its moments, and slowing one down is.
const Standstill = storage.KiB

// Bound sets the limit of all arrays of a stack that run: one that an earlier run left may be a pause that is over.
func (m *Machine) Bound(s stack.Stack) error {
	return m.each(s, m.throttle)
}

// Lift lifts the limits of all arrays of a stack, but for what a pause holds.
func (m *Machine) Lift(s stack.Stack) error {
	return m.each(s, m.release)
}

// each does something to all arrays of a stack that run, also after one failed.
func (m *Machine) each(s stack.Stack, do func(md.Array) error) error {
	var errs []error
	for _, want := range s.Arrays {
		errs = append(errs, m.ifRuns(want.UUID, do))
	}
	return errors.Join(errs...)
}

func (m *Machine) ifRuns(uuid string, do func(md.Array) error) error {
	a, err := m.MD.Find(uuid)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return do(a)
}

func (m *Machine) throttle(a md.Array) error {
	if m.Limit == nil {
		return nil
	}
	return m.MD.Throttle(a, m.Limit())
}

// lift lifts an array's limit: nobody asks for it any more, and md would keep it until the array stops. An array that is gone has none.
func (m *Machine) lift(uuid string) error {
	if m.Limit == nil {
		return nil
	}
	return m.ifRuns(uuid, m.release)
}

// release lifts the limit. A pause stays in force while nobody looks after it, as long as there is something to slow.
func (m *Machine) release(a md.Array) error {
	if a.Syncing() && m.paused() {
		return nil
	}
	return m.MD.Throttle(a, 0)
}

func (m *Machine) paused() bool { return m.Limit != nil && m.Limit() == Standstill }
