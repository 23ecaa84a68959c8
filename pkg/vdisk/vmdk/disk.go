package vmdk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/raw"
)

// Beside opens a file by the name that a descriptor gives to it. Who implements it decides which names are followed:
// an image that comes from somewhere else may name any file of the machine.
type Beside func(name string) (*os.File, error)

// Disk is a disk without its parents: its holes are theirs (Descriptor.HasParent, content.Over).
type Disk struct {
	Descriptor
	extents []placed
	size    int64
	flats   map[string]flatFile // by the names that extents have for them
}

// placed is an extent and where on the disk it begins.
type placed struct {
	content.Disk
	from int64
	kind string
}

var _ content.Disk = (*Disk)(nil)

// IsDescriptor reports whether a file begins like a descriptor by itself.
func IsDescriptor(head []byte) bool {
	return bytes.HasPrefix(bytes.ToLower(bytes.TrimLeft(head, "\ufeff \t\r\n")), []byte("# disk descriptorfile"))
}

// IsSparse reports whether a file begins like a sparse extent.
func IsSparse(head []byte) bool {
	return bytes.HasPrefix(head, []byte("KDMV")) || bytes.HasPrefix(head, []byte("COWD"))
}

// Open reads a disk whose descriptor is file, or in it, of length bytes. The disk owns file and the extents if there is no
// error; with one, the extents are closed.
func Open(file File, length int64, beside Beside) (*Disk, error) {
	head := make([]byte, 512)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte("KDMV")):
		return openHosted(file, length)
	case bytes.HasPrefix(head, []byte("COWD")):
		return nil, fault.New(fault.Invalid, "this is one extent of a disk: give the descriptor, the small file of text that names it")
	case !IsDescriptor(head):
		return nil, fault.New(fault.Invalid, "this is no VMDK: it begins neither with the signature KDMV nor with %q", "# Disk DescriptorFile")
	}
	return openDescribed(file, length, beside)
}

// openHosted reads an extent that has the descriptor in it.
func openHosted(file File, length int64) (*Disk, error) {
	s, h, err := openSparse(file, length)
	if err != nil {
		return nil, err
	}
	if h.Descriptor == 0 || h.DescriptorSize == 0 {
		return nil, fault.New(fault.Invalid, "this is one extent of a disk: give the descriptor, the small file of text that names it")
	}
	if h.Capacity == 0 {
		return nil, fault.New(fault.Invalid, "capacity at byte %d is 0", atCapacity)
	}
	text, err := readAll(file, h.Descriptor*SectorSize, h.DescriptorSize*SectorSize, "the descriptor (its sector is at byte 28 of the header)")
	if err != nil {
		return nil, err
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return nil, err
	}
	if len(d.Extents) != 1 {
		return nil, fault.New(fault.Unsupported, "the descriptor in a sparse file names %d extents: one is known", len(d.Extents))
	}
	if h.Redundant != 0 && h.Flags&flagRedundant != 0 && h.Redundant != directoryEnd {
		s.redundant, err = readDirectory(file, length, h, h.Redundant, "the redundant grain directory (its sector is at byte 48 of the header)")
		if err != nil {
			return nil, err
		}
	}
	return &Disk{Descriptor: *d, extents: []placed{{s, 0, "SPARSE"}}, size: s.capacity}, nil
}

func openDescribed(file File, length int64, beside Beside) (*Disk, error) {
	if length > maxDescriptor {
		return nil, fault.New(fault.Invalid, "a descriptor has at most %d bytes, and this file %d", maxDescriptor, length)
	}
	text, err := readAll(file, 0, length, "the descriptor")
	if err != nil {
		return nil, err
	}
	parsed, err := parseDescriptor(text)
	if err != nil {
		return nil, err
	}
	d := &Disk{Descriptor: *parsed}
	for n, e := range parsed.Extents {
		if err := d.add(e, beside); err != nil {
			_ = d.closeExtents()
			return nil, fmt.Errorf("extent %d (%s): %w", n+1, e.File, err)
		}
	}
	return d, file.Close()
}

// add opens an extent and puts it behind those that are there.
func (d *Disk) add(e Extent, beside Beside) error {
	size := e.Sectors * SectorSize
	if e.Sectors > maxSectors-d.size/SectorSize {
		return fault.New(fault.Invalid, "the extents together have more than %d sectors", int64(maxSectors))
	}
	opened, err := d.openExtent(e, size, beside)
	if err != nil {
		return err
	}
	d.extents = append(d.extents, placed{opened, d.size, e.Type})
	d.size += size
	return nil
}

func (d *Disk) openExtent(e Extent, size int64, beside Beside) (content.Disk, error) {
	switch {
	case e.Access == "NOACCESS":
		return nil, fault.New(fault.Unsupported, "its access is NOACCESS: it cannot be read")
	case e.Type == "ZERO":
		return nothing(size), nil
	case e.Type == "FLAT" || e.Type == "VMFS":
		return d.openFlat(e, size, beside)
	case e.Type != "SPARSE" && e.Type != "VMFSSPARSE":
		return nil, fault.New(fault.Unsupported, "extents of type %s are not known: FLAT, SPARSE, ZERO, VMFS and VMFSSPARSE are", e.Type)
	}
	file, length, err := openBeside(e, beside)
	if err != nil {
		return nil, err
	}
	opened, err := openMember(e, file, length, size)
	if err != nil {
		_ = file.Close()
	}
	return opened, err
}

// openBeside opens an extent's file, of so many bytes.
func openBeside(e Extent, beside Beside) (*os.File, int64, error) {
	file, err := beside(e.File)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fault.New(fault.Unsupported, "%s is not a file: extents on devices are not followed", file.Name())
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

// flatFile is one that several extents may be in; it is open once.
type flatFile struct {
	*os.File
	length int64
}

func (d *Disk) openFlat(e Extent, size int64, beside Beside) (content.Disk, error) {
	found, ok := d.flats[e.File]
	if !ok {
		file, length, err := openBeside(e, beside)
		if err != nil {
			return nil, err
		}
		found = flatFile{file, length}
		if d.flats == nil {
			d.flats = map[string]flatFile{}
		}
		d.flats[e.File] = found
	}
	if end := e.Offset*SectorSize + size; end > found.length {
		return nil, fault.New(fault.Invalid, "the descriptor says that it ends at byte %d, and the file has %d: it was cut off", end, found.length)
	}
	return raw.Shared(found.File, e.Offset*SectorSize, size), nil
}

func openMember(e Extent, file *os.File, length, size int64) (content.Disk, error) {
	var s *sparse
	var err error
	if e.Type == "SPARSE" {
		s, _, err = openSparse(file, length)
	} else {
		s, err = openCOWD(file, length)
	}
	if err != nil {
		return nil, err
	}
	if s.capacity < size {
		return nil, fault.New(fault.Invalid, "the descriptor says %d bytes, and the file's capacity is %d", size, s.capacity)
	}
	return content.Resized(s, size), nil
}

// Size implements content.Disk.
func (d *Disk) Size() int64 { return d.size }

// Close implements content.Disk.
func (d *Disk) Close() error { return d.closeExtents() }

func (d *Disk) closeExtents() error {
	var all error
	for _, e := range d.extents {
		all = errors.Join(all, e.Close())
	}
	for _, f := range d.flats {
		all = errors.Join(all, f.Close())
	}
	return all
}

// ReadAt implements content.Disk.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return content.ReadAt(d, p, off) }

// Span implements content.Disk.
func (d *Disk) Span(off int64) (content.Span, error) {
	s, _, err := d.Piece(off)
	return s, err
}

// Piece implements content.Pieces.
func (d *Disk) Piece(off int64) (content.Span, io.ReaderAt, error) {
	n, exact := slices.BinarySearchFunc(d.extents, off, func(e placed, off int64) int { return int(max(-1, min(1, e.from-off))) })
	if !exact {
		n--
	}
	e := d.extents[n]
	s, err := e.Span(off - e.from)
	s.Offset = off
	return s, content.Shifted{File: e.Disk, At: -e.from}, err
}

// nothing is an extent of type ZERO.
type nothing int64

func (n nothing) Size() int64 { return int64(n) }

func (nothing) Close() error { return nil }

func (n nothing) ReadAt(p []byte, off int64) (int, error) { return content.ReadAt(n, p, off) }

func (n nothing) Span(off int64) (content.Span, error) {
	return content.Span{Offset: off, Length: int64(n) - off, Kind: content.Zero}, nil
}

// Piece implements content.Pieces.
func (n nothing) Piece(off int64) (content.Span, io.ReaderAt, error) {
	s, err := n.Span(off)
	return s, nil, err
}
