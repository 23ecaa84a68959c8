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

// New plans a stack on blank disks. uuid is a fresh one, the source of all others; rate is what md gets
// done, in bytes a second. fault.Invalid and fault.Range for what cannot be; fault.Precondition where the disks
// hold nothing under the policy.
func New(name, uuid string, disks []layout.Disk, p layout.Policy, v Volume, rate storage.Bytes) (Stack, plan.Plan, error) {
	if err := checkName(name); err != nil {
		return Stack{}, plan.Plan{}, err
	}
	v.Group, v.Name = "hf-"+name, "data"
	if err := checkVolume(v); err != nil {
		return Stack{}, plan.Plan{}, err
	}
	if rate <= 0 {
		return Stack{}, plan.Plan{}, fault.New(fault.Invalid, "rate %d: want bytes a second", rate)
	}
	l, err := layout.Fresh(disks, p)
	if err != nil {
		return Stack{}, plan.Plan{}, err
	}
	if len(l.Slices) == 0 {
		return Stack{}, plan.Plan{}, fault.New(fault.Precondition, "a stack needs a slice: %s", l.Shortfall())
	}
	if v.OSD != nil {
		v.OSD = &OSD{UUID: Stack{UUID: uuid}.derive("osd"), Class: v.OSD.Class}
	}
	empty := Stack{Name: name, UUID: uuid, Volume: v}
	b := &builder{Stack: empty, rate: rate, survives: p.Tolerance}
	b.Layout = l
	for i, s := range l.Slices {
		zeroed := !slices.ContainsFunc(disks, func(d layout.Disk) bool { return slices.Contains(s.Members, d.ID) && !d.Zeroed })
		b.create(i, s, zeroed)
	}
	b.extend()
	if v.FileSystem == "xfs" && b.Capacity() < leastXFS {
		return Stack{}, plan.Plan{}, fault.New(fault.Range, "the volume would have %s, and xfs wants %s: take ext4, or larger disks", b.Capacity(), leastXFS)
	}
	if v.FileSystem != "" {
		b.volume(KindMakeFS, "make "+v.FileSystem)
	}
	if v.MountPoint != "" {
		b.volume(KindMount, "mount at "+v.MountPoint)
	}
	if v.OSD != nil {
		b.volume(KindMakeOSD, "make an OSD of the volume, which takes data from then on")
	}
	return b.seal(empty, plan.Plan{What: fmt.Sprintf("make a stack of %d disks", len(disks))}, l.Survives())
}

// Grow plans a change of the stack's disks, to the top of the stack. Errors as of layout.Grow.
func (s Stack) Grow(c layout.Change, rate storage.Bytes) (Stack, plan.Plan, error) {
	after, step, err := s.Layout.Grow(c, rate)
	if err != nil {
		return s, plan.Plan{}, err
	}
	b := &builder{Stack: s.clone(), rate: rate, survives: s.Layout.Survives(), reported: s.Capacity(), inGroup: map[string]Array{}}
	for _, a := range s.clone().Arrays {
		b.inGroup[a.UUID] = a
	}
	b.Generation++
	b.Layout = after
	for _, r := range c.Replace {
		b.leaving = append(b.leaving, plan.DiskID(r.Old))
	}
	b.resize(c.Grown)
	b.dropFirst(step.Operations)
	for _, op := range step.Operations {
		b.operate(op)
	}
	b.releaseAll(c.Replace)
	return b.seal(s, plan.Plan{What: step.What, Notes: step.Notes}, s.Layout.Survives())
}

// leastXFS is what mkfs.xfs 6 refuses less than.
const leastXFS = 300 * storage.MiB

// builder is a stack while a plan for it is made.
type builder struct {
	Stack
	rate     storage.Bytes
	survives int // of the data that is there
	reported storage.Bytes
	steps    []plan.Step
	inGroup  map[string]Array // the group's arrays as LVM knows them, by their UUIDs; nil before there is a group
	released []Disk
	leaving  []plan.DiskID // disks that the plan replaces
	notes    []string
	err      error
}

// seal checks what came out and makes the plan of it.
func (b *builder) seal(parent Stack, p plan.Plan, survives int) (Stack, plan.Plan, error) {
	if b.err == nil {
		b.err = b.fits()
	}
	if b.err != nil {
		return parent, plan.Plan{}, b.err
	}
	var err error
	if p.Parent, err = plan.Hash(parent); err != nil {
		return parent, plan.Plan{}, err
	}
	if p.State, err = json.Marshal(b.Stack); err != nil {
		return parent, plan.Plan{}, fmt.Errorf("encode stack: %w", err)
	}
	p.Subject, p.Steps, p.Disks, p.Notes = "stack "+b.Name, b.steps, b.uses(parent), append(p.Notes, b.notes...)
	p.Before, p.After = parent.Capacity(), b.Capacity()
	p, err = p.Seal(survives)
	return b.Stack, p, err
}

// uses says what becomes of each disk.
func (b *builder) uses(parent Stack) []plan.Disk {
	var list []plan.Disk
	for _, d := range b.Disks {
		use := plan.Take
		if slices.ContainsFunc(parent.Disks, func(old Disk) bool { return old.ID == d.ID }) {
			use = plan.Keep
		}
		list = append(list, plan.Disk{ID: d.ID, Size: d.Size, Use: use})
	}
	for _, d := range b.released {
		list = append(list, plan.Disk{ID: d.ID, Size: d.Size, Use: plan.Release})
	}
	return list
}

// add appends a step. Its capacity before is what the step before it ended with.
func (b *builder) add(s plan.Step, args any) {
	data, err := json.Marshal(args)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("encode step %s: %w", s.Kind, err)
	}
	s.Executor, s.Args = "node", data
	s.Before = b.reported
	if s.After == 0 {
		s.After = b.reported
	}
	b.reported = s.After
	if s.Sync > 0 {
		s.Forecast = int64((s.Sync + b.rate - 1) / b.rate)
	}
	if s.Passes == 0 {
		s.Redundancy = b.survives
	}
	b.steps = append(b.steps, s)
}

// operate turns one of the layout's operations into steps.
func (b *builder) operate(op layout.Operation) {
	switch op.Kind {
	case layout.OpCreate:
		// As it is created, not as it ends: more disks may join it in the same plan.
		b.create(op.Slice-1, layout.Slice{Size: b.Layout.Slices[op.Slice-1].Size, Level: op.To, Members: op.Joins}, op.Skipped)
	case layout.OpReplace, layout.OpRecover, layout.OpReshape:
		b.change(op)
	case layout.OpWiden:
		b.widen(op)
	case layout.OpExtend:
		b.extend()
	default:
		b.err = fault.New(fault.Unsupported, "operation %q of a layout", op.Kind)
	}
}

// disk makes sure that a disk is labelled, and returns it.
func (b *builder) disk(id string) Disk {
	for _, d := range b.Disks {
		if string(d.ID) == id {
			return d
		}
	}
	for _, d := range b.Layout.Disks {
		if d.ID == id {
			made := Disk{ID: plan.DiskID(id), Size: d.Size, GUID: b.derive("disk/" + id)}
			b.Disks = append(b.Disks, made)
			b.add(plan.Step{
				Kind: KindLabel, What: fmt.Sprintf("write a partition table to disk %s", id), Disks: []plan.DiskID{made.ID},
				Requires: []string{fmt.Sprintf("disk %s has %d bytes, is in no use and holds nothing", id, d.Size)},
			}, DiskArgs{made})
			return made
		}
	}
	b.err = fault.New(fault.NotFound, "disk %s is not in the layout", id)
	return Disk{}
}

// partition adds a slice's partition to a disk.
func (b *builder) partition(id string, slice int, size storage.Bytes) Partition {
	d := b.disk(id)
	p := b.place(d.ID, slice, size)
	b.add(plan.Step{
		Kind: KindPartition, What: fmt.Sprintf("add partition %d of %s to disk %s for slice %d", p.Number, p.Size, id, slice), Disks: []plan.DiskID{d.ID},
		Requires: []string{fmt.Sprintf("the table of disk %s is %s and has no partition %d", id, d.GUID, p.Number)},
	}, PartitionArgs{p, d.GUID})
	return p
}

// create makes a slice's array.
func (b *builder) create(index int, s layout.Slice, zeroed bool) {
	a := Array{
		Name: fmt.Sprintf("hf-%s-%d", b.Name, index+1), UUID: b.derive(fmt.Sprintf("array/%d", index+1)),
		Level: s.Level, Size: s.Size, Consistency: consistency(s.Level),
	}
	if a.Consistency == PPL {
		a.Consistency = Resync // until it is in sync
	}
	b.Arrays = append(b.Arrays, a)
	at := len(b.Arrays) - 1
	for _, id := range s.Members {
		b.Arrays[at].Members = append(b.Arrays[at].Members, b.partition(id, index+1, s.Size))
	}
	step := plan.Step{
		Kind: KindCreate, Disks: disksOf(b.Arrays[at]), Redundancy: b.survives,
		What:     fmt.Sprintf("create array %s: %s of %d", a.Name, a.Level, len(s.Members)),
		Requires: []string{"its partitions hold nothing"},
	}
	if !zeroed && s.Level != layout.Single {
		step.Sync, step.Passes = s.Size, 1
	}
	b.add(step, ArrayArgs{After: b.array(at), Zeroed: zeroed})
	b.protect(at, consistency(s.Level))
}

// array is a copy of an array as it is now.
func (b *builder) array(i int) Array {
	a := b.Arrays[i]
	a.Members = slices.Clone(a.Members)
	return a
}

func disksOf(a Array) []plan.DiskID {
	var list []plan.DiskID
	for _, m := range a.Members {
		list = append(list, m.Disk)
	}
	return list
}

// change replaces a member or takes more in. An array with a partial parity log refuses a reshape (md's raid5_start_reshape
// gives EINVAL), so it goes without meanwhile.
func (b *builder) change(op layout.Operation) {
	i := op.Slice - 1
	var joins []Partition
	for _, id := range op.Joins {
		joins = append(joins, b.partition(id, op.Slice, b.Arrays[i].Size))
	}
	if op.Kind == layout.OpReshape && b.Arrays[i].Consistency == PPL {
		b.protect(i, Resync) // not before the new disks are known to be good for it
	}
	args := ArrayArgs{Before: b.array(i)}
	step := plan.Step{Kind: KindRecover, What: op.String(), Sync: op.Sync, Passes: op.Passes, Redundancy: op.Survives, WriteHole: op.WriteHole}
	switch op.Kind {
	case layout.OpReshape:
		step.Kind = KindReshape
	case layout.OpReplace:
		step.Kind = KindReplace
	}
	if op.Leaves != "" {
		at := slices.IndexFunc(b.Arrays[i].Members, func(m Partition) bool { return string(m.Disk) == op.Leaves })
		left := b.Arrays[i].Members[at]
		args.Leaves = &left
		args.MayLack = b.mayLack(args.Before)
		b.Arrays[i].Members[at] = joins[0]
	} else {
		b.Arrays[i].Members = append(b.Arrays[i].Members, joins...)
	}
	b.Arrays[i].Level = op.To
	args.After = b.array(i)
	step.Disks = disksOf(args.After)
	step.Requires = []string{fmt.Sprintf("array %s is %s of %d and has all its members", args.Before.Name, args.Before.Level, len(args.Before.Members))}
	b.add(step, args)
	b.protect(i, consistency(op.To))
}

// mayLack lists the members of an array on disks that the plan replaces.
func (b *builder) mayLack(a Array) []string {
	var list []string
	for _, m := range a.Members {
		if slices.Contains(b.leaving, m.Disk) {
			list = append(list, m.UUID)
		}
	}
	return list
}

// protect changes the consistency policy, if it is another.
func (b *builder) protect(i int, to Consistency) {
	if b.Arrays[i].Consistency == to {
		return
	}
	args := ArrayArgs{Before: b.array(i)}
	b.Arrays[i].Consistency = to
	args.After = b.array(i)
	said := map[Consistency]string{Resync: "without a log, as a reshape wants it", Bitmap: "with a write-intent bitmap", PPL: "with a partial parity log, which closes the write hole"}
	b.add(plan.Step{Kind: KindProtect, What: fmt.Sprintf("run array %s %s", args.After.Name, said[to]), Disks: disksOf(args.After)}, args)
}

// dropFirst takes members out of their arrays where no bay is free for their successors: all of them before the
// first new disk is needed.
func (b *builder) dropFirst(operations []layout.Operation) {
	for _, op := range operations {
		if op.Kind != layout.OpRecover || op.Leaves == "" {
			continue
		}
		i := op.Slice - 1
		at := slices.IndexFunc(b.Arrays[i].Members, func(m Partition) bool { return string(m.Disk) == op.Leaves })
		left := b.Arrays[i].Members[at]
		args := ArrayArgs{Before: b.array(i), After: b.array(i), Leaves: &left}
		b.survives = min(b.survives, op.Survives)
		b.add(plan.Step{
			Kind: KindDrop, What: fmt.Sprintf("take disk %s out of array %s: no bay is free for the one that replaces it", op.Leaves, args.Before.Name),
			Disks: disksOf(args.Before), WriteHole: op.WriteHole,
		}, args)
	}
}

// resize takes the new sizes of disks that have grown.
func (b *builder) resize(grown []layout.Disk) {
	for _, g := range grown {
		for i := range b.Disks {
			if d := &b.Disks[i]; string(d.ID) == g.ID && d.Size < g.Size {
				d.Size = g.Size
				b.add(plan.Step{
					Kind: KindDiskGrow, What: fmt.Sprintf("move the backup of the partition table to the new end of disk %s", g.ID), Disks: []plan.DiskID{d.ID},
					Requires: []string{fmt.Sprintf("disk %s has %d bytes", g.ID, g.Size)},
				}, DiskArgs{*d})
			}
		}
	}
}

// widen gives the only disk's free end to its only array.
func (b *builder) widen(op layout.Operation) {
	i := op.Slice - 1
	args := ArrayArgs{Before: b.array(i)}
	more := b.Layout.Slices[i].Size - b.Arrays[i].Size
	b.Arrays[i].Size += more
	m := &b.Arrays[i].Members[0]
	m.Size += more
	guid := b.disk(string(m.Disk)).GUID
	b.add(plan.Step{
		Kind: KindPartitionGrow, What: fmt.Sprintf("grow partition %d of disk %s to %s", m.Number, m.Disk, m.Size), Disks: []plan.DiskID{m.Disk},
		Requires: []string{"nothing lies behind it"},
	}, PartitionArgs{*m, guid})
	args.After = b.array(i)
	b.add(plan.Step{Kind: KindWiden, What: op.String(), Disks: disksOf(args.After)}, args)
}

// releaseAll wipes disks that were replaced.
func (b *builder) releaseAll(list []layout.Replacement) {
	for _, r := range list {
		at := slices.IndexFunc(b.Disks, func(d Disk) bool { return string(d.ID) == r.Old })
		if at < 0 {
			continue // it was in no slice yet
		}
		d := b.Disks[at]
		b.Disks = slices.Delete(b.Disks, at, at+1)
		b.released = append(b.released, d)
		b.add(plan.Step{Kind: KindRelease, What: fmt.Sprintf("wipe the labels of disk %s, if it is still there", d.ID), Disks: []plan.DiskID{d.ID}}, DiskArgs{d})
	}
}
