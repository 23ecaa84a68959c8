package vmdk

import (
	"encoding/binary"
	"io"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// File is what an extent is kept in.
type File interface {
	io.ReaderAt
	io.Closer
}

// sparse reads a sparse extent: hosted (monolithicSparse, twoGbMaxExtentSparse, streamOptimized) or an ESX server's.
type sparse struct {
	file      File
	length    int64 // of the file, in bytes
	capacity  int64 // bytes
	grain     int64 // bytes
	metadata  int64 // bytes at the beginning of the file that hold no grain
	zeroed    bool  // entry 1 is a grain of zeros
	deflated  bool
	directory []uint32
	tables    tables
	redundant []uint32 // the other directory, if there is one; for Check
}

var _ content.Disk = (*sparse)(nil)

// openSparse reads header and directory of a hosted extent of length bytes.
func openSparse(file File, length int64) (*sparse, *header, error) {
	h, err := hostedHeader(file, length)
	if err != nil {
		return nil, nil, err
	}
	s := &sparse{
		file: file, length: length, capacity: h.Capacity * SectorSize, grain: h.grainBytes(),
		zeroed: h.Flags&flagZeroed != 0, deflated: h.deflated(),
		metadata: SectorSize, tables: tables{file: file, entries: int(h.Entries)},
	}
	if h.Descriptor == 1 { // where it is but for a growth that was cut off
		s.metadata += h.DescriptorSize * SectorSize
	}
	if s.directory, err = readDirectory(file, length, h, h.Directory, "the grain directory (its sector is at byte 56 of the header)"); err != nil {
		return nil, nil, err
	}
	return s, h, nil
}

func readDirectory(file io.ReaderAt, length int64, h *header, sector uint64, what string) ([]uint32, error) {
	if sector == 0 || sector > uint64(length)/SectorSize {
		return nil, fault.New(fault.Invalid, "%s is at sector %d, and the file has %d: it was cut off, or is damaged", what, sector, length/SectorSize)
	}
	return readTable(file, int64(sector)*SectorSize, int(h.tables()), what)
}

// hostedHeader reads the header, of a stream the one at its end.
func hostedHeader(file io.ReaderAt, length int64) (*header, error) {
	sector, err := readAll(file, 0, min(SectorSize, length), "the header")
	if err != nil {
		return nil, err
	}
	h, err := parseHeader(sector)
	if err != nil || h.Directory != directoryEnd {
		return h, err
	}
	return footer(file, length, h)
}

// footer reads the header at the end of a stream: a marker, the header, and a marker of the end, a sector each.
func footer(file io.ReaderAt, length int64, first *header) (*header, error) {
	const tail = 3 * SectorSize
	if length < tail+SectorSize {
		return nil, fault.New(fault.Invalid, "the file has %d bytes and should end with a footer: it was cut off", length)
	}
	at := length - tail
	raw, err := readAll(file, at, tail, "the footer")
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint32(raw[8:]) != 0 || le.Uint32(raw[12:]) != markerFooter {
		return nil, fault.New(fault.Invalid, "no marker of a footer at byte %d: the file was cut off, or something was added to it", at)
	}
	h, err := parseHeader(raw[SectorSize : 2*SectorSize])
	if err != nil {
		return nil, fault.New(fault.Invalid, "footer at byte %d: %v", at+SectorSize, err)
	}
	if h.Directory == directoryEnd {
		return nil, fault.New(fault.Invalid, "the footer at byte %d has no directory", at+SectorSize)
	}
	if h.Capacity != first.Capacity || h.Grain != first.Grain || h.Entries != first.Entries {
		return nil, fault.New(fault.Invalid, "footer at byte %d: capacity, grain size or table size are not the header's", at+SectorSize)
	}
	return h, nil
}

// Size implements content.Disk.
func (s *sparse) Size() int64 { return s.capacity }

// Close implements content.Disk.
func (s *sparse) Close() error { return s.file.Close() }

// ReadAt implements content.Disk.
func (s *sparse) ReadAt(p []byte, off int64) (int, error) { return content.ReadAt(s, p, off) }

// Span implements content.Disk.
func (s *sparse) Span(off int64) (content.Span, error) {
	span, _, err := s.Piece(off)
	return span, err
}

// Piece implements content.Pieces. Grains that follow each other in the file are one piece, up to the end of their
// table; a compressed grain is one by itself.
func (s *sparse) Piece(off int64) (content.Span, io.ReaderAt, error) {
	number := off / s.grain
	entries := int64(s.tables.entries)
	index := number % entries
	base := (number - index) * s.grain // of the table
	span := content.Span{Offset: off, Length: base + entries*s.grain - off, Kind: content.Hole}
	sector := s.directory[number/entries]
	if sector == 0 {
		return content.Clip(span, s.capacity), nil, nil
	}
	table, err := s.tables.at(sector)
	if err != nil {
		return span, nil, err
	}
	run := index + 1
	for run < entries && s.follows(table, index, run) {
		run++
	}
	span = content.Clip(content.Clip(span, base+run*s.grain), s.capacity)
	if span.Kind = s.kindOf(table[index]); span.Kind != content.Data {
		return span, nil, nil
	}
	at, field := int64(table[index])*SectorSize, int64(sector)*SectorSize+4*index
	end := at + span.End() - number*s.grain
	if s.deflated {
		end = at + markerSize
	}
	if at < s.metadata || end > s.length {
		return span, nil, fault.New(fault.Invalid, "the grain table entry at byte %d says that grain %d is at byte %d, and the file has %d: it was cut off, or is damaged", field, number, at, s.length)
	}
	if s.deflated {
		return span, &grain{s, number, at}, nil
	}
	return span, content.Shifted{File: s.file, At: at - number*s.grain}, nil
}

func (s *sparse) kindOf(entry uint32) content.Kind {
	switch {
	case entry == 0:
		return content.Hole
	case entry == 1 && s.zeroed:
		return content.Zero
	}
	return content.Data
}

// follows reports whether entry n goes on with the piece that begins with entry first.
func (s *sparse) follows(table []uint32, first, n int64) bool {
	if kind := s.kindOf(table[first]); kind != content.Data {
		return s.kindOf(table[n]) == kind
	}
	return !s.deflated && int64(table[n]) == int64(table[first])+(n-first)*s.grain/SectorSize
}
