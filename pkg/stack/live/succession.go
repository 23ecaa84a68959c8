package live

import (
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/md"
)

// serves reports whether a member holds a place in the array and has not failed.
func serves(m md.Member) bool { return !m.Faulty && m.Slot >= 0 }

// filled reports whether a member holds all that belongs in its place.
func filled(m md.Member) bool { return serves(m) && m.InSync && !m.Replacing }

// mayGo says why a member must not be taken out. One that has failed or holds no place always may; one that serves only
// from an array that is at rest and lacks nobody.
func mayGo(a md.Array, old string) error {
	m, in := a.Member(old)
	switch {
	case !in || !serves(m):
		return nil
	case a.Busy():
		return fault.New(fault.Precondition, "%s serves array %s, which is busy (%s)", old, a.Device, a.Action)
	case a.Degraded != 0:
		return fault.New(fault.Precondition, "%s serves array %s, which lacks %d members: replace those first", old, a.Device, a.Degraded)
	}
	return nil
}

// succeeded says why a member has not taken over from another: it has once it is filled and the other serves no more, or holds the
// same place. A new member that md took for the place of a third one, which failed meanwhile, has not.
func succeeded(a md.Array, old, fresh string) error {
	n, in := a.Member(fresh)
	if !in || !filled(n) {
		return fault.New(fault.Precondition, "%s is not in sync in array %s (%+v)", fresh, a.Device, n)
	}
	if m, in := a.Member(old); in && serves(m) && m.Slot != n.Slot {
		return fault.New(fault.Precondition, "%s has taken the place of another member of array %s, which failed; %s still serves and stays", fresh, a.Device, old)
	}
	return nil
}
