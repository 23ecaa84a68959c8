package vmdk

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

const (
	grainSectors = 128                       // grains of 64 KiB, as VMware makes them
	grainBytes   = grainSectors * SectorSize //
	// descriptorSectors is how much room VMware leaves for the descriptor.
	descriptorSectors = 20
	tableSectors      = tableEntries * 4 / SectorSize
	// maxSparse keeps grains' offsets, sectors in 32 bits, within what can be written: 2 TiB of file.
	maxSparse = (1<<32 - 1) * SectorSize
)

// table is the grain table that is being filled: disks are written from the front to the end.
type table struct {
	number  int64 // -1: none
	entries [tableEntries]uint32
	used    bool
}

func (t *table) bytes() []byte {
	b := make([]byte, 4*tableEntries)
	for n, entry := range t.entries {
		binary.LittleEndian.PutUint32(b[4*n:], entry)
	}
	return b
}

// Sparse writes a monolithicSparse disk. Tables and directories are before the grains, twice, as VMware makes them.
type Sparse struct {
	out         io.WriterAt
	h           *header
	first, copy int64 // sectors of the tables and of their copies
	next        int64 // where the next grain goes, a sector
	table       table
}

// NewSparse begins a disk of size bytes in a new file of zeros; name is what the file will be called.
func NewSparse(out io.WriterAt, size int64, name string, cid uint32) (*Sparse, error) {
	h := freshHeader(1, flagRedundant, size/SectorSize)
	count := h.tables()
	directory := (4*count + SectorSize - 1) / SectorSize
	w := &Sparse{out: out, h: h, table: table{number: -1}}
	h.Redundant = 1 + descriptorSectors
	w.copy = int64(h.Redundant) + directory
	h.Directory = uint64(w.copy + count*tableSectors)
	w.first = int64(h.Directory) + directory
	h.Overhead = (w.first + count*tableSectors + grainSectors - 1) / grainSectors * grainSectors
	w.next = h.Overhead
	if (w.next+grainSectors)*SectorSize > maxSparse {
		return nil, fault.New(fault.Range, "a VMDK of %d bytes would have more metadata than fits into 2 TiB", size)
	}
	text := describe("monolithicSparse", "SPARSE", name, size, cid)
	if len(text) > descriptorSectors*SectorSize {
		return nil, fault.New(fault.Invalid, "the name %q is too long for the descriptor", name)
	}
	if _, err := out.WriteAt(text, SectorSize); err != nil {
		return nil, err
	}
	for _, d := range []struct{ at, tables int64 }{{int64(h.Redundant), w.copy}, {int64(h.Directory), w.first}} {
		if err := w.directory(d.at, d.tables, count); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// directory writes one whose tables follow each other.
func (w *Sparse) directory(at, tables, count int64) error {
	b := make([]byte, 4*count)
	for n := range count {
		binary.LittleEndian.PutUint32(b[4*n:], uint32(tables+n*tableSectors))
	}
	_, err := w.out.WriteAt(b, at*SectorSize)
	return err
}

// Pack implements the writer of a conversion: of a chunk it keeps the grains that are not zero.
func (w *Sparse) Pack(chunk []byte, pieces []content.Piece) []content.Piece {
	return content.Pack(chunk, grainBytes, pieces)
}

// Put implements the writer of a conversion.
func (w *Sparse) Put(off int64, pieces []content.Piece) error {
	for _, p := range pieces {
		first := (off + int64(p.At)) / grainBytes
		grains := int64(len(p.Data)+grainBytes-1) / grainBytes
		if (w.next+grains*grainSectors)*SectorSize > maxSparse {
			return fault.New(fault.Range, "the disk holds more than fits into a sparse VMDK of 2 TiB")
		}
		if _, err := w.out.WriteAt(p.Data, w.next*SectorSize); err != nil {
			return err
		}
		for n := first; n < first+grains; n++ {
			if err := w.turn(n / tableEntries); err != nil {
				return err
			}
			w.table.entries[n%tableEntries], w.table.used = uint32(w.next), true
			w.next += grainSectors
		}
	}
	return nil
}

// turn writes the table that is being filled, unless it is the one wanted.
func (w *Sparse) turn(number int64) error {
	if w.table.number == number {
		return nil
	}
	if w.table.used {
		b := w.table.bytes()
		for _, tables := range []int64{w.first, w.copy} {
			if _, err := w.out.WriteAt(b, (tables+w.table.number*tableSectors)*SectorSize); err != nil {
				return fmt.Errorf("write grain table %d: %w", w.table.number, err)
			}
		}
	}
	w.table = table{number: number}
	return nil
}

// Finish writes what is left, the header last, and returns how long the file is to be, in bytes.
func (w *Sparse) Finish() (int64, error) {
	if err := w.turn(-1); err != nil {
		return 0, err
	}
	_, err := w.out.WriteAt(w.h.sector(), 0)
	return w.next * SectorSize, err
}
