package vdi

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// File is what an image is kept in.
type File interface {
	io.ReaderAt
	io.Closer
}

// Image reads an image. That of a differencing one has holes where the parent shows through (content.Over).
type Image struct {
	Header
	file   File
	length int64
	blocks []uint32
}

var _ content.Disk = (*Image)(nil)

// Open reads header and map of a file of length bytes, which the image owns if there is no error. Memory: 4 bytes a
// block, at most 64 MiB. Entries of the map are looked at when they are read, and by Check.
func Open(file File, length int64) (*Image, error) {
	h, err := readHeader(file, length)
	if err != nil {
		return nil, err
	}
	i := &Image{Header: *h, file: file, length: length}
	i.blocks, err = readMap(file, h)
	return i, err
}

func readMap(file io.ReaderAt, h *Header) ([]uint32, error) {
	raw := make([]byte, 4*int64(h.Blocks))
	if _, err := file.ReadAt(raw, int64(h.MapOffset)); err != nil {
		return nil, fmt.Errorf("read the map at byte %d: %w", h.MapOffset, err)
	}
	blocks := make([]uint32, h.Blocks)
	for n := range blocks {
		blocks[n] = binary.LittleEndian.Uint32(raw[4*n:])
	}
	return blocks, nil
}

// Size implements content.Disk.
func (i *Image) Size() int64 { return int64(i.Header.Size) }

// Close implements content.Disk.
func (i *Image) Close() error { return i.file.Close() }

// ReadAt implements content.Disk.
func (i *Image) ReadAt(p []byte, off int64) (int, error) { return content.ReadAt(i, p, off) }

// Span implements content.Disk.
func (i *Image) Span(off int64) (content.Span, error) {
	s, _, err := i.Piece(off)
	return s, err
}

// longest bounds a piece, in blocks: each is looked for from its beginning.
const longest = 1024

// Piece implements content.Pieces: blocks that follow each other in the file are one piece.
func (i *Image) Piece(off int64) (content.Span, io.ReaderAt, error) {
	size := int64(i.BlockSize)
	first := off / size
	entry := i.blocks[first]
	run := first + 1
	for run < min(int64(len(i.blocks)), first+longest) && follows(entry, i.blocks[run], run-first) {
		run++
	}
	s := content.Clip(content.Span{Offset: off, Length: run*size - off, Kind: kindOf(entry)}, i.Size())
	if s.Kind != content.Data {
		return s, nil, nil
	}
	at := i.blockAt(entry)
	last := i.blocks[run-1]
	if end := at + s.End() - first*size; end > i.length {
		return s, nil, fault.New(fault.Invalid, "the map at byte %d says that block %d is the file's block %d, which ends at byte %d: the file has %d: it was cut off, or the map is damaged",
			int64(i.MapOffset)+4*(run-1), run-1, last, i.blockAt(last)+size, i.length)
	}
	return s, content.Shifted{File: i.file, At: at - first*size}, nil
}

func kindOf(entry uint32) content.Kind {
	switch entry {
	case free:
		return content.Hole
	case zeroed:
		return content.Zero
	}
	return content.Data
}

// follows reports whether an entry that is n blocks behind first goes on with its piece.
func follows(first, entry uint32, n int64) bool {
	if first >= firstNo {
		return entry == first
	}
	return entry < firstNo && int64(entry) == int64(first)+n
}

// Is reports whether a file begins like an image.
func Is(head []byte) bool {
	return len(head) >= SignatureOffset+4 && binary.LittleEndian.Uint32(head[SignatureOffset:]) == Signature
}

// ID reads the UUIDs of the image at path: its own, and that which changes when it is written to.
func ID(path string) (id, modified UUID, err error) {
	file, err := os.Open(path)
	if err != nil {
		return id, modified, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return id, modified, err
	}
	h, err := readHeader(file, info.Size())
	if err != nil {
		return id, modified, err
	}
	return h.UUID, h.Modified, nil
}
