// Package stack says what a layout is on real disks (partitions, md arrays, an LVM volume group with one
// logical volume, a file system or an OSD) and plans how such a storage stack is made and grown. It is pure: the plan it
// returns holds every name, size and offset, so that package live, which executes it, has nothing to choose.
//
// Invariant: a Stack says exactly what is on its disks; the plan that was made from it holds its hash.
//
// It must not import what looks at a machine.
package stack

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// What a stack takes beside data, in bytes.
const (
	// Head is what md has at the start of each member: superblock, bitmap or partial parity log, and the room by which
	// a reshape moves the data instead of needing a backup file (mdadm(8), --data-offset). A reshape took
	// 0.22 MiB of it (Linux 6.1, mdadm 4.2, chunks of 64 KiB, four disks to five): about one stripe.
	Head = 16 * storage.MiB
	// Edge is what partition tables have at each end of a disk, rounded up to the alignment.
	Edge = storage.MiB
	// Extent is LVM's, its default.
	Extent = 4 * storage.MiB
	// PVHead is what LVM has at the start of an array, its default.
	PVHead = storage.MiB
)

// Chunk is that of RAID5 and RAID6: what a mirror that is reshaped gets (mdadm's Grow.c: 64 KiB at most).
const Chunk = 64 * storage.KiB

// maxPartitions is what a GPT of the usual size has room for (UEFI 2.10, 5.3.2).
const maxPartitions = 128

// Consistency is how an array keeps its copies or parity right over a crash (md(4), sysfs consistency_policy).
type Consistency string

// The policies.
const (
	Resync Consistency = "resync" // everything is synced after a crash
	Bitmap Consistency = "bitmap" // only what was being written; a disk that comes back gets what it missed
	PPL    Consistency = "ppl"    // partial parity log: closes the write hole of RAID5
)

// consistency is what arrays of a level have outside of reshapes.
func consistency(level layout.Level) Consistency {
	switch level {
	case layout.Single:
		return Resync // one member has nothing to be in sync with, and a bitmap would forbid to widen it
	case layout.RAID5:
		return PPL
	default:
		return Bitmap
	}
}

// Partition is a slice's part of a disk.
type Partition struct {
	Disk   plan.DiskID   `json:"disk"`
	Number int           `json:"number"` // in the table, from 1
	Slice  int           `json:"slice"`  // from 1
	Start  storage.Bytes `json:"start_bytes"`
	Size   storage.Bytes `json:"size_bytes"`
	UUID   string        `json:"uuid"` // of the partition, as in the table, lower case
	Name   string        `json:"name"` // in the table, at most 36 characters
}

// Array is a slice's md array.
type Array struct {
	Name        string        `json:"name"` // /dev/md/NAME
	UUID        string        `json:"uuid"`
	Level       layout.Level  `json:"level"`
	Size        storage.Bytes `json:"component_size_bytes"` // of each member's data
	Members     []Partition   `json:"members"`
	Consistency Consistency   `json:"consistency"`
}

// Capacity is what the array holds, in bytes.
func (a Array) Capacity() storage.Bytes {
	return layout.Slice{Size: a.Size, Level: a.Level, Members: make([]string, len(a.Members))}.Capacity()
}

// Usable is what LVM makes of the array, in bytes: whole extents.
func (a Array) Usable() storage.Bytes {
	return (a.Capacity() - PVHead) / Extent * Extent
}

// Volume is what lies on top.
type Volume struct {
	Group      string `json:"group"`                 // LVM volume group
	Name       string `json:"name"`                  // logical volume
	FileSystem string `json:"file_system,omitempty"` // ext4 or xfs; "" leaves the volume as it is
	MountPoint string `json:"mount_point,omitempty"`
	OSD        *OSD   `json:"osd,omitempty"` // in place of a file system
}

// OSD is one that lies on the volume and grows with it.
type OSD struct {
	UUID  string `json:"uuid"`            // New derives it
	Class string `json:"class,omitempty"` // device class; "" lets Ceph choose
}

// Disk is a disk of a stack.
type Disk struct {
	ID   plan.DiskID   `json:"id"`
	Size storage.Bytes `json:"size_bytes"`
	GUID string        `json:"guid"` // of its partition table, lower case
}

// Stack is a layout on disks.
type Stack struct {
	Name string `json:"name"`
	UUID string `json:"uuid"`
	// Generation counts the plans. It is in the UUIDs of what a plan makes, so a disk that left and comes back is not
	// taken for what it was.
	Generation int           `json:"generation"`
	Layout     layout.Layout `json:"layout"`
	Disks      []Disk        `json:"disks"`
	Arrays     []Array       `json:"arrays"` // one a slice, in the layout's order
	Volume     Volume        `json:"volume"`
}

// Capacity is what the logical volume holds, in bytes.
func (s Stack) Capacity() storage.Bytes {
	var sum storage.Bytes
	for _, a := range s.Arrays {
		sum += a.Usable()
	}
	return sum
}

// Parse reads a stack, such as a plan's state afterwards.
func Parse(data []byte) (Stack, error) {
	var s Stack
	if err := json.Unmarshal(data, &s); err != nil {
		return Stack{}, fault.New(fault.Invalid, "read stack: %w", err)
	}
	return s, nil
}

// During is what may be there while a plan runs: its stack afterwards, together with the disks that leave by it.
func During(p plan.Plan) (Stack, error) {
	s, err := Parse(p.State)
	for _, d := range p.Disks {
		if d.Use == plan.Release {
			s.Disks = append(s.Disks, Disk{ID: d.ID, Size: d.Size})
		}
	}
	return s, err
}

// derive makes a UUID out of the stack's own and of what it is for, so that a plan is the same whenever it is
// computed. Its form is version 8 of RFC 9562.
func (s Stack) derive(what string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%s", s.UUID, s.Generation, what))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	t := hex.EncodeToString(sum[:16])
	return t[:8] + "-" + t[8:12] + "-" + t[12:16] + "-" + t[16:20] + "-" + t[20:]
}

// partitions lists what the stack has on a disk, in the order of the table.
func (s Stack) partitions(disk plan.DiskID) []Partition {
	var list []Partition
	for _, a := range s.Arrays {
		for _, m := range a.Members {
			if m.Disk == disk {
				list = append(list, m)
			}
		}
	}
	slices.SortFunc(list, func(x, y Partition) int { return x.Number - y.Number })
	return list
}

// place is where a slice's partition goes on a disk: behind those that are there.
func (s Stack) place(disk plan.DiskID, slice int, size storage.Bytes) Partition {
	p := Partition{
		Disk: disk, Number: 1, Slice: slice, Start: Edge, Size: size + Head,
		UUID: s.derive(fmt.Sprintf("partition/%s/%d", disk, slice)), Name: fmt.Sprintf("hf-%s-%d", s.Name, slice),
	}
	if before := s.partitions(disk); len(before) > 0 {
		last := before[len(before)-1]
		p.Number, p.Start = last.Number+1, last.Start+last.Size
	}
	return p
}

// fits checks what the layout left for the stack's own needs on each disk.
func (s Stack) fits() error {
	for _, d := range s.Disks {
		there := s.partitions(d.ID)
		if len(there) > maxPartitions {
			return fault.New(fault.Range, "disk %s: %d partitions, a partition table has room for %d", d.ID, len(there), maxPartitions)
		}
		if len(there) == 0 {
			continue
		}
		if last := there[len(there)-1]; last.Start+last.Size > d.Size-Edge {
			return fault.New(fault.Range, "disk %s: %d slices need %s beside their data, the reserve of %s does not leave it", d.ID, len(there),
				Head*storage.Bytes(len(there))+2*Edge, s.Layout.Policy.Reserve)
		}
	}
	return nil
}

// nameForm is what volume groups, arrays and partitions can all be called (lvm(8): letters, digits, + _ . -; md's
// names have at most 32 characters with the prefix and the slice's number).
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9]{0,15}$`)

func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return fault.New(fault.Invalid, "stack name %q: want a lower-case letter, then at most 15 letters and digits", name)
	}
	return nil
}

func checkVolume(v Volume) error {
	switch v.FileSystem {
	case "ext4", "xfs", "":
	default:
		return fault.New(fault.Invalid, "file system %q: want ext4 or xfs, or none", v.FileSystem)
	}
	if v.OSD != nil && v.FileSystem != "" {
		return fault.New(fault.Invalid, "a volume carries an OSD or %s, not both", v.FileSystem)
	}
	if v.FileSystem == "" && v.MountPoint != "" {
		return fault.New(fault.Invalid, "mount point %s: there is no file system to mount", v.MountPoint)
	}
	return nil
}

// clone copies what planning changes.
func (s Stack) clone() Stack {
	s.Disks, s.Arrays = slices.Clone(s.Disks), slices.Clone(s.Arrays)
	for i := range s.Arrays {
		s.Arrays[i].Members = slices.Clone(s.Arrays[i].Members)
	}
	return s
}
