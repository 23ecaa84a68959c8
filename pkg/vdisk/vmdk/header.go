// Package vmdk reads, writes, checks and grows VMware's virtual disks (VMware: Virtual Disk Format 5.0). A disk is a
// descriptor, which is text, and extents, which are flat files or sparse ones. A sparse extent has grains, tables of
// 512 grains, and a directory of the tables. All offsets in its metadata are sectors of 512 bytes, and numbers are
// little-endian.
package vmdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// SectorSize is in bytes.
const SectorSize = 512

// Signatures at byte 0.
const (
	magicSparse = 0x564d444b // "KDMV": a hosted sparse extent
	magicCOWD   = 0x44574f43 // "COWD": a sparse extent of an ESX server
)

// Flags of a header.
const (
	flagNewline   = 1 << 0  // the four bytes that show a broken transfer are there
	flagRedundant = 1 << 1  // there is a second directory
	flagZeroed    = 1 << 2  // entry 1 of a table is a grain of zeros
	flagDeflated  = 1 << 16 // grains are compressed
	flagMarkers   = 1 << 17 // and have markers before them
)

const (
	tableEntries = 512                // of a hosted sparse extent
	directoryEnd = 0xffffffffffffffff // the directory's offset is in the footer
	deflate      = 1
	atNewlines   = 73
)

// Offsets of the header's fields, in bytes.
const (
	atVersion    = 4
	atFlags      = 8
	atCapacity   = 12
	atGrain      = 20
	atDescriptor = 28
	atDescSize   = 36
	atEntries    = 44
	atRedundant  = 48
	atDirectory  = 56
	atOverhead   = 64
	atUnclean    = 72
	atCompress   = 77
)

// header is that of a hosted sparse extent. All but Version, Flags and Entries are in sectors.
type header struct {
	Version, Flags             uint32
	Capacity, Grain            int64
	Descriptor, DescriptorSize int64
	Entries                    uint32
	Redundant, Directory       uint64
	Overhead                   int64
	Compression                uint16

	raw [SectorSize]byte
}

func (h *header) deflated() bool { return h.Flags&flagDeflated != 0 }

func (h *header) grainBytes() int64 { return h.Grain * SectorSize }

// tables is how many tables the directory has.
func (h *header) tables() int64 {
	covered := h.Grain * int64(h.Entries)
	return (h.Capacity + covered - 1) / covered
}

// maxDirectory bounds the directory, in bytes: 2^24 tables, 512 TiB by grains of 64 KiB.
const maxDirectory = 64 << 20

// parseHeader reads the sector and refuses what could lead a reader astray. Errors name the field and its offset.
func parseHeader(sector []byte) (*header, error) {
	if len(sector) < SectorSize {
		return nil, fault.New(fault.Invalid, "the file has %d bytes: a VMDK's header has %d", len(sector), SectorSize)
	}
	le := binary.LittleEndian
	if got := le.Uint32(sector); got != magicSparse {
		return nil, fault.New(fault.Invalid, "signature at byte 0 is %#x, not %#x", got, magicSparse)
	}
	long := func(at int) int64 { return int64(le.Uint64(sector[at:])) }
	h := &header{
		Version: le.Uint32(sector[atVersion:]), Flags: le.Uint32(sector[atFlags:]), Capacity: long(atCapacity), Grain: long(atGrain),
		Descriptor: long(atDescriptor), DescriptorSize: long(atDescSize), Entries: le.Uint32(sector[atEntries:]),
		Redundant: le.Uint64(sector[atRedundant:]), Directory: le.Uint64(sector[atDirectory:]), Overhead: long(atOverhead),
		Compression: le.Uint16(sector[atCompress:]), raw: [SectorSize]byte(sector),
	}
	return h, h.check()
}

func (h *header) check() error {
	invalid := func(field string, at int, format string, args ...any) error {
		return fault.New(fault.Invalid, "%s at byte %d %s", field, at, fmt.Sprintf(format, args...))
	}
	switch {
	case h.Version < 1 || h.Version > 3:
		return fault.New(fault.Unsupported, "version at byte %d is %d: 1 to 3 are known", atVersion, h.Version)
	case h.Flags&flagNewline != 0 && string(h.raw[atNewlines:atNewlines+4]) != "\n \r\n":
		return invalid("line ends", atNewlines, "are %q: the file was changed by a transfer as text", h.raw[atNewlines:atNewlines+4])
	case h.Grain < 8 || h.Grain > 2048 || h.Grain&(h.Grain-1) != 0:
		return invalid("grain size", atGrain, "is %d sectors: it must be a power of two from 8 to 2048", h.Grain)
	case h.Capacity < 0 || h.Capacity > maxSectors:
		return invalid("capacity", atCapacity, "is %d sectors: at most %d are known", uint64(h.Capacity), int64(maxSectors))
	case h.Entries < 1 || h.Entries > 4096:
		return invalid("entries of a table", atEntries, "are %d: they must be from 1 to 4096", h.Entries)
	case h.DescriptorSize < 0 || h.DescriptorSize > maxDescriptor/SectorSize || h.Descriptor < 0 || h.Descriptor > maxSectors:
		return invalid("descriptor", atDescriptor, "is %d sectors at sector %d: at most %d are known", uint64(h.DescriptorSize), uint64(h.Descriptor), maxDescriptor/SectorSize)
	case h.deflated() && h.Compression != deflate:
		return fault.New(fault.Unsupported, "compression at byte %d is %d: only 1 (deflate) is known", atCompress, h.Compression)
	case h.tables()*4 > maxDirectory:
		return fault.New(fault.Unsupported, "capacity at byte %d is %d sectors: a directory of %d tables is too large", atCapacity, h.Capacity, h.tables())
	}
	return nil
}

// sector is the header as it is written.
func (h *header) sector() []byte {
	b := h.raw
	le := binary.LittleEndian
	le.PutUint64(b[atCapacity:], uint64(h.Capacity))
	le.PutUint64(b[atDescriptor:], uint64(h.Descriptor))
	le.PutUint64(b[atDescSize:], uint64(h.DescriptorSize))
	le.PutUint64(b[atRedundant:], h.Redundant)
	le.PutUint64(b[atDirectory:], h.Directory)
	le.PutUint64(b[atOverhead:], uint64(h.Overhead))
	return b[:]
}

// freshHeader is that of a new extent with grains of 64 KiB.
func freshHeader(version, flags uint32, capacity int64) *header {
	h := &header{
		Version: version, Flags: flags | flagNewline, Capacity: capacity, Grain: grainSectors, Entries: tableEntries,
		Descriptor: 1, DescriptorSize: descriptorSectors,
	}
	le := binary.LittleEndian
	le.PutUint32(h.raw[0:], magicSparse)
	le.PutUint32(h.raw[atVersion:], version)
	le.PutUint32(h.raw[atFlags:], h.Flags)
	le.PutUint64(h.raw[atGrain:], grainSectors)
	le.PutUint32(h.raw[atEntries:], tableEntries)
	copy(h.raw[atNewlines:], "\n \r\n")
	if flags&flagDeflated != 0 {
		le.PutUint16(h.raw[atCompress:], deflate)
	}
	return h
}

// readAll reads n bytes at off of a file, or says that field leads behind its end.
func readAll(file io.ReaderAt, off, n int64, field string) ([]byte, error) {
	b := make([]byte, n)
	if got, err := file.ReadAt(b, off); int64(got) < n {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, fault.New(fault.Invalid, "%s is %d bytes at byte %d, and the file ends before: it was cut off, or is damaged", field, n, off)
		}
		return nil, fmt.Errorf("read %s at byte %d: %w", field, off, err)
	}
	return b, nil
}
