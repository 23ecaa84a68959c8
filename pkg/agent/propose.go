package agent

import (
	"errors"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/smart"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// copyRate is for the forecast of plans that are proposed, in bytes a second.
const copyRate = 150 * 1000 * 1000

// failing are the disks that say that they fail, and those that md threw out.
func (s Sight) failing() []storage.DiskID {
	var list []storage.DiskID
	for _, d := range s.Inventory.Disks {
		if s.Health[d.ID].State == smart.Failing {
			list = append(list, d.ID)
		}
	}
	for _, a := range s.Arrays {
		list = append(list, a.Failed...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Replacement plans the replacement of a disk of a stack by the smallest free disk that is large enough: the disk is copied while it serves, where a bay is
// free. False if the disk is not the stack's or no disk is free for it. It is pure.
func Replacement(s stack.Stack, disk storage.DiskID, disks []storage.Disk) (plan.Plan, bool, error) {
	var id plan.DiskID
	var size storage.Bytes
	for _, d := range s.Disks {
		if slices.ContainsFunc(disks, func(x storage.Disk) bool { return x.ID == disk && named(x, string(d.ID)) }) {
			id, size = d.ID, d.Size
		}
	}
	var best *storage.Disk
	for i, d := range disks {
		if d.Free() && d.Size >= size && (best == nil || d.Size < best.Size) {
			best = &disks[i]
		}
	}
	if id == "" || best == nil {
		return plan.Plan{}, false, nil
	}
	_, p, err := s.Grow(layout.Change{Replace: []layout.Replacement{{Old: string(id), New: layout.Disk{ID: string(best.ID), Size: best.Size}}}}, copyRate)
	return p, err == nil, err
}

// Propose keeps a plan for each disk that fails, if there is a free one for it. Nothing is done before somebody approves it; one that was withdrawn does not
// come again while this agent lives.
func (a *Agent) Propose(s Sight) {
	if !a.mayRun() {
		return
	}
	for _, disk := range s.failing() {
		for _, name := range s.stackNames() {
			if err := a.proposeOne(s, name, disk); err != nil {
				a.Log.Warn("no replacement can be proposed", obs.KeyDisk, disk, obs.KeyName, name, obs.KeyError, err)
			}
		}
	}
}

func (s Sight) stackNames() []string {
	var names []string
	for _, a := range s.Arrays {
		names = append(names, a.Stack)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (a *Agent) proposeOne(s Sight, name string, disk storage.DiskID) error {
	current, there, err := a.Ledger.Stack(name)
	if errors.Is(err, fault.Busy) || err == nil && !there {
		return nil // a plan is on its way, perhaps this one
	}
	if err != nil {
		return err
	}
	p, ok, err := Replacement(current, disk, s.Inventory.Disks)
	if err != nil || !ok || !a.firstTime(p.ID) {
		return err
	}
	if _, err := a.Ledger.Propose(p); err != nil {
		return err
	}
	a.Log.Info("replacement is proposed", obs.KeyDisk, disk, obs.KeyPlan, p.ID)
	a.set(func() {})
	return nil
}

// firstTime reports whether a plan has not been proposed by this agent yet.
func (a *Agent) firstTime(id plan.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.proposed[id]
	a.proposed[id] = true
	return first
}
