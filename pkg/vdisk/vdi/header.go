// Package vdi reads, writes, checks and grows VirtualBox's disk images, VDI 1.1 (VirtualBox:
// src/VBox/Storage/VDICore.h). An image is a header, a map and blocks: entry n of the map says which of the blocks in
// the file holds block n of the disk. A number in the file is little-endian.
package vdi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Signature is what an image has at byte SignatureOffset.
const (
	Signature       = 0xbeda107f
	SignatureOffset = 64
)

// Types of images.
const (
	Dynamic      = 1 // grows as it is written to
	Fixed        = 2 // all blocks are there
	undo         = 3 // never in use
	Differencing = 4 // its holes show a parent
)

// Entries of the map that name no block.
const (
	free    = 0xffffffff // never written, or the parent's
	zeroed  = 0xfffffffe // zeros
	firstNo = zeroed     // entries from here on name no block
)

const (
	version11  = 0x00010001
	headerSize = 512 // what is read and written: the header and its reserve, one sector
	// ownSize is what the field for the header's size says in version 1.1.
	ownSize = 400
)

// maxMap bounds the map, in bytes: 16 TiB of disk by blocks of 1 MiB.
const maxMap = 64 << 20

// Offsets of the header's fields in the file.
const (
	atType      = 0x4c
	atMap       = 0x154
	atData      = 0x158
	atSector    = 0x168
	atSize      = 0x170
	atBlockSize = 0x178
	atExtra     = 0x17c
	atBlocks    = 0x180
	atAllocated = 0x184
	atUUID      = 0x188
	atModified  = 0x198
	atParent    = 0x1a8
	atParentMod = 0x1b8
)

// UUID is an image's, in the byte order of the file.
type UUID [16]byte

// IsZero reports whether there is none.
func (u UUID) IsZero() bool { return u == UUID{} }

// String is the UUID as VirtualBox writes it: the first three groups are little-endian numbers.
func (u UUID) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", le.Uint32(u[0:]), le.Uint16(u[4:]), le.Uint16(u[6:]), u[8:10], u[10:])
}

// Header is what the first sector says. Offsets and sizes are bytes.
type Header struct {
	Version, Type, Flags   uint32
	MapOffset, DataOffset  uint32
	Size                   uint64 // of the disk
	BlockSize, Extra       uint32 // Extra: bytes before each block
	Blocks, Allocated      uint32
	UUID, Modified, Parent UUID
	ParentModified         UUID // the parent's Modified when the image was made

	raw [headerSize]byte // as it was read: what is not understood is kept
}

// parse reads the first sector of a file of length bytes. Every field that could lead a reader astray is
// looked at; errors are fault.Invalid or fault.Unsupported, and name the field and its offset.
func parse(sector []byte, length int64) (*Header, error) {
	if len(sector) < headerSize {
		return nil, fault.New(fault.Invalid, "the file has %d bytes: a VDI's header has %d", len(sector), headerSize)
	}
	le := binary.LittleEndian
	if got := le.Uint32(sector[SignatureOffset:]); got != Signature {
		return nil, fault.New(fault.Invalid, "signature at byte %d is %#x, not a VDI's %#x", SignatureOffset, got, Signature)
	}
	h := &Header{
		Version: le.Uint32(sector[0x44:]), Type: le.Uint32(sector[atType:]), Flags: le.Uint32(sector[0x50:]),
		MapOffset: le.Uint32(sector[atMap:]), DataOffset: le.Uint32(sector[atData:]), Size: le.Uint64(sector[atSize:]),
		BlockSize: le.Uint32(sector[atBlockSize:]), Extra: le.Uint32(sector[atExtra:]),
		Blocks: le.Uint32(sector[atBlocks:]), Allocated: le.Uint32(sector[atAllocated:]),
		UUID: UUID(sector[atUUID:]), Modified: UUID(sector[atModified:]), Parent: UUID(sector[atParent:]),
		ParentModified: UUID(sector[atParentMod:]),
		raw:            [headerSize]byte(sector),
	}
	return h, h.check(length)
}

// check refuses what cannot be, and what this package does not do.
func (h *Header) check(length int64) error {
	invalid := func(field string, at int, format string, args ...any) error {
		return fault.New(fault.Invalid, "%s at byte %#x %s", field, at, fmt.Sprintf(format, args...))
	}
	switch {
	case h.Version>>16 != 1 || h.Version == 0x00010000:
		return fault.New(fault.Unsupported, "version at byte 0x44 is %d.%d: only 1.1 is known", h.Version>>16, h.Version&0xffff)
	case h.Type != Dynamic && h.Type != Fixed && h.Type != Differencing:
		return fault.New(fault.Unsupported, "type at byte %#x is %d: only dynamic (%d), fixed (%d) and differencing (%d) images are known", atType, h.Type, Dynamic, Fixed, Differencing)
	case h.BlockSize < 512 || h.BlockSize > 256<<20 || h.BlockSize&(h.BlockSize-1) != 0:
		return invalid("block size", atBlockSize, "is %d: it must be a power of two from 512 to 256 MiB", h.BlockSize)
	case h.Extra != 0:
		return fault.New(fault.Unsupported, "extra data of blocks at byte %#x is %d bytes: only 0 is known", atExtra, h.Extra)
	case h.Size == 0 || h.Size%512 != 0 || h.Size > 1<<62:
		return invalid("disk size", atSize, "is %d: it must be a multiple of 512 above 0", h.Size)
	case uint64(h.Blocks) != (h.Size+uint64(h.BlockSize)-1)/uint64(h.BlockSize):
		return invalid("number of blocks", atBlocks, "is %d: %d bytes are %d blocks of %d", h.Blocks, h.Size, (h.Size+uint64(h.BlockSize)-1)/uint64(h.BlockSize), h.BlockSize)
	case h.Allocated > h.Blocks:
		return invalid("number of allocated blocks", atAllocated, "is %d, of %d", h.Allocated, h.Blocks)
	case h.MapOffset < headerSize || h.MapOffset%4 != 0:
		return invalid("offset of the map", atMap, "is %d: it must be behind the header", h.MapOffset)
	case h.mapEnd() > int64(h.DataOffset):
		return invalid("offset of the data", atData, "is %d, in the map of %d blocks at %d", h.DataOffset, h.Blocks, h.MapOffset)
	case 4*int64(h.Blocks) > maxMap:
		return fault.New(fault.Unsupported, "number of blocks at byte %#x is %d: at most %d are known", atBlocks, h.Blocks, maxMap/4)
	case h.mapEnd() > length:
		return fault.New(fault.Invalid, "the file ends at byte %d, in the map, which ends at %d (number of blocks at byte %#x is %d): it was cut off", length, h.mapEnd(), atBlocks, h.Blocks)
	}
	return nil
}

func (h *Header) mapEnd() int64 { return int64(h.MapOffset) + 4*int64(h.Blocks) }

// blockAt is where in the file the block with a number in the file begins.
func (h *Header) blockAt(number uint32) int64 {
	return int64(h.DataOffset) + int64(number)*int64(h.BlockSize)
}

// sector is the header as it is written.
func (h *Header) sector() []byte {
	b := bytes.Clone(h.raw[:])
	le := binary.LittleEndian
	le.PutUint32(b[atType:], h.Type)
	le.PutUint32(b[atMap:], h.MapOffset)
	le.PutUint32(b[atData:], h.DataOffset)
	le.PutUint64(b[atSize:], h.Size)
	le.PutUint32(b[atBlockSize:], h.BlockSize)
	le.PutUint32(b[atBlocks:], h.Blocks)
	le.PutUint32(b[atAllocated:], h.Allocated)
	copy(b[atUUID:], h.UUID[:])
	copy(b[atModified:], h.Modified[:])
	return b
}

// fresh is the header of a new image of size bytes.
func fresh(size int64, id, modified UUID) *Header {
	h := &Header{Version: version11, Type: Dynamic, Size: uint64(size), BlockSize: BlockSize, UUID: id, Modified: modified}
	h.Blocks = uint32((size + BlockSize - 1) / BlockSize)
	h.MapOffset = align
	h.DataOffset = uint32(roundUp(h.mapEnd(), align))
	copy(h.raw[:SignatureOffset], "<<< Holdfast, VirtualBox Disk Image >>>\n")
	le := binary.LittleEndian
	le.PutUint32(h.raw[SignatureOffset:], Signature)
	le.PutUint32(h.raw[0x44:], version11)
	le.PutUint32(h.raw[0x48:], ownSize)
	le.PutUint32(h.raw[atSector:], 512)
	return h
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// readHeader reads the header of a file of length bytes.
func readHeader(file io.ReaderAt, length int64) (*Header, error) {
	sector := make([]byte, headerSize)
	n, err := file.ReadAt(sector, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	return parse(sector[:n], length)
}
