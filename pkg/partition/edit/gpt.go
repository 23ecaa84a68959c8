package edit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Offsets of a GPT header's fields (UEFI 2.10, section 5.3.2).
const (
	atMine      = 24
	atOther     = 32
	atCount     = 80
	atEntrySize = 84
)

// maxTable bounds the entries, in bytes. The library allocates what the header says.
const maxTable = 1 << 20

// findGPT returns the size of the sectors by which there is a GPT, 0 without one: its first sector is the second of
// the disk, or only the backup in the last one is left.
func findGPT(disk io.ReaderAt, size int64) (found int64, err error) {
	for _, sector := range []int64{512, 4096} {
		for _, at := range []int64{sector, size/sector*sector - sector} {
			header := make([]byte, 512)
			if n, err := disk.ReadAt(header, at); n < len(header) {
				return 0, fmt.Errorf("read sector %d: %w", at/sector, err)
			}
			if !bytes.HasPrefix(header, []byte("EFI PART")) {
				continue
			}
			// The library allocates what either copy says, before it looks at checksums.
			le := binary.LittleEndian
			if count, each := le.Uint32(header[atCount:]), le.Uint32(header[atEntrySize:]); each != gpt.PartitionEntrySize || uint64(count)*uint64(each) > maxTable {
				return 0, fault.New(fault.Invalid, "the GPT at byte %d says that it has %d entries of %d bytes: entries have %d, and at most %d are known", at, count, each, gpt.PartitionEntrySize, maxTable/gpt.PartitionEntrySize)
			}
			if mine := le.Uint64(header[atMine:]); mine != uint64(at/sector) {
				continue // of the other sector size, or left over
			}
			found = sector
		}
		if found > 0 {
			return found, nil
		}
	}
	return 0, nil
}

func readGPT(disk io.ReaderAt, size, sector int64) (*Table, error) {
	file := &file{ReaderAt: disk, size: size}
	read, err := gpt.Read(file, int(sector), int(sector))
	if err != nil {
		return nil, fault.New(fault.Invalid, "the GPT is damaged, and so is its backup: %v", err)
	}
	t := &Table{Kind: GPT, SectorSize: sector, DiskSize: size}
	if read.RecoveredFromBackup {
		t.Trouble = append(t.Trouble, "the first GPT is damaged: this is its backup")
	} else if err := read.Verify(file, uint64(size)); err != nil { // Read does not look at the backup
		t.Trouble = append(t.Trouble, "the backup GPT is not at the end of the disk, or is damaged")
	}
	// A copy: what the partitions may use follows from where the backup will be.
	read.Resize(uint64(size))
	t.Usable = (int64(read.LastDataSector()) + 1) * sector
	for _, p := range read.Partitions {
		if p.Type == gpt.Unused || p.End < p.Start {
			continue
		}
		part := Partition{
			Number: p.Index, Start: int64(p.Start) * sector, Size: int64(p.End-p.Start+1) * sector,
			Type: string(p.Type), Name: p.Name, UUID: p.GUID,
		}
		if p.End >= uint64(size)/uint64(sector) {
			return nil, fault.New(fault.Invalid, "partition %d ends at sector %d, and the disk has %d", p.Index, p.End, size/sector)
		}
		t.Partitions = append(t.Partitions, part)
	}
	sortByPlace(t.Partitions)
	return t, nil
}

// growGPT writes both copies, the backup at the end of the disk, with a partition that ends at a byte.
func growGPT(disk Device, t *Table, p Partition, end int64) error {
	if end == p.End() && len(t.Trouble) == 0 {
		return nil
	}
	f := &file{ReaderAt: disk, WriterAt: disk, size: t.DiskSize}
	table, err := gpt.Read(f, int(t.SectorSize), int(t.SectorSize))
	if err != nil {
		return fault.New(fault.Invalid, "the GPT is damaged, and so is its backup: %v", err)
	}
	table.Resize(uint64(t.DiskSize))
	table.ProtectiveMBR = false // the library's wraps at 2 TiB, and takes a hybrid one away
	for _, entry := range table.Partitions {
		if entry.Index == p.Number {
			entry.Expand(uint64((end - p.End()) / t.SectorSize))
		}
	}
	if err := table.Write(f, t.DiskSize); err != nil {
		return fmt.Errorf("write the GPT: %w", err)
	}
	return protect(disk, t.DiskSize/t.SectorSize-1)
}

// protect makes the protective entry of sector 0, if it is the only one, cover all sectors of the disk but that one.
func protect(disk Device, sectors int64) error {
	record, err := readRecord(disk, 0)
	if err != nil {
		return err
	}
	if s := slotAt(record, 0); s.kind != typeGPT || slotAt(record, 1).kind != 0 {
		return nil
	}
	setSectors(record, 0, min(sectors, math.MaxUint32))
	if _, err := disk.WriteAt(record, 0); err != nil {
		return fmt.Errorf("write sector 0: %w", err)
	}
	return nil
}

// file is a disk as the library wants it.
type file struct {
	io.ReaderAt
	io.WriterAt
	size, at int64
}

var errNoFile = errors.New("this is no file")

// Stat implements fs.File; the library asks for the size by Seek.
func (f *file) Stat() (fs.FileInfo, error) { return nil, errNoFile }

// Read implements io.Reader.
func (f *file) Read(p []byte) (int, error) {
	if f.at >= f.size {
		return 0, io.EOF
	}
	n, err := f.ReadAt(p[:min(int64(len(p)), f.size-f.at)], f.at)
	f.at += int64(n)
	return n, err
}

// Seek implements io.Seeker.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.size
	}
	f.at = offset
	return offset, nil
}

// Close does nothing: the disk is the caller's.
func (f *file) Close() error { return nil }
