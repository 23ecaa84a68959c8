package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
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

// Enlargement plans to use what disks of a stack have grown by, as virtual ones do, to the top of the stack. False if none has, or if nothing is gained
// before others grow too. It is pure.
func Enlargement(s stack.Stack, disks []storage.Disk) (plan.Plan, bool, error) {
	var change layout.Change
	for _, d := range s.Disks {
		i := slices.IndexFunc(disks, func(x storage.Disk) bool { return named(x, string(d.ID)) && !x.Because(storage.ReasonMultipath) })
		if i >= 0 && disks[i].Size > d.Size {
			change.Grown = append(change.Grown, layout.Disk{ID: string(d.ID), Size: disks[i].Size})
		}
	}
	if len(change.Grown) == 0 {
		return plan.Plan{}, false, nil
	}
	_, p, err := s.Grow(change, copyRate)
	return p, err == nil && p.After > p.Before, err
}

// Propose keeps a plan for each disk that fails, if there is a free one for it, and for each stack whose disks have grown. Nothing is done before somebody
// approves it; one that was withdrawn does not come again while this agent lives.
func (a *Agent) Propose(s Sight) {
	if !a.mayRun() {
		return
	}
	for _, name := range s.stackNames() {
		for _, disk := range s.failing() {
			if err := a.proposeOne(name, func(now stack.Stack) (plan.Plan, bool, error) { return Replacement(now, disk, s.Inventory.Disks) }); err != nil {
				a.Log.Warn("no replacement can be proposed", obs.KeyDisk, disk, obs.KeyName, name, obs.KeyError, err)
			}
		}
		if err := a.proposeOne(name, func(now stack.Stack) (plan.Plan, bool, error) { return a.enlarge(now, s.Inventory.Disks) }); err != nil {
			a.Log.Warn("the growth of disks cannot be used", obs.KeyName, name, obs.KeyError, err)
		}
	}
}

// enlarge is Enlargement, in place of what was proposed for the stack before: its disks have grown once more since, or somebody else has used it.
func (a *Agent) enlarge(s stack.Stack, disks []storage.Disk) (plan.Plan, bool, error) {
	p, ok, err := Enlargement(s, disks)
	if err != nil {
		return p, false, err
	}
	a.mu.Lock()
	before := a.growths[s.Name]
	a.growths[s.Name] = p.ID
	a.mu.Unlock()
	if before != "" && before != p.ID {
		err = journal.Withdraw(a.Ledger.Dir, before)
	}
	return p, ok, err
}

func (s Sight) stackNames() []string {
	var names []string
	for _, a := range s.Arrays {
		names = append(names, a.Stack)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// proposeOne keeps the plan that is made for a stack, if there is one.
func (a *Agent) proposeOne(name string, calculate func(stack.Stack) (plan.Plan, bool, error)) error {
	current, there, err := a.Ledger.Stack(name)
	if errors.Is(err, fault.Busy) || err == nil && !there {
		return nil // a plan is on its way, perhaps this one
	}
	if err != nil {
		return err
	}
	p, ok, err := calculate(current)
	if err != nil || !ok || !a.firstTime(p.ID) {
		return err
	}
	if _, err := a.Ledger.Propose(p); err != nil {
		return err
	}
	a.Log.Info("plan is proposed", obs.KeyName, name, obs.KeyPlan, p.ID)
	a.set(func() {})
	return nil
}

// leftUnused is what an OSD does not use of its disk although that has not grown, in bytes, rounded up: BlueStore counts in blocks.
const leftUnused = storage.MiB

// enlarged reports whether an OSD that the agent looks after lies on a disk that has grown. What lies on a stack's volume grows with the stack.
func enlarged(o agentapi.OSD) bool {
	return o.Keeper == agentapi.KeeperAgent && o.Used > 0 && o.Size-o.Used >= leftUnused && !o.Disk.OfVolume()
}

// proposeOSDs keeps a plan for each OSD whose disk has grown, as virtual ones do.
func (a *Agent) proposeOSDs(ctx context.Context) error {
	list, err := a.OSDs.List(ctx)
	if err != nil {
		return err
	}
	for _, o := range list {
		if !enlarged(o) {
			continue
		}
		p, err := a.OSDs.Plan(ctx, agentapi.OSDRequest{Do: "grow", ID: o.ID})
		if err == nil && a.firstTime(p.ID) {
			_, err = a.Ledger.Propose(p)
			a.Log.Info("plan is proposed", obs.KeyOSD, o.ID, obs.KeyPlan, p.ID)
			a.set(func() {})
		}
		if err != nil {
			return fmt.Errorf("plan the growth of osd.%d: %w", o.ID, err)
		}
	}
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
