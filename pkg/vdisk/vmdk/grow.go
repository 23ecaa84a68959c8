package vmdk

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// Grow makes a monolithicSparse disk in a file of length bytes larger, in place: size is in bytes. Whenever it is cut
// off, the disk is the old one or the new one. Extra space: the larger directories and their new tables, 4 KiB for each 32 MiB, which
// are holes until they are used.
//
// The new metadata and the new descriptor go behind the end of the file, and one write of the header's sector switches
// to them. The descriptor then goes to where it was, and its copy away: some readers look for it at one place only.
func Grow(file content.Editable, length, size int64) error {
	g, err := newGrowth(file, length)
	if err != nil {
		return err
	}
	switch {
	case size%SectorSize != 0:
		return fault.New(fault.Invalid, "%d bytes are no whole number of sectors of %d", size, SectorSize)
	case size < g.s.capacity:
		return fault.New(fault.Range, "the disk has %d bytes: it only grows, and %d are fewer", g.s.capacity, size)
	}
	away, err := g.away()
	if err != nil || size == g.s.capacity && !away {
		return err
	}
	if err := g.check(); err != nil {
		return err
	}
	if away {
		if err := g.settle(); err != nil || size == g.s.capacity {
			return err
		}
		if g, err = newGrowth(file, g.end); err != nil {
			return err
		}
	}
	return g.run(size)
}

// home is the sector where a descriptor is looked for.
const home = 1

// away reports whether the descriptor is behind the disk, where a growth that was cut off left it: the one from before is
// still where it was.
func (g *growth) away() (bool, error) {
	if g.h.Descriptor <= home {
		return false, nil
	}
	old := make([]byte, SectorSize)
	if _, err := g.file.ReadAt(old, home*SectorSize); err != nil {
		return false, fmt.Errorf("read the sector behind the header: %w", err)
	}
	return IsDescriptor(old), nil
}

// settle brings the descriptor back.
func (g *growth) settle() error {
	text := make([]byte, g.h.DescriptorSize*SectorSize)
	copy(text, g.d.Resized(g.s.capacity))
	to := *g.h
	copied := to.Descriptor
	if err := g.bringHome(&to, home, text); err != nil {
		return err
	}
	if (copied+g.h.DescriptorSize)*SectorSize != g.end {
		return nil
	}
	g.end = copied * SectorSize
	return g.cut(copied)
}

type growth struct {
	file content.Editable
	d    *Disk
	s    *sparse
	h    *header
	end  int64 // of what is written so far, in bytes
}

type unclosed struct{ io.ReaderAt }

func (unclosed) Close() error { return nil }

func newGrowth(file content.Editable, length int64) (*growth, error) {
	d, err := openHosted(unclosed{file}, length)
	if err != nil {
		return nil, err
	}
	h, err := hostedHeader(file, length)
	if err != nil {
		return nil, err
	}
	return &growth{file: file, d: d, s: d.extents[0].Disk.(*sparse), h: h, end: length}, nil
}

func (g *growth) check() error {
	if g.s.deflated || g.h.Flags&flagMarkers != 0 {
		return fault.New(fault.Unsupported, "a %s disk is written once and does not grow in place: use `holdfast image convert` with --size", g.d.CreateType)
	}
	if g.d.HasParent() {
		return fault.New(fault.Unsupported, "a snapshot does not grow by itself: convert the disk to one of its own with --size")
	}
	if err := g.beyond(); err != nil {
		return err
	}
	if err := g.apart(); err != nil {
		return err
	}
	if found := g.d.Check(1); len(found) > 0 {
		return fault.New(fault.Precondition, "the disk is damaged, and growing it might make that worse: %s", found[0])
	}
	return nil
}

// beyond refuses a last table that has grains behind the end of the disk: they would come to light.
func (g *growth) beyond() error {
	entries := int64(g.h.Entries)
	grains := (g.s.capacity + g.s.grain - 1) / g.s.grain
	last := len(g.s.directory) - 1
	if grains%entries == 0 || g.s.directory[last] == 0 {
		return nil
	}
	table, err := g.s.tables.at(g.s.directory[last])
	if err != nil {
		return err
	}
	for n := grains % entries; n < entries; n++ {
		if table[n] != 0 {
			return fault.New(fault.Precondition, "the grain table entry at byte %d has a grain behind the end of the disk", int64(g.s.directory[last])*SectorSize+4*n)
		}
	}
	return nil
}

// apart refuses a disk whose directories or tables lie where its descriptor is written.
func (g *growth) apart() error {
	tables := (int64(g.h.Entries)*4 + SectorSize - 1) / SectorSize
	directory := (int64(len(g.s.directory))*4 + SectorSize - 1) / SectorSize
	hits := func(sector, length int64) error {
		for _, at := range []int64{home, g.h.Descriptor} {
			if sector != 0 && sector < at+g.h.DescriptorSize && sector+length > at {
				return fault.New(fault.Precondition, "the descriptor, at byte %d, and the metadata at byte %d lie over each other", at*SectorSize, sector*SectorSize)
			}
		}
		return nil
	}
	if err := hits(int64(g.h.Directory), directory); err != nil {
		return err
	}
	if g.s.redundant != nil {
		if err := hits(int64(g.h.Redundant), directory); err != nil {
			return err
		}
	}
	for _, list := range [][]uint32{g.s.directory, g.s.redundant} {
		for _, sector := range list {
			if err := hits(int64(sector), tables); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *growth) run(size int64) error {
	if err := g.clearTail(); err != nil {
		return err
	}
	to := *g.h
	to.Capacity = size / SectorSize
	if to.tables()*4 > maxDirectory {
		return fault.New(fault.Range, "%d bytes need a directory of more than %d", size, maxDirectory)
	}
	if err := g.directories(&to); err != nil {
		return err
	}
	text := g.d.Resized(size)
	if int64(len(text)) > g.h.DescriptorSize*SectorSize {
		return fault.New(fault.Unsupported, "the descriptor has no room for a larger number")
	}
	padded := make([]byte, g.h.DescriptorSize*SectorSize)
	copy(padded, text)
	descriptor, err := g.append(padded)
	if err != nil {
		return err
	}
	to.Descriptor = descriptor
	if err := g.sync(); err != nil {
		return err
	}
	if err := g.switchTo(&to); err != nil {
		return err
	}
	return g.bringBack(&to, padded)
}

// clearTail makes zeros of what a last grain holds behind the end of the old disk, and finds the file's end behind
// all of that grain.
func (g *growth) clearTail() error {
	inside := g.s.capacity % g.s.grain
	g.end = (g.end + g.s.grain - 1) / g.s.grain * g.s.grain
	if inside == 0 {
		return nil
	}
	number := g.s.capacity / g.s.grain
	sector := g.s.directory[number/int64(g.h.Entries)]
	if sector == 0 {
		return nil
	}
	table, err := g.s.tables.at(sector)
	if err != nil {
		return err
	}
	entry := table[number%int64(g.h.Entries)]
	if g.s.kindOf(entry) == content.Data {
		at := int64(entry) * SectorSize
		g.end = max(g.end, at+g.s.grain)
		if _, err := g.file.WriteAt(make([]byte, g.s.grain-inside), at+inside); err != nil {
			return fmt.Errorf("clear the end of the last grain: %w", err)
		}
	}
	return nil
}

// directories writes the larger ones and new tables behind the end, and says in to where they are.
func (g *growth) directories(to *header) error {
	var err error
	if to.Directory, err = g.directory(g.s.directory, to.tables()); err != nil {
		return err
	}
	if g.s.redundant != nil {
		to.Redundant, err = g.directory(g.s.redundant, to.tables())
	}
	return err
}

func (g *growth) directory(old []uint32, count int64) (uint64, error) {
	size := int64(g.h.Entries) * 4
	tables := g.end
	added := count - int64(len(old))
	g.end += (added*size + SectorSize - 1) / SectorSize * SectorSize
	if g.end/SectorSize > 1<<32-1 {
		return 0, fault.New(fault.Range, "the file would have more than 2 TiB")
	}
	if err := g.file.Truncate(g.end); err != nil {
		return 0, fmt.Errorf("make the file %d bytes long: %w", g.end, err)
	}
	b := make([]byte, (4*count+SectorSize-1)/SectorSize*SectorSize)
	for n := range count {
		entry := uint32((tables + (n-int64(len(old)))*size) / SectorSize)
		if n < int64(len(old)) {
			entry = old[n]
		}
		binary.LittleEndian.PutUint32(b[4*n:], entry)
	}
	at, err := g.append(b)
	return uint64(at), err
}

// append writes whole sectors behind the end and returns the sector where they begin.
func (g *growth) append(p []byte) (int64, error) {
	at := g.end
	if _, err := g.file.WriteAt(p, at); err != nil {
		return 0, fmt.Errorf("write %d bytes at byte %d: %w", len(p), at, err)
	}
	g.end += int64(len(p))
	return at / SectorSize, nil
}

func (g *growth) sync() error {
	if err := g.file.Sync(); err != nil {
		return fmt.Errorf("sync the disk: %w", err)
	}
	return nil
}

func (g *growth) switchTo(h *header) error {
	if _, err := g.file.WriteAt(h.sector(), 0); err != nil {
		return fmt.Errorf("write the header: %w", err)
	}
	return g.sync()
}

// bringBack writes the descriptor to where it was, and cuts its copy off the file.
func (g *growth) bringBack(to *header, text []byte) error {
	copied := to.Descriptor
	if err := g.bringHome(to, g.h.Descriptor, text); err != nil {
		return err
	}
	return g.cut(copied)
}

func (g *growth) bringHome(to *header, sector int64, text []byte) error {
	to.Descriptor = sector
	if _, err := g.file.WriteAt(text, sector*SectorSize); err != nil {
		return fmt.Errorf("write the descriptor: %w", err)
	}
	if err := g.sync(); err != nil {
		return err
	}
	return g.switchTo(to)
}

func (g *growth) cut(sector int64) error {
	if err := g.file.Truncate(sector * SectorSize); err != nil {
		return fmt.Errorf("cut the copy of the descriptor off: %w", err)
	}
	return g.sync()
}
