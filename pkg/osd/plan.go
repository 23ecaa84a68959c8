package osd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Subject is the first word of the subject of a plan for OSDs.
const Subject = "osd"

// draft is a plan in the making.
type draft struct {
	plan.Plan
	node  *Node
	disks []storage.DiskID
	osds  []int
	err   error
}

// add appends the steps of a request.
func (d *draft) add(a Args, disks ...storage.DiskID) {
	steps, err := d.node.steps(a)
	args, encoding := json.Marshal(a)
	d.err = errors.Join(d.err, err, encoding)
	for _, s := range steps {
		step := plan.Step{Kind: plan.Kind(s.Kind), What: s.What, Executor: "node", Args: args}
		for _, id := range disks {
			step.Disks = append(step.Disks, plan.DiskID(id))
		}
		d.Steps = append(d.Steps, step)
	}
}

// use says what the plan does with a disk.
func (d *draft) use(found storage.Disk, use plan.Use) {
	d.Disks = append(d.Disks, plan.Disk{ID: plan.DiskID(found.ID), Size: found.Size, Use: use})
	d.disks = append(d.disks, found.ID)
}

func (d *draft) seal(ctx context.Context) (plan.Plan, error) {
	if d.err != nil {
		return plan.Plan{}, d.err
	}
	s, err := d.node.look(ctx, d.disks, d.osds)
	if err != nil {
		return plan.Plan{}, err
	}
	if d.Parent, err = plan.Hash(s); err != nil {
		return plan.Plan{}, err
	}
	if d.State, err = json.Marshal(s); err != nil {
		return plan.Plan{}, fmt.Errorf("encode the situation: %w", err)
	}
	return d.Seal(-1) // copies are made by Ceph
}

// NewPlan plans a new OSD on a free disk. fault.Precondition says why the disk is not free.
func (n *Node) NewPlan(ctx context.Context, r Request) (plan.Plan, error) {
	d, err := n.Disks.Find(ctx, r.Disk)
	if err != nil {
		return plan.Plan{}, err
	}
	if !d.Free() {
		return plan.Plan{}, fault.New(fault.Precondition, "disk %s (%s) is not free: %s", d.ID, d.Name, d.Why())
	}
	p := &draft{node: n, Plan: plan.Plan{Subject: Subject + " on " + string(d.ID), What: "make an OSD of disk " + string(d.ID), After: d.Size}}
	p.use(d, plan.Take)
	if r.Replace != nil {
		p.osds = append(p.osds, *r.Replace)
		p.What += ", which takes the id of " + name(*r.Replace)
	}
	p.add(Args{Prepare: &r}, d.ID)
	return p.seal(ctx)
}

// AdoptPlan plans to bring an OSD back that was found on a disk.
func (n *Node) AdoptPlan(ctx context.Context, id storage.DiskID) (plan.Plan, error) {
	a, err := n.PlanAdoption(ctx, id)
	if err != nil {
		return plan.Plan{}, err
	}
	d, err := n.Disks.Find(ctx, id)
	if err != nil {
		return plan.Plan{}, err
	}
	p := &draft{node: n, osds: []int{a.ID}, Plan: plan.Plan{Subject: fmt.Sprintf("%s %d", Subject, a.ID), What: fmt.Sprintf("start %s, which is on disk %s", name(a.ID), id), Before: d.Size, After: d.Size}}
	p.use(d, plan.Keep)
	p.add(Args{Adopt: &a}, id)
	return p.seal(ctx)
}

// GrowPlan plans to let an OSD use all of its device.
func (n *Node) GrowPlan(ctx context.Context, id int) (plan.Plan, error) {
	d, err := n.diskOf(ctx, id)
	if err != nil {
		return plan.Plan{}, err
	}
	g := Growth{ID: id, UUID: onDisk(d).UUID, Disk: d.ID}
	p := &draft{node: n, osds: []int{id}, Plan: plan.Plan{Subject: fmt.Sprintf("%s %d", Subject, id), What: fmt.Sprintf("let %s use all of disk %s", name(id), d.ID), Before: onDisk(d).Size, After: d.Size}}
	p.Notes = append(p.Notes, name(id)+" is stopped for some seconds, when all data is available without it")
	p.use(d, plan.Keep)
	p.add(Args{Grow: &g}, d.ID)
	return p.seal(ctx)
}

// RemovePlan plans to remove an OSD, and to put another disk in its place if there is one. token, which names the disk, has it wiped;
// without one the disk keeps what it has. fault.Denied says the token.
func (n *Node) RemovePlan(ctx context.Context, id int, token string, successor *Request) (plan.Plan, error) {
	r, want, err := n.PlanRemoval(ctx, id, successor != nil)
	if err != nil {
		return plan.Plan{}, err
	}
	p := &draft{node: n, osds: []int{id}, Plan: plan.Plan{Subject: fmt.Sprintf("%s %d", Subject, id), What: "remove " + name(id)}}
	if err := p.old(ctx, &r, token, want); err != nil {
		return plan.Plan{}, err
	}
	p.add(Args{Remove: &r}, slices.DeleteFunc([]storage.DiskID{r.Disk}, func(d storage.DiskID) bool { return d == "" })...)
	if successor != nil {
		d, err := n.Disks.Find(ctx, successor.Disk)
		if err != nil {
			return plan.Plan{}, err
		}
		if !d.Free() {
			return plan.Plan{}, fault.New(fault.Precondition, "disk %s (%s) is not free: %s", d.ID, d.Name, d.Why())
		}
		successor.Replace = &id
		p.What, p.After = fmt.Sprintf("replace the disk of %s by %s", name(id), d.ID), d.Size
		p.use(d, plan.Take)
		p.add(Args{Prepare: successor}, d.ID)
	}
	return p.seal(ctx)
}

// old says what becomes of the disk of an OSD that goes.
func (d *draft) old(ctx context.Context, r *Removal, token, want string) error {
	if r.Disk == "" {
		d.Notes = append(d.Notes, "its disk is not in this machine: nothing is wiped")
		return nil
	}
	found, err := d.node.Disks.Find(ctx, r.Disk)
	if err != nil {
		return err
	}
	d.Before = found.Size
	switch token {
	case "":
		d.use(found, plan.Keep)
		d.Notes = append(d.Notes, fmt.Sprintf("disk %s keeps what is on it; with the token '%s' it is wiped in the end", found.ID, want))
	case want:
		r.Token = token
		d.use(found, plan.Release)
	default:
		return fault.New(fault.Denied, "disk %s holds %s; to have it wiped afterwards, say %q", found.ID, found.Why(), want)
	}
	d.Notes = append(d.Notes, "data moves off it first; it takes as long as its data takes to be copied")
	return nil
}
