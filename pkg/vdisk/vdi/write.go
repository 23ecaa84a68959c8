package vdi

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

const (
	// BlockSize of new images, in bytes, as VirtualBox makes them.
	BlockSize = 1 << 20
	// align is where map and data of new images begin: VirtualBox puts them at whole MiB, too.
	align = 1 << 20
	// page is the length of zeros within a block that is worth a hole in the file, in bytes.
	page = 32 << 10
)

// Writer writes a dynamic image: blocks in the order of the disk, the map and the header at the end.
type Writer struct {
	out    io.WriterAt
	h      *Header
	blocks []uint32
}

// NewWriter begins an image of size bytes in a new file of zeros.
func NewWriter(out io.WriterAt, size int64, id, modified UUID) (*Writer, error) {
	if size > maxMap/4*BlockSize {
		return nil, fault.New(fault.Range, "a VDI of %d bytes would have a map of more than %d: at most %d bytes are known", size, maxMap, int64(maxMap/4*BlockSize))
	}
	w := &Writer{out: out, h: fresh(size, id, modified)}
	w.blocks = slices.Repeat([]uint32{free}, int(w.h.Blocks))
	return w, nil
}

// Pack implements the writer of a conversion.
func (w *Writer) Pack(chunk []byte, pieces []content.Piece) []content.Piece {
	return content.Pack(chunk, page, pieces)
}

// Put implements the writer of a conversion: a chunk is a block.
func (w *Writer) Put(off int64, pieces []content.Piece) error {
	if len(pieces) == 0 {
		return nil
	}
	at := w.h.blockAt(w.h.Allocated)
	for _, p := range pieces {
		if _, err := w.out.WriteAt(p.Data, at+int64(p.At)); err != nil {
			return fmt.Errorf("write block %d: %w", off/BlockSize, err)
		}
	}
	w.blocks[off/BlockSize] = w.h.Allocated
	w.h.Allocated++
	return nil
}

// encode is entries of the map as they are in the file.
func encode(entries []uint32) []byte {
	b := make([]byte, 0, 4*len(entries))
	for _, entry := range entries {
		b = binary.LittleEndian.AppendUint32(b, entry)
	}
	return b
}

// Finish writes map and header, and returns how long the file is to be, in bytes.
func (w *Writer) Finish() (int64, error) {
	if _, err := w.out.WriteAt(encode(w.blocks), int64(w.h.MapOffset)); err != nil {
		return 0, fmt.Errorf("write the map: %w", err)
	}
	if _, err := w.out.WriteAt(w.h.sector(), 0); err != nil {
		return 0, fmt.Errorf("write the header: %w", err)
	}
	return w.h.blockAt(w.h.Allocated), nil
}
