// Package edit reads whole partition tables and makes partitions larger: GPT by a library, whose traps it guards, and MBR
// with its logical partitions. What is changed is written to where the caller says: a device, or an
// overlay of an image. It knows nothing of what is in a partition.
package edit

import (
	"fmt"
	"io"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Kind is a form of partition tables.
type Kind string

// Kinds of tables.
const (
	GPT Kind = "gpt"
	MBR Kind = "mbr"
)

// Partition is a partition; Start and Size are bytes.
type Partition struct {
	Number   int    `json:"number"` // as Linux counts: logical ones from 5 on
	Start    int64  `json:"start_bytes"`
	Size     int64  `json:"size_bytes"`
	Type     string `json:"type"` // GPT: a UUID; MBR: two hexadecimal digits
	Name     string `json:"name,omitempty"`
	UUID     string `json:"uuid,omitempty"`
	Boot     bool   `json:"boot,omitempty"`
	Extended bool   `json:"extended,omitempty"` // holds the logical ones
	Logical  bool   `json:"logical,omitempty"`

	begins int64 // where what belongs to it begins, in bytes: of a logical one, its record, which may lie well before Start
}

// first is the first byte that another partition must leave alone.
func (p Partition) first() int64 {
	if p.Logical {
		return min(p.begins, p.Start)
	}
	return p.Start
}

// End is the first byte behind it.
func (p Partition) End() int64 { return p.Start + p.Size }

// Table is a disk's partition table. Partitions are in the order of their places on the disk.
type Table struct {
	Kind       Kind        `json:"kind"`
	SectorSize int64       `json:"sector_size_bytes"`
	DiskSize   int64       `json:"disk_size_bytes"`
	Usable     int64       `json:"usable_end_bytes"` // partitions end here at the latest
	Partitions []Partition `json:"-"`
	// Trouble is what is wrong with the table and is mended when it is written: a backup that is not at the end of the disk.
	Trouble []string `json:"trouble,omitempty"`
}

// alignment is what begins and ends of partitions are rounded to, in bytes.
const alignment = 1 << 20

// Read reads the table of a disk of size bytes: fault.NotFound without one, fault.Invalid if it is damaged.
func Read(disk io.ReaderAt, size int64) (*Table, error) {
	sector := make([]byte, mbrSize)
	if size < 2*alignment {
		return nil, fault.New(fault.NotFound, "a disk of %d bytes has no partitions", size)
	}
	if _, err := disk.ReadAt(sector, 0); err != nil {
		return nil, fmt.Errorf("read sector 0: %w", err)
	}
	gptSector, err := findGPT(disk, size)
	switch {
	case err != nil:
		return nil, err
	case gptSector > 0:
		return readGPT(disk, size, gptSector)
	case !hasMBR(sector):
		return nil, fault.New(fault.NotFound, "the disk has no partition table")
	case protective(sector):
		// A library that took this for an MBR would see one partition over the whole disk.
		return nil, fault.New(fault.Invalid, "sector 0 says that there is a GPT, and neither copy of it is whole: mend it with `gdisk` first")
	}
	return readMBR(disk, size, sector)
}

// Find returns the partition with a number; 0 is the last one on the disk that is no container.
func (t *Table) Find(number int) (Partition, error) {
	for _, p := range slices.Backward(t.Partitions) {
		if number == p.Number || number == 0 && !p.Extended {
			return p, nil
		}
	}
	if number == 0 {
		return Partition{}, fault.New(fault.NotFound, "the table has no partitions")
	}
	return Partition{}, fault.New(fault.NotFound, "there is no partition %d", number)
}

// room is where a partition can end at most, in bytes: at the next one, or at the end of the disk.
func (t *Table) room(p Partition) (int64, error) {
	end := t.Usable
	for _, other := range t.Partitions {
		if other.Number == p.Number || other.Extended && p.Logical {
			continue
		}
		if other.Start >= p.End() {
			end = min(end, other.first())
		}
	}
	end = end / alignment * alignment
	if end <= p.End() {
		for _, other := range t.Partitions {
			if other.Start >= p.End() && other.first()-p.End() < alignment {
				return 0, fault.New(fault.Precondition, "partition %d has no room to grow: partition %d begins where it ends", p.Number, other.Number)
			}
		}
		return p.End(), nil
	}
	return end, nil
}

// Device is what a table is read from and written to.
type Device interface {
	io.ReaderAt
	io.WriterAt
}

// Mend writes both copies of a GPT of which one is damaged or at another place than the disk's end, on a disk of size bytes. It is to be
// done before a disk gets larger: the only good copy may be the one at its end.
func Mend(disk Device, size int64) error {
	t, err := Read(disk, size)
	if err != nil || t.Kind != GPT || len(t.Trouble) == 0 {
		return err
	}
	return growGPT(disk, t, Partition{}, 0)
}

// Grow writes a table in which the partition with a number ends as late as it can on a disk of size bytes, and returns
// it. An MBR's container grows with the last logical partition. With nothing to change nothing is written.
func Grow(disk Device, size int64, number int) (*Table, error) {
	t, err := Read(disk, size)
	if err != nil {
		return nil, err
	}
	p, err := t.Find(number)
	if err != nil {
		return nil, err
	}
	if p.Extended {
		return nil, fault.New(fault.Invalid, "partition %d is the container of the logical ones: name one of those, and it grows with it", p.Number)
	}
	end, err := t.room(p)
	if err != nil {
		return nil, err
	}
	if t.Kind == GPT {
		err = growGPT(disk, t, p, end)
	} else {
		err = growMBR(disk, t, p, end)
	}
	if err != nil {
		return nil, err
	}
	return Read(disk, size)
}

func sortByPlace(list []Partition) {
	slices.SortStableFunc(list, func(a, b Partition) int { return int(max(-1, min(1, a.Start-b.Start))) })
}
