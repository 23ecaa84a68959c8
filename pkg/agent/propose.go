package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
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
			err := a.ofStack(name, func(now stack.Stack) error {
				p, ok, err := Replacement(now, disk, s.Inventory.Disks)
				if err != nil || !ok {
					return err
				}
				return a.offer(p)
			})
			if a.isNews("replacement of "+string(disk)+" in "+name, err) {
				a.Log.Warn("no replacement can be proposed", obs.KeyDisk, disk, obs.KeyName, name, obs.KeyError, err)
			}
		}
		err := a.ofStack(name, func(now stack.Stack) error {
			p, ok, err := Enlargement(now, s.Inventory.Disks)
			if err != nil {
				return err
			}
			if !ok { // nothing is gained any more, or somebody else has used it
				subject := ledger.Stacks + " " + name
				a.outgrow(subject, "")
				return a.withdraw(subject, stack.KindDiskGrow, a.offered)
			}
			return a.offerGrowth(p)
		})
		if a.isNews("growth of disks of "+name, err) {
			a.Log.Warn("the growth of disks cannot be used", obs.KeyName, name, obs.KeyError, err)
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

// ofStack does something for a stack as it is, unless a plan is on its way.
func (a *Agent) ofStack(name string, do func(stack.Stack) error) error {
	current, there, err := a.Ledger.Stack(name)
	if errors.Is(err, fault.Busy) || err == nil && !there {
		return nil
	}
	if err != nil {
		return err
	}
	return do(current)
}

// offer keeps a plan for somebody to approve. One that this agent has offered before is not offered again: somebody has withdrawn it.
func (a *Agent) offer(p plan.Plan) error {
	if a.offered(p.ID) {
		return nil
	}
	if _, err := a.Ledger.Propose(p); err != nil {
		return err
	}
	a.Log.Info("plan is proposed", obs.KeyName, p.Subject, obs.KeyPlan, p.ID)
	a.set(func() { a.proposed[p.ID] = true })
	return nil
}

func (a *Agent) offered(id plan.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.proposed[id]
}

// offerGrowth offers a plan for what disks have grown by, in place of those before: they have grown once more since. What others have proposed for that gives
// way to a new plan alone.
func (a *Agent) offerGrowth(p plan.Plan) error {
	isNew := !a.offered(p.ID)
	err := a.withdraw(p.Subject, p.Steps[0].Kind, func(id plan.ID) bool { return id != p.ID && (isNew || a.offered(id)) })
	if err != nil {
		return err
	}
	a.outgrow(p.Subject, p.ID)
	return a.offer(p)
}

// outgrow notes the growth that is offered for a subject now, "" for none: the one before is outdated.
func (a *Agent) outgrow(subject string, now plan.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if before := a.growths[subject]; before != "" && before != now {
		a.outdated = append(a.outdated, before)
	}
	a.growths[subject] = now
}

// Outdated are growths that this agent has offered and in whose place others have come, also those that the coordinators have by now.
func (a *Agent) Outdated() []plan.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.outdated)
}

// withdraw forgets proposals for a subject that begin alike.
func (a *Agent) withdraw(subject string, first plan.Kind, is func(plan.ID) bool) error {
	proposals, err := journal.Proposals(a.Ledger.Dir)
	if err != nil {
		return err
	}
	for _, e := range proposals {
		if e.Err != nil || len(e.Plan.Steps) == 0 || e.Plan.Subject != subject || e.Plan.Steps[0].Kind != first || !is(e.Plan.ID) {
			continue
		}
		if err := journal.Withdraw(a.Ledger.Dir, e.Plan.ID); err != nil {
			return err
		}
		a.set(func() {})
	}
	return nil
}

// isNews reports whether an error is to be said: the one before about the same was another one, or none.
func (a *Agent) isNews(about string, err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.said[about]
	a.said[about] = text
	return text != "" && text != before
}

// leftUnused is what an OSD does not use of its disk although that has not grown, in bytes, rounded up: BlueStore counts in blocks.
const leftUnused = storage.MiB

// enlarged reports whether an OSD that the agent looks after lies on a disk that has grown. What lies on a stack's volume grows with the stack.
func enlarged(o agentapi.OSD) bool {
	return o.Keeper == agentapi.KeeperAgent && o.Used > 0 && o.Size-o.Used >= leftUnused && !o.Disk.OfVolume()
}

// proposeOSDs keeps a plan for each OSD whose disk has grown, as virtual ones do. One that cannot be planned does not keep the others from it.
func (a *Agent) proposeOSDs(ctx context.Context) error {
	list, err := a.OSDs.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range list {
		if !enlarged(o) {
			continue
		}
		if err := a.proposeOSD(ctx, o.ID); err != nil {
			errs = append(errs, fmt.Errorf("plan the growth of osd.%d: %w", o.ID, err))
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) proposeOSD(ctx context.Context, id int) error {
	p, err := a.OSDs.Plan(ctx, agentapi.OSDRequest{Do: "grow", ID: id})
	if err != nil {
		return err
	}
	return a.offerGrowth(p)
}
