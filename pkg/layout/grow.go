package layout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Change is what happens to a pool's disks: exactly one of the three.
type Change struct {
	Add     []Disk        // new disks
	Replace []Replacement // disks that take the place of others
	Grown   []Disk        // partitions or virtual disks of the pool, with their new sizes
}

// Replacement is a disk that takes another one's place.
type Replacement struct {
	Old string
	New Disk
}

// Kinds of steps.
const (
	StepAdd     = "add"
	StepReplace = "replace"
	StepGrow    = "grow"
)

// Step is a change with all that follows from it, to the top of the stack.
type Step struct {
	Kind   string        `json:"kind"`
	What   string        `json:"what"` // in words
	Before storage.Bytes `json:"capacity_before_bytes"`
	After  storage.Bytes `json:"capacity_after_bytes"`
	// Sync is the sum over all passes of the array's component size, in bytes.
	Sync storage.Bytes `json:"sync_bytes"`
	// Passes is how often md goes over one array: initial sync, recovery or reshape.
	Passes int `json:"passes"`
	// Redundancy is how many disks the data that is there already survives, at the worst moment.
	Redundancy int `json:"redundancy_during"`
	// WriteHole: at some moment a power cut and the loss of a disk together lose data.
	WriteHole  bool        `json:"write_hole"`
	Forecast   int64       `json:"forecast_seconds"`
	Operations []Operation `json:"operations"`
	Notes      []string    `json:"notes,omitempty"`
}

// Grow plans a change: the operations in their order, and the layout that they end with. rate is what
// md gets done, in bytes a second. fault.Invalid and fault.Range for what cannot be; fault.Precondition
// for what would lower the redundancy below the policy.
func (l Layout) Grow(c Change, rate storage.Bytes) (Layout, Step, error) {
	if rate <= 0 {
		return l, Step{}, fault.New(fault.Invalid, "rate %d: want bytes a second", rate)
	}
	w := &work{Layout: l.clone(), step: Step{Before: l.Capacity(), Redundancy: l.Survives(), Operations: []Operation{}}}
	var err error
	switch {
	case len(c.Add) > 0 && len(c.Replace) == 0 && len(c.Grown) == 0:
		err = w.add(c.Add)
	case len(c.Replace) > 0 && len(c.Add) == 0 && len(c.Grown) == 0:
		err = w.replace(c.Replace)
	case len(c.Grown) > 0 && len(c.Add) == 0 && len(c.Replace) == 0:
		err = w.grown(c.Grown)
	default:
		err = fault.New(fault.Invalid, "a change adds disks, replaces disks, or says which have grown: exactly one of the three")
	}
	if err != nil {
		return l, Step{}, err
	}
	if err := w.spread(); err != nil {
		return l, Step{}, err
	}
	w.finish(rate)
	return w.Layout, w.step, nil
}

// work is a layout while a step is planned.
type work struct {
	Layout
	step Step
}

func names(disks []Disk) string {
	list := make([]string, len(disks))
	for i, d := range disks {
		list[i] = fmt.Sprintf("%s (%s)", d.ID, d.Size.Decimal())
	}
	return strings.Join(list, ", ")
}

func (w *work) add(disks []Disk) error {
	w.step.Kind, w.step.What = StepAdd, "add "+names(disks)
	w.Disks = append(w.Disks, disks...)
	return w.Policy.checkDisks(w.Disks)
}

// grown takes the new sizes of disks; what is on them stays where it is.
func (w *work) grown(disks []Disk) error {
	w.step.Kind, w.step.What = StepGrow, "take the new size of "+names(disks)
	for _, d := range disks {
		old, err := w.disk(d.ID)
		if err != nil {
			return err
		}
		if d.Size < old.Size {
			return fault.New(fault.Invalid, "disk %s: it has %s now, %s before: slices never shrink, so it must not either", d.ID, d.Size.Decimal(), old.Size.Decimal())
		}
		at := slices.Index(w.Disks, old)
		w.Disks[at].Size, w.Disks[at].Zeroed = d.Size, old.Zeroed && d.Zeroed // a partition grows over what was there
	}
	return w.Policy.checkDisks(w.Disks)
}

// replace puts disks in the place of others, slice by slice.
func (w *work) replace(list []Replacement) error {
	w.step.Kind = StepReplace
	var said []string
	for _, r := range list {
		old, err := w.disk(r.Old)
		if err != nil {
			return err
		}
		if r.New.Size < old.Size {
			return fault.New(fault.Invalid, "disk %s has %s, the one for it %s: a replacement is as large or larger, since slices never shrink",
				old.ID, old.Size.Decimal(), r.New.Size.Decimal())
		}
		said = append(said, fmt.Sprintf("%s (%s) by %s (%s)", old.ID, old.Size.Decimal(), r.New.ID, r.New.Size.Decimal()))
		if err := w.swap(old, r.New); err != nil {
			return err
		}
	}
	w.step.What = "replace " + strings.Join(said, ", ")
	return w.Policy.checkDisks(w.Disks)
}

// swap recovers every slice of the old disk to the new one.
func (w *work) swap(old, fresh Disk) error {
	hot := w.Policy.Bays == 0 || len(w.Disks) < w.Policy.Bays
	for i := range w.Slices {
		s := &w.Slices[i]
		at := slices.Index(s.Members, old.ID)
		if at < 0 {
			continue
		}
		survives := s.Survives()
		if !hot {
			survives--
		}
		switch {
		case survives < 0:
			return fault.New(fault.Precondition, "disk %s holds the only copy and no bay is free: to take it out would lose the data; connect %s beside it (a USB dock will do)", old.ID, fresh.ID)
		case !hot && survives < w.Policy.Tolerance && !w.Policy.AllowDegraded:
			return fault.New(fault.Precondition, "disk %s: no bay is free, so it would have to be taken out first, and the pool would survive the loss of %d disks until the new one is in sync, not of %d: "+
				"connect %s beside it (a USB dock will do), or allow a degraded replacement", old.ID, survives, w.Policy.Tolerance, fresh.ID)
		}
		kind := OpReplace
		if !hot {
			kind = OpRecover
		}
		s.Members[at] = fresh.ID
		w.operate(Operation{
			Kind: kind, Slice: i + 1, From: s.Level, To: s.Level, Members: len(s.Members), Sync: s.Size, Passes: 1,
			Joins: []string{fresh.ID}, Leaves: old.ID,
			Survives: survives, WriteHole: !hot && s.Level.writeHole(),
		})
	}
	if !hot {
		w.step.Notes = append(w.step.Notes, "no bay is free: the old disk is taken out before the new one is in sync")
	}
	w.Disks[slices.Index(w.Disks, old)] = fresh
	return nil
}

// spread uses what is free: disks join the slices they are tall enough for, in one reshape each, and the
// rest becomes new slices.
//
// Where two copies of everything are enough, each disk goes into whatever slice it fits into, and that is best.
// Where a slice takes four members, such a layout could come to hold more than the same disks do when they are
// laid out anew, by height. So disks are stacked there first, and what is left over is used up to that limit.
func (w *work) spread() error {
	if len(w.Disks) == 1 {
		w.widen()
		return nil
	}
	whole, err := Fresh(w.Disks, w.Policy)
	if err != nil {
		return err
	}
	if w.Policy.fewest() == 4 {
		if err := w.fill(true, whole.Capacity()); err != nil {
			return err
		}
	}
	return w.fill(false, whole.Capacity())
}

// fill is spread under one rule for which disks may join which slices, up to a capacity.
func (w *work) fill(stacked bool, limit storage.Bytes) error {
	for i := range w.Slices {
		var joining []string
		for _, d := range w.Disks {
			if !slices.Contains(w.Slices[i].Members, d.ID) && w.Free(d) >= w.Slices[i].Size && (!stacked || w.stacked(d, i)) {
				joining = append(joining, d.ID)
			}
		}
		w.join(i, joining, limit)
	}
	if slices.ContainsFunc(w.Slices, func(s Slice) bool { return s.Level == Single }) {
		return w.stillSingle()
	}
	for _, s := range w.cut(stacked) {
		if w.Capacity()+s.Capacity() > limit {
			break
		}
		w.Slices = append(w.Slices, s)
		w.operate(w.newSlice(len(w.Slices), s))
	}
	return nil
}

// join takes disks into the slice of index i, if it can take them and the pool stays within the limit.
func (w *work) join(i int, disks []string, limit storage.Bytes) {
	operations := w.Policy.join(w.Slices[i], len(disks))
	if len(disks) == 0 || len(operations) == 0 {
		return
	}
	level := operations[len(operations)-1].To
	after := Slice{Size: w.Slices[i].Size, Level: level, Members: append(slices.Clone(w.Slices[i].Members), disks...)}
	if w.Capacity()-w.Slices[i].Capacity()+after.Capacity() > limit {
		return
	}
	here := len(w.Slices[i].Members)
	w.Slices[i] = after
	for _, op := range operations {
		op.Slice, op.Joins = i+1, slices.Clone(after.Members[here:op.Members])
		here = op.Members
		w.operate(op)
	}
}

// widen gives the one disk of a pool to its one slice: there is no other member that would have to follow.
func (w *work) widen() {
	free := w.Free(w.Disks[0])
	if free == 0 {
		return
	}
	w.Slices[0].Size += free
	w.operate(Operation{Kind: OpWiden, Slice: 1, From: Single, To: Single, Members: 1})
}

// stillSingle says why disks were added and the data of the first one is not protected.
func (w *work) stillSingle() error {
	single := w.Slices[0]
	var tall int
	for _, d := range w.Disks {
		if w.Policy.usable(d.Size) >= single.Size {
			tall++
		}
	}
	return fault.New(fault.Precondition, "the pool's %s on %s have no protection, and a layout that survives the loss of %d starts with %d disks at least as tall: there are %d; add %d more in the same step",
		single.Size.Decimal(), single.Members[0], w.Policy.Tolerance, w.Policy.fewest(), tall, w.Policy.fewest()-tall)
}

// newSlice is the first sync of a slice. It takes up data when it is done, so it puts none at risk.
func (w *work) newSlice(number int, s Slice) Operation {
	op := Operation{Kind: OpCreate, Slice: number, To: s.Level, Members: len(s.Members), Sync: s.Size, Passes: 1, Joins: slices.Clone(s.Members), Survives: w.Policy.Tolerance}
	for _, id := range s.Members {
		if d, _ := w.disk(id); !d.Zeroed {
			return op
		}
	}
	// Parity of zeros is zeros, for RAID5 and RAID6 alike (mdadm(8), --assume-clean).
	op.Sync, op.Passes, op.Skipped = 0, 0, true
	return op
}

// operate adds an operation and what it means for the step.
func (w *work) operate(op Operation) {
	w.step.Operations = append(w.step.Operations, op)
	w.step.Sync += op.Sync
	w.step.Passes += op.Passes
	w.step.Redundancy = min(w.step.Redundancy, op.Survives)
	w.step.WriteHole = w.step.WriteHole || op.WriteHole
}

// finish adds what follows from the operations.
func (w *work) finish(rate storage.Bytes) {
	w.step.After = w.Capacity()
	if w.step.After > w.step.Before {
		w.step.Operations = append(w.step.Operations, Operation{Kind: OpExtend, Survives: w.Survives()})
	}
	w.step.Forecast = int64(w.step.Sync / rate)
	if w.step.Sync%rate > 0 {
		w.step.Forecast++
	}
	if w.step.WriteHole {
		w.step.Notes = append(w.step.Notes, "while md reshapes it keeps no partial parity log: a power cut together with the loss of a disk can lose data; run it on a UPS, with a backup")
	}
	for _, d := range w.Disks {
		if free := w.Free(d); free > 0 {
			w.step.Notes = append(w.step.Notes, fmt.Sprintf("%s of %s stay unused", free.Decimal(), d.ID))
		}
	}
	if why := w.Shortfall(); why != "" {
		w.step.Notes = append(w.step.Notes, "not protected as asked: "+why)
	}
}
