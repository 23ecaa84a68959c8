package layout

import (
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Kinds of operations.
const (
	OpReplace = "replace" // a member is copied to another disk while it serves (mdadm --replace --with)
	OpRecover = "recover" // a new member is filled from the others
	OpReshape = "reshape" // members join and data and parity are spread anew, online
	OpCreate  = "create"  // a new array with its first sync
	OpWiden   = "widen"   // the slice of a pool's only disk takes the rest of it (mdadm --grow --size=max)
	OpExtend  = "extend"  // volume group, logical volume and what is on it take the new space
)

// Operation is what md or LVM does to one slice, in one pass or none.
type Operation struct {
	Kind    string        `json:"kind"`
	Slice   int           `json:"slice,omitempty"` // from 1, from the bottom
	From    Level         `json:"from,omitempty"`
	To      Level         `json:"to,omitempty"`
	Members int           `json:"members,omitempty"` // afterwards
	Sync    storage.Bytes `json:"sync_bytes"`        // the array's component size for each pass
	Passes  int           `json:"passes"`
	Skipped bool          `json:"sync_skipped,omitempty"` // the disks are known to be zeroed
	// Joins are the disks that become members, in their order; Leaves is the one that is replaced.
	Joins  []string `json:"joins,omitempty"`
	Leaves string   `json:"leaves,omitempty"`
	// Survives is how many disks the slice may lose meanwhile without losing data that is in the pool.
	Survives  int  `json:"redundancy"`
	WriteHole bool `json:"write_hole,omitempty"`
}

// String says the operation in a line.
func (o Operation) String() string {
	switch o.Kind {
	case OpWiden:
		return fmt.Sprintf("widen slice %d to the end of the disk; no sync, there is one member", o.Slice)
	case OpExtend:
		return "extend volume group, logical volume and file system or OSD"
	case OpCreate:
		if o.Skipped {
			return fmt.Sprintf("create slice %d: %s of %d; no sync, the disks are zeroed", o.Slice, o.To, o.Members)
		}
		return fmt.Sprintf("create slice %d: %s of %d, first sync of %s", o.Slice, o.To, o.Members, o.Sync.Decimal())
	case OpReshape:
		return fmt.Sprintf("reshape slice %d: %s to %s of %d, %s", o.Slice, o.From, o.To, o.Members, o.Sync.Decimal())
	case OpReplace:
		return fmt.Sprintf("replace a member of slice %d (%s of %d) while it serves, %s", o.Slice, o.To, o.Members, o.Sync.Decimal())
	default:
		return fmt.Sprintf("recover slice %d: %s of %d, %s", o.Slice, o.To, o.Members, o.Sync.Decimal())
	}
}

// join is how a slice takes in more members: nothing where it cannot.
//
// md reshapes a mirror of two to RAID5 of any number in one pass, RAID5 to a wider RAID5 and RAID6 to
// a wider RAID6 likewise (measured on Linux 6.1, mdadm 4.2). Only a mirror of exactly two becomes a RAID5
// (mdadm's Grow.c, analyse_change), so a mirror of three stays one: to give up a copy first would
// lower its redundancy.
func (p Policy) join(s Slice, more int) []Operation {
	n := len(s.Members) + more
	reshape := Operation{Kind: OpReshape, From: s.Level, To: s.Level, Members: n, Sync: s.Size, Passes: 1, Survives: s.Survives(), WriteHole: true}
	switch {
	case s.Level == RAID5 || s.Level == RAID6:
		return []Operation{reshape}
	case s.Level == RAID1 && p.Tolerance == 1:
		reshape.To = RAID5
		return []Operation{reshape}
	case s.Level == Single:
		return p.protect(s, n)
	default:
		return nil
	}
}

// protect is how a single grows to n members: a second copy first, as soon as possible, then the rest.
// RAID6 takes a pass more: md's RAID6 has four members or more, so a mirror becomes a RAID5 of three before (tried
// on Linux 6.1 with mdadm 4.2: from two "could not set level to raid6", from three to four or five one
// reshape without a backup file).
func (p Policy) protect(s Slice, n int) []Operation {
	level, ok := p.level(n)
	if !ok {
		return nil
	}
	mirror := Operation{Kind: OpRecover, From: Single, To: RAID1, Members: n, Sync: s.Size, Passes: 1}
	if level == RAID1 {
		return []Operation{mirror}
	}
	mirror.Members = 2
	reshape := Operation{Kind: OpReshape, From: RAID1, To: RAID5, Members: n, Sync: s.Size, Passes: 1, Survives: 1, WriteHole: true}
	if level == RAID5 {
		return []Operation{mirror, reshape}
	}
	last := reshape
	reshape.Members, last.From, last.To = 3, RAID5, RAID6
	return []Operation{mirror, reshape, last}
}
