package vdi

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// Grow makes the disk in an image of length bytes larger, in place: size is in bytes. Whenever it is cut off, the image is
// the old one or the new one, and growing it again finishes the work. Extra space in the file: the blocks that the
// larger map takes the place of, one for each 256 GiB of disk.
//
// Where the map has room before the data, only that and the header are written. Where it has not, the file's first blocks
// are copied behind its last one and the old map is told, entry by entry, which is no change
// of the content; then the new map is written where those blocks were, and one write of the header's sector
// switches to it. Of an image all of whose blocks are allocated the old map names blocks behind the header's count
// meanwhile: readers read the same, and a strict checker finds fault with it.
func Grow(file content.Editable, length, size int64) error {
	h, err := readHeader(file, length)
	if err != nil {
		return err
	}
	blocks, err := readMap(file, h)
	if err != nil {
		return err
	}
	g := &growth{file: file, length: length, h: h, blocks: blocks}
	to, err := g.target(size)
	if err != nil || to == nil {
		return err
	}
	err = g.clearTail()
	if err == nil && to.Type == Fixed {
		err = g.cutBehind()
	}
	if err == nil && to.mapEnd() > int64(h.DataOffset) {
		err = g.makeRoom(to)
	}
	if err == nil {
		err = g.turn(to)
	}
	return err
}

// clearTail makes zeros of what the last block holds behind the end of the old disk.
func (g *growth) clearTail() error {
	inside := int64(g.h.Size) % int64(g.h.BlockSize)
	entry := g.blocks[len(g.blocks)-1]
	if inside == 0 || entry >= firstNo {
		return nil
	}
	if _, err := g.file.WriteAt(make([]byte, int64(g.h.BlockSize)-inside), g.h.blockAt(entry)+inside); err != nil {
		return fmt.Errorf("clear the end of the last block: %w", err)
	}
	g.length = max(g.length, g.h.blockAt(entry)+int64(g.h.BlockSize))
	return nil
}

// cutBehind takes away what is behind the last block in use: the new blocks of a fixed image come there, and read what
// the file has.
func (g *growth) cutBehind() error {
	end := g.h.blockAt(g.next())
	if g.length <= end {
		return nil
	}
	if err := g.file.Truncate(end); err != nil {
		return fmt.Errorf("cut off what is behind the last block: %w", err)
	}
	g.length = end
	return g.sync()
}

type growth struct {
	file   content.Editable
	length int64
	h      *Header
	blocks []uint32
}

// target is the header of the grown image, nil if it has the size already.
func (g *growth) target(size int64) (*Header, error) {
	h := g.h
	switch {
	case h.Type != Dynamic && h.Type != Fixed:
		return nil, fault.New(fault.Unsupported, "a differencing image does not grow by itself: convert it to an image of its own with --size")
	case size%512 != 0:
		return nil, fault.New(fault.Invalid, "%d bytes are no whole number of sectors of 512", size)
	case size < int64(h.Size):
		return nil, fault.New(fault.Range, "the disk has %d bytes: it only grows, and %d are fewer", h.Size, size)
	case size == int64(h.Size):
		return nil, nil
	}
	if h.DataOffset%512 != 0 {
		return nil, fault.New(fault.Unsupported, "offset of the data at byte %#x is %d, no whole number of sectors of 512: use `holdfast image convert` with --size", atData, h.DataOffset)
	}
	if damage, _ := (&Image{Header: *h, length: g.length, blocks: g.blocks}).Check(1); len(damage) > 0 {
		return nil, fault.New(fault.Precondition, "the image is damaged, and growing it might make that worse: %s", damage[0])
	}
	blocks := (size + int64(h.BlockSize) - 1) / int64(h.BlockSize)
	if 4*blocks > maxMap {
		return nil, fault.New(fault.Range, "%d bytes are %d blocks of %d: at most %d are known", size, blocks, h.BlockSize, maxMap/4)
	}
	to := *h
	to.Size, to.Blocks, to.Allocated = uint64(size), uint32(blocks), g.next()
	return &to, nil
}

// next is the number of the first block of the file that nothing uses, nor anything behind it.
func (g *growth) next() uint32 {
	next := uint32(0)
	for _, entry := range g.blocks {
		if entry < firstNo {
			next = max(next, entry+1)
		}
	}
	return next
}

// makeRoom frees the file's first blocks for the new map, and says in to where that and the data are then. The image
// is as good as before after each write.
func (g *growth) makeRoom(to *Header) error {
	size := int64(g.h.BlockSize)
	count := (4*int64(to.Blocks) + size - 1) / size
	begin := int64(g.h.DataOffset) + count*size
	if begin > math.MaxUint32 {
		return fault.New(fault.Range, "the map of %d blocks ends at byte %d: the data must begin before 4 GiB", to.Blocks, begin)
	}
	next, err := g.moveFirst(uint32(count))
	if err != nil {
		return err
	}
	to.MapOffset, to.DataOffset, to.Allocated = g.h.DataOffset, uint32(begin), next-uint32(count)
	for n, entry := range g.blocks {
		if entry < firstNo {
			g.blocks[n] = entry - uint32(count)
		}
	}
	return nil
}

// moveFirst gives those of the file's first blocks that are in use a place behind the last one, and returns the
// number behind that.
func (g *growth) moveFirst(count uint32) (next uint32, err error) {
	next = max(g.next(), count)
	buffer := make([]byte, min(g.h.BlockSize, 1<<20))
	var moved []int
	for n, entry := range g.blocks {
		if entry >= count {
			continue
		}
		if err := g.copyBlock(entry, next, buffer); err != nil {
			return 0, fmt.Errorf("move block %d: %w", n, err)
		}
		g.blocks[n] = next
		moved = append(moved, n)
		next++
	}
	if err := g.extend(g.h.blockAt(next)); err != nil {
		return 0, err
	}
	if len(moved) == 0 {
		return next, nil
	}
	return next, g.tell(moved, next)
}

// copyBlock copies a block of the file; one that is cut off at the end of the disk is cut off there, too.
func (g *growth) copyBlock(from, to uint32, buffer []byte) error {
	for done := int64(0); done < int64(g.h.BlockSize); done += int64(len(buffer)) {
		n, err := g.file.ReadAt(buffer, g.h.blockAt(from)+done)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := g.file.WriteAt(buffer[:n], g.h.blockAt(to)+done); err != nil {
			return err
		}
	}
	return nil
}

// extend makes the file at least length bytes long, and what is in it so far last.
func (g *growth) extend(length int64) error {
	if length > g.length {
		if err := g.file.Truncate(length); err != nil {
			return fmt.Errorf("make the file %d bytes long: %w", length, err)
		}
		g.length = length
	}
	return g.sync()
}

func (g *growth) sync() error {
	if err := g.file.Sync(); err != nil {
		return fmt.Errorf("sync the image: %w", err)
	}
	return nil
}

// tell writes into the header how many blocks the file has now, and into the old map where those moved are.
func (g *growth) tell(moved []int, next uint32) error {
	g.h.Allocated = min(next, g.h.Blocks) // more is refused by readers
	if err := g.writeHeader(g.h); err != nil {
		return err
	}
	for _, n := range moved {
		if err := g.writeMap(g.h, n, n+1); err != nil {
			return err
		}
	}
	return g.sync()
}

func (g *growth) writeHeader(h *Header) error {
	if _, err := g.file.WriteAt(h.sector(), 0); err != nil {
		return fmt.Errorf("write the header: %w", err)
	}
	return g.sync()
}

// writeMap writes entries from a number up to another to where h has the map.
func (g *growth) writeMap(h *Header, from, to int) error {
	if _, err := g.file.WriteAt(encode(g.blocks[from:to]), int64(h.MapOffset)+4*int64(from)); err != nil {
		return fmt.Errorf("write the map: %w", err)
	}
	return nil
}

// turn writes the new map, or what is new of it, and then the header.
func (g *growth) turn(to *Header) error {
	from := len(g.blocks)
	if to.MapOffset != g.h.MapOffset {
		from = 0
	}
	for len(g.blocks) < int(to.Blocks) {
		entry := uint32(free)
		if to.Type == Fixed {
			entry = to.Allocated
			to.Allocated++
		}
		g.blocks = append(g.blocks, entry)
	}
	if err := g.writeMap(to, from, len(g.blocks)); err != nil {
		return err
	}
	if err := g.extend(to.blockAt(to.Allocated)); err != nil {
		return err
	}
	return g.writeHeader(to)
}
