package edit

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// An MBR has four entries; one may be a container, which begins with a record of two entries: a logical
// partition, counted from the record, and the next record, counted from the container's begin.
const (
	mbrSize    = 512
	atEntries  = 446
	entrySize  = 16
	atBoot     = 0
	atType     = 4
	atStart    = 8
	atSectors  = 12
	atMark     = 510
	typeGPT    = 0xee
	mostLogic  = 128 // a longer chain is damaged
	firstLogic = 5
)

func hasMBR(sector []byte) bool { return sector[atMark] == 0x55 && sector[atMark+1] == 0xaa }

// protective reports whether an entry says that there is a GPT.
func protective(sector []byte) bool {
	for n := range 4 {
		if sector[atEntries+n*entrySize+atType] == typeGPT {
			return true
		}
	}
	return false
}

// container reports whether a type is that of one that holds logical partitions: DOS, LBA and Linux.
func container(kind byte) bool { return kind == 0x05 || kind == 0x0f || kind == 0x85 }

// slot is an entry of a record: sectors.
type slot struct {
	kind, boot     byte
	start, sectors int64
}

func slotAt(sector []byte, n int) slot {
	e := sector[atEntries+n*entrySize:]
	return slot{e[atType], e[atBoot], int64(binary.LittleEndian.Uint32(e[atStart:])), int64(binary.LittleEndian.Uint32(e[atSectors:]))}
}

// setSectors changes the length of an entry. The end as cylinder, head and sector becomes the value that says that it is
// too large for that (UEFI 2.10, section 5.2.1).
func setSectors(sector []byte, n int, sectors int64) {
	e := sector[atEntries+n*entrySize:]
	copy(e[5:8], []byte{0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[atSectors:], uint32(sectors))
}

func (s slot) partition(number int, base int64) Partition {
	return Partition{
		Number: number, Start: (base + s.start) * mbrSize, Size: s.sectors * mbrSize, Type: fmt.Sprintf("%02x", s.kind),
		Boot: s.boot == 0x80, Extended: container(s.kind),
	}
}

// readMBR reads the table in sector and its logical partitions. Sectors have 512 bytes: on others an MBR is not in use.
func readMBR(disk io.ReaderAt, size int64, sector []byte) (*Table, error) {
	t := &Table{Kind: MBR, SectorSize: mbrSize, DiskSize: size, Usable: min(size/mbrSize, math.MaxUint32) * mbrSize}
	for n := range 4 {
		s := slotAt(sector, n)
		if s.kind == 0 || s.sectors == 0 {
			continue
		}
		p := s.partition(n+1, 0)
		if p.End() > size {
			return nil, fault.New(fault.Invalid, "entry %d of the partition table ends at byte %d, and the disk has %d: the disk was cut off, or has sectors of another size", n+1, p.End(), size)
		}
		t.Partitions = append(t.Partitions, p)
		if p.Extended {
			logical, err := readLogical(disk, s)
			if err != nil {
				return nil, err
			}
			t.Partitions = append(t.Partitions, logical...)
		}
	}
	sortByPlace(t.Partitions)
	return t, nil
}

// readLogical follows the chain of records in a container.
func readLogical(disk io.ReaderAt, in slot) (list []Partition, err error) {
	for at := in.start; ; {
		record, err := readRecord(disk, at)
		if err != nil {
			return nil, err
		}
		if s := slotAt(record, 0); s.kind != 0 && s.sectors > 0 {
			p := s.partition(firstLogic+len(list), at)
			p.Logical, p.begins = true, at*mbrSize
			if p.End() > (in.start+in.sectors)*mbrSize {
				return nil, fault.New(fault.Invalid, "logical partition %d (record at sector %d) ends behind its container", p.Number, at)
			}
			list = append(list, p)
		}
		next := slotAt(record, 1)
		if next.kind == 0 || next.sectors == 0 {
			return list, nil
		}
		if next.start == 0 || next.start >= in.sectors || len(list) > mostLogic || in.start+next.start <= at {
			return nil, fault.New(fault.Invalid, "the record of logical partitions at sector %d leads to sector %d, which is before it or not in the container", at, in.start+next.start)
		}
		at = in.start + next.start
	}
}

func readRecord(disk io.ReaderAt, at int64) ([]byte, error) {
	record := make([]byte, mbrSize)
	if _, err := disk.ReadAt(record, at*mbrSize); err != nil {
		return nil, fmt.Errorf("read the record of logical partitions at sector %d: %w", at, err)
	}
	if !hasMBR(record) {
		return nil, fault.New(fault.Invalid, "sector %d should be a record of logical partitions, and has no mark (55 aa) at its end", at)
	}
	return record, nil
}

// growMBR makes a partition end at a byte: a primary one, or a logical one with what holds it.
func growMBR(disk Device, t *Table, p Partition, end int64) error {
	if end == p.End() {
		return nil
	}
	sectors := (end - p.Start) / mbrSize
	if sectors > math.MaxUint32 || end/mbrSize > math.MaxUint32 {
		return fault.New(fault.Range, "partition %d would end behind 2 TiB, which an MBR cannot say", p.Number)
	}
	if p.Logical {
		return growLogical(disk, t, p, end)
	}
	return changeRecord(disk, 0, p.Number-1, sectors)
}

// changeRecord gives entry n of the record at a sector another length.
func changeRecord(disk Device, at int64, n int, sectors int64) error {
	record, err := readRecord(disk, at)
	if err != nil {
		return err
	}
	setSectors(record, n, sectors)
	if _, err := disk.WriteAt(record, at*mbrSize); err != nil {
		return fmt.Errorf("write the partition table at sector %d: %w", at, err)
	}
	return nil
}

// growLogical makes the container larger first, then what leads to the partition's record, then the partition: cut off, each
// stays within what holds it.
func growLogical(disk Device, t *Table, p Partition, end int64) error {
	for _, outer := range t.Partitions {
		if !outer.Extended || outer.Start > p.Start || outer.End() < p.End() {
			continue
		}
		if end > outer.End() {
			if err := changeRecord(disk, 0, outer.Number-1, (end-outer.Start)/mbrSize); err != nil {
				return err
			}
		}
		return growInChain(disk, outer.Start/mbrSize, p, end)
	}
	return fault.New(fault.Invalid, "partition %d is in no container", p.Number)
}

func growInChain(disk Device, first int64, p Partition, end int64) error {
	for at, before := first, int64(-1); ; {
		record, err := readRecord(disk, at)
		if err != nil {
			return err
		}
		if s := slotAt(record, 0); (at+s.start)*mbrSize == p.Start && s.sectors > 0 {
			if before >= 0 {
				if err := changeRecord(disk, before, 1, end/mbrSize-at); err != nil {
					return err
				}
			}
			return changeRecord(disk, at, 0, (end-p.Start)/mbrSize)
		}
		before, at = at, first+slotAt(record, 1).start
		if at <= before {
			return fault.New(fault.Invalid, "the chain of logical partitions ends before partition %d", p.Number)
		}
	}
}
