// Package layout decides how disks of mixed sizes are cut into slices and joined into md arrays, what
// that yields, and in which order such a pool grows. It is pure: sizes in, layouts and steps out.
//
// Invariant: a slice has one member on each of its disks and never shrinks, so a layout carries
// its history and what it holds is never copied elsewhere to make room.
//
// It must not import anything that looks at a machine; the executor does what it plans.
package layout

import (
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// DefaultReserve is what is left out of each disk, in bytes: both partition tables (1 MiB each with their
// alignment), md's superblock and data offset in each slice (mdadm(8), --data-offset: 1 MiB is headroom enough for
// a reshape without a backup file), and slack, since two disks sold under one size differ by some MB.
const DefaultReserve = storage.GiB

// alignment is what slices begin and end at where a reserve is kept, in bytes.
const alignment = storage.MiB

// Limits of what is planned for.
const (
	MaxDisks = 64
	maxSize  = 1 << 50 // of a disk, in bytes
)

// Level is how a slice's array protects it.
type Level string

// The levels. A single is an md RAID1 of one member, so that it can grow.
const (
	Single Level = "single"
	RAID1  Level = "raid1"
	RAID5  Level = "raid5"
	RAID6  Level = "raid6"
)

// Survives is how many members an array of n may lose.
func (l Level) Survives(n int) int {
	switch l {
	case RAID1:
		return n - 1
	case RAID5:
		return 1
	case RAID6:
		return 2
	default:
		return 0
	}
}

// holds is how many members' worth of data an array of n has.
func (l Level) holds(n int) int {
	switch l {
	case RAID5:
		return n - 1
	case RAID6:
		return n - 2
	default:
		return 1
	}
}

// writeHole reports whether a power cut in mid-write can leave parity that does not match: then the
// loss of a disk before the next resync loses what was written long ago, too (md(4), "write hole").
func (l Level) writeHole() bool { return l == RAID5 || l == RAID6 }

// Policy is what a layout is to keep to.
type Policy struct {
	// Tolerance is how many disks may be lost, 1 or 2.
	Tolerance int `json:"tolerance"`
	// ThreeWayMirror lets three members of a slice that is to survive two losses mirror each other;
	// without it such a slice stays free until a fourth disk is tall enough.
	ThreeWayMirror bool `json:"three_way_mirror,omitempty"`
	// Reserve is left out of each disk, in bytes.
	Reserve storage.Bytes `json:"reserve_bytes"`
	// Bays is how many disks the machine takes, 0 for enough. Without a free one a disk can only be
	// replaced by taking it out first.
	Bays int `json:"bays,omitempty"`
	// AllowDegraded lets a disk be taken out first although the pool then survives fewer losses.
	AllowDegraded bool `json:"allow_degraded,omitempty"`
}

// Disk is a disk, or a partition or virtual disk in its place.
type Disk struct {
	ID   string        `json:"id"`
	Size storage.Bytes `json:"size_bytes"`
	// Zeroed: all of it reads as zeros, so arrays on it need no initial sync.
	Zeroed bool `json:"zeroed,omitempty"`
}

// Slice is an equal part of several disks, joined by one array.
type Slice struct {
	Size    storage.Bytes `json:"size_bytes"` // of each member
	Level   Level         `json:"level"`
	Members []string      `json:"members"` // disks, in the order in which they joined
}

// Capacity is what the slice's array holds, in bytes.
func (s Slice) Capacity() storage.Bytes {
	return s.Size * storage.Bytes(s.Level.holds(len(s.Members)))
}

// Survives is how many of its disks the slice may lose.
func (s Slice) Survives() int { return s.Level.Survives(len(s.Members)) }

// Layout is a pool: slices from the bottom up, all of them physical volumes of one volume group.
type Layout struct {
	Policy Policy  `json:"policy"`
	Disks  []Disk  `json:"disks"`
	Slices []Slice `json:"slices"`
}

// Capacity is what the pool holds, in bytes.
func (l Layout) Capacity() storage.Bytes {
	var sum storage.Bytes
	for _, s := range l.Slices {
		sum += s.Capacity()
	}
	return sum
}

// Unprotected is how much of the capacity is lost with one disk, in bytes.
func (l Layout) Unprotected() storage.Bytes {
	var sum storage.Bytes
	for _, s := range l.Slices {
		if s.Survives() == 0 {
			sum += s.Capacity()
		}
	}
	return sum
}

// Raw is the sum of the disks' sizes, in bytes.
func (l Layout) Raw() storage.Bytes {
	var sum storage.Bytes
	for _, d := range l.Disks {
		sum += d.Size
	}
	return sum
}

// Free is what no slice uses of a disk, in bytes, the reserve left out.
func (l Layout) Free(d Disk) storage.Bytes {
	free := l.Policy.usable(d.Size)
	for _, s := range l.Slices {
		if slices.Contains(s.Members, d.ID) {
			free -= s.Size
		}
	}
	return free
}

// Unused is the sum of what is free on all disks, in bytes.
func (l Layout) Unused() storage.Bytes {
	var sum storage.Bytes
	for _, d := range l.Disks {
		sum += l.Free(d)
	}
	return sum
}

// Survives is how many disks the pool may lose without losing data: that of its weakest slice.
func (l Layout) Survives() int {
	least := l.Policy.Tolerance
	for _, s := range l.Slices {
		least = min(least, s.Survives())
	}
	if len(l.Slices) == 0 {
		return 0
	}
	return least
}

// usable is what slices may have of a disk of size bytes.
func (p Policy) usable(size storage.Bytes) storage.Bytes {
	size = max(0, size-p.Reserve)
	if p.Reserve > 0 {
		size -= size % alignment
	}
	return size
}

// level is what n members of a new slice become; ok is false where they stay free.
func (p Policy) level(n int) (level Level, ok bool) {
	switch {
	case p.Tolerance == 1 && n == 2:
		return RAID1, true
	case p.Tolerance == 1 && n > 2:
		return RAID5, true
	case p.Tolerance == 2 && n == 3 && p.ThreeWayMirror:
		return RAID1, true
	case p.Tolerance == 2 && n > 3:
		return RAID6, true
	default:
		return "", false
	}
}

// fewest is how many disks a pool under the policy needs to be protected as it says.
func (p Policy) fewest() int {
	switch {
	case p.Tolerance == 1:
		return 2
	case p.ThreeWayMirror:
		return 3
	default:
		return 4
	}
}

func (p Policy) check() error {
	switch {
	case p.Tolerance != 1 && p.Tolerance != 2:
		return fault.New(fault.Invalid, "tolerance %d: a layout survives the loss of 1 or of 2 disks", p.Tolerance)
	case p.ThreeWayMirror && p.Tolerance == 1:
		return fault.New(fault.Invalid, "three-way mirrors are for tolerance 2; one loss needs two copies")
	case p.Reserve < 0:
		return fault.New(fault.Invalid, "reserve %d is negative", p.Reserve)
	case p.Bays < 0:
		return fault.New(fault.Invalid, "%d bays: want a number, or 0 for enough", p.Bays)
	}
	return nil
}

func (p Policy) checkDisks(disks []Disk) error {
	if len(disks) == 0 {
		return fault.New(fault.Invalid, "a layout needs a disk")
	}
	if len(disks) > MaxDisks {
		return fault.New(fault.Range, "%d disks: a pool has at most %d", len(disks), MaxDisks)
	}
	if p.Bays > 0 && len(disks) > p.Bays {
		return fault.New(fault.Range, "%d disks do not fit into %d bays", len(disks), p.Bays)
	}
	seen := map[string]bool{}
	for _, d := range disks {
		switch {
		case d.ID == "":
			return fault.New(fault.Invalid, "a disk has no id")
		case seen[d.ID]:
			return fault.New(fault.Invalid, "disk %s stands there twice", d.ID)
		case d.Size <= 0 || d.Size > maxSize:
			return fault.New(fault.Range, "disk %s: a size of %d bytes; want 1 byte to 1 PiB", d.ID, d.Size)
		case p.usable(d.Size) <= 0:
			return fault.New(fault.Range, "disk %s: %s leave nothing above the reserve of %s", d.ID, d.Size.Decimal(), p.Reserve)
		}
		seen[d.ID] = true
	}
	return nil
}

// Fresh lays out disks that hold nothing. One disk alone becomes a pool without protection; with more of
// them, but fewer than the policy needs, the layout has no slices and a capacity of 0.
func Fresh(disks []Disk, p Policy) (Layout, error) {
	if err := p.check(); err != nil {
		return Layout{}, err
	}
	if err := p.checkDisks(disks); err != nil {
		return Layout{}, err
	}
	l := Layout{Policy: p, Disks: slices.Clone(disks), Slices: []Slice{}}
	if len(disks) == 1 {
		l.Slices = append(l.Slices, Slice{Size: p.usable(disks[0].Size), Level: Single, Members: []string{disks[0].ID}})
		return l, nil
	}
	l.Slices = append(l.Slices, l.cut(false)...)
	return l, nil
}

// stacked reports whether the disk is in all slices below the one of index i.
func (l Layout) stacked(d Disk, i int) bool {
	for _, below := range l.Slices[:i] {
		if !slices.Contains(below.Members, d.ID) {
			return false
		}
	}
	return true
}

// room is what the disk has for new slices, in bytes; with stacked, none unless it is in all there are.
func (l Layout) room(d Disk, stacked bool) storage.Bytes {
	if stacked && !l.stacked(d, len(l.Slices)) {
		return 0
	}
	return l.Free(d)
}

// cut makes slices of what is free: one between each two successive heights, over all disks that are
// at least so tall.
func (l Layout) cut(stacked bool) []Slice {
	var heights []storage.Bytes
	for _, d := range l.Disks {
		if free := l.room(d, stacked); free > 0 {
			heights = append(heights, free)
		}
	}
	slices.Sort(heights)
	var made []Slice
	var bottom storage.Bytes
	for _, top := range slices.Compact(heights) {
		var members []string
		for _, d := range l.Disks {
			if l.room(d, stacked) >= top {
				members = append(members, d.ID)
			}
		}
		level, ok := l.Policy.level(len(members))
		if !ok {
			break // what is higher has fewer members still
		}
		made = append(made, Slice{Size: top - bottom, Level: level, Members: members})
		bottom = top
	}
	return made
}

// disk finds a disk by its id.
func (l Layout) disk(id string) (Disk, error) {
	for _, d := range l.Disks {
		if d.ID == id {
			return d, nil
		}
	}
	return Disk{}, fault.New(fault.NotFound, "disk %s is not in the pool", id)
}

// clone copies what a step changes.
func (l Layout) clone() Layout {
	l.Disks, l.Slices = slices.Clone(l.Disks), slices.Clone(l.Slices)
	for i := range l.Slices {
		l.Slices[i].Members = slices.Clone(l.Slices[i].Members)
	}
	return l
}

// Shortfall says why the pool is not protected as the policy asks, "" if it is.
func (l Layout) Shortfall() string {
	switch {
	case l.Survives() >= l.Policy.Tolerance:
		return ""
	case len(l.Disks) < l.Policy.fewest():
		return fmt.Sprintf("%d disks: to survive the loss of %d it takes %d", len(l.Disks), l.Policy.Tolerance, l.Policy.fewest())
	default:
		return fmt.Sprintf("a slice survives the loss of %d disks, not of %d", l.Survives(), l.Policy.Tolerance)
	}
}
