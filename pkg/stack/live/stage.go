package live

import (
	"context"
	"errors"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// Reached reports whether an array is as it is after a step that was begun, be it without a member that has failed since; else it is as before.
// fault.Busy while md works at it: it goes on by itself, also degraded. fault.NotFound if the array does not run.
func (m *Machine) Reached(ctx context.Context, args stack.ArrayArgs) (bool, error) {
	a, err := m.MD.Find(args.After.UUID)
	if errors.Is(err, fault.NotFound) && args.Before.UUID == "" {
		return false, nil // it was never made
	}
	if err != nil {
		return false, err
	}
	if a.Syncing() && m.paused() {
		return false, fault.New(fault.Busy, "md is still at work on array %s (%s), and slowed by a pause: resume the plan first, then wait until it is done", args.After.Name, a.Action)
	}
	if a.Syncing() {
		return false, fault.New(fault.Busy, "md is still at work on array %s (%s): wait until it is done", args.After.Name, a.Action)
	}
	switch {
	case args.Leaves != nil:
		return m.succeeded(ctx, a, args)
	case args.Before.UUID != "" && args.Before.Size != args.After.Size:
		return a.Component == args.After.Size, nil
	case args.Before.UUID != "" && len(args.Before.Members) == len(args.After.Members):
		return a.Consistency == string(args.After.Consistency), nil
	default:
		return shaped(a, args.After), nil
	}
}

// succeeded reports whether the member that was to leave has left, and its successor serves. Where neither serves, the place is still its.
func (m *Machine) succeeded(ctx context.Context, a md.Array, args stack.ArrayArgs) (bool, error) {
	devices, err := m.devices(ctx, args.Joins())
	if err != nil {
		return false, err
	}
	for _, path := range devices {
		if member, in := a.Member(base(path)); path == "" || !in || !member.InSync || member.Replacing || member.Slot < 0 {
			return false, nil
		}
	}
	return true, nil
}

// Whole reports whether an array has all its members.
func (m *Machine) Whole(want stack.Array) bool {
	a, err := m.MD.Find(want.UUID)
	return err == nil && a.Degraded == 0 && shaped(a, want)
}
