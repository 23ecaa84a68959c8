package vmdk

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// Stream writes a streamOptimized disk, the form of OVA files: compressed grains, each table behind its grains, and at
// the end the directory and a footer.
type Stream struct {
	out       io.WriterAt
	h         *header
	directory []uint32
	at        int64 // bytes written
	table     table
	buffer    []byte
}

// streamBuffer is how much is gathered before it is written, in bytes.
const streamBuffer = 1 << 20

// NewStream begins a disk of size bytes; name is what the file will be called.
func NewStream(out io.WriterAt, size int64, name string, cid uint32) (*Stream, error) {
	h := freshHeader(3, flagDeflated|flagMarkers, size/SectorSize)
	h.Directory, h.Overhead = directoryEnd, grainSectors
	if h.tables()*4 > maxDirectory {
		return nil, fault.New(fault.Range, "a disk of %d bytes needs a directory of more than %d", size, maxDirectory)
	}
	w := &Stream{out: out, h: h, directory: make([]uint32, h.tables()), table: table{number: -1}, buffer: make([]byte, 0, streamBuffer+2*grainBytes)}
	text := describe("streamOptimized", "SPARSE", name, size, cid)
	if len(text) > descriptorSectors*SectorSize {
		return nil, fault.New(fault.Invalid, "the name %q is too long for the descriptor", name)
	}
	head := make([]byte, grainBytes)
	copy(head, h.sector())
	copy(head[SectorSize:], text)
	return w, w.append(head)
}

// append writes whole sectors behind what is there.
func (w *Stream) append(p []byte) error {
	w.buffer = append(w.buffer, p...)
	if rest := len(w.buffer) % SectorSize; rest != 0 {
		w.buffer = append(w.buffer, make([]byte, SectorSize-rest)...)
	}
	if len(w.buffer) < streamBuffer {
		return nil
	}
	return w.flush()
}

func (w *Stream) flush() error {
	n, err := w.out.WriteAt(w.buffer, w.at)
	w.at += int64(n)
	w.buffer = w.buffer[:0]
	return err
}

// here is the sector that is written next.
func (w *Stream) here() int64 { return (w.at + int64(len(w.buffer))) / SectorSize }

type deflater struct {
	packed bytes.Buffer
	writer *zlib.Writer
}

var deflaters = sync.Pool{New: func() any {
	d := &deflater{}
	// Level 1: images are large and links are fast; VMware's own tools take it, too. It is in range.
	d.writer, _ = zlib.NewWriterLevel(&d.packed, zlib.BestSpeed)
	return d
}}

// Pack implements the writer of a conversion: each grain that is not zero is compressed, with its marker before it but for
// the sector.
func (w *Stream) Pack(chunk []byte, pieces []content.Piece) []content.Piece {
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	for at := 0; at < len(chunk); at += grainBytes {
		plain := chunk[at:min(at+grainBytes, len(chunk))]
		if content.IsZero(plain) {
			continue
		}
		pieces = append(pieces, content.Piece{At: at, Data: d.grain(plain)})
	}
	return pieces
}

// grain compresses one; a short one is filled up, since readers expect whole grains. Writing to memory does not fail.
func (d *deflater) grain(plain []byte) []byte {
	d.packed.Reset()
	d.packed.Write(make([]byte, markerSize))
	d.writer.Reset(&d.packed)
	_, _ = d.writer.Write(plain)
	if rest := grainBytes - len(plain); rest > 0 {
		_, _ = d.writer.Write(make([]byte, rest))
	}
	_ = d.writer.Close()
	b := bytes.Clone(d.packed.Bytes())
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-markerSize))
	return b
}

// Put implements the writer of a conversion.
func (w *Stream) Put(off int64, pieces []content.Piece) error {
	for _, p := range pieces {
		number := (off + int64(p.At)) / grainBytes
		if err := w.turn(number / tableEntries); err != nil {
			return err
		}
		if w.here() >= 1<<32-streamBuffer/SectorSize {
			return fault.New(fault.Range, "the disk holds more than fits into a sparse VMDK of 2 TiB")
		}
		binary.LittleEndian.PutUint64(p.Data, uint64(number*grainSectors))
		w.table.entries[number%tableEntries], w.table.used = uint32(w.here()), true
		if err := w.append(p.Data); err != nil {
			return err
		}
	}
	return nil
}

// turn writes the table that is being filled, unless it is the one wanted.
func (w *Stream) turn(number int64) error {
	if w.table.number == number {
		return nil
	}
	if w.table.used {
		if err := w.append(marker(tableSectors, markerTable)); err != nil {
			return err
		}
		w.directory[w.table.number] = uint32(w.here())
		if err := w.append(w.table.bytes()); err != nil {
			return err
		}
	}
	w.table = table{number: number}
	return nil
}

func marker(sectors int64, kind uint32) []byte {
	b := make([]byte, SectorSize)
	binary.LittleEndian.PutUint64(b, uint64(sectors))
	binary.LittleEndian.PutUint32(b[markerSize:], kind)
	return b
}

// Finish writes directory, footer and end, and returns how long the file is, in bytes.
func (w *Stream) Finish() (int64, error) {
	if err := w.turn(-1); err != nil {
		return 0, err
	}
	b := make([]byte, 4*len(w.directory))
	for n, sector := range w.directory {
		binary.LittleEndian.PutUint32(b[4*n:], sector)
	}
	if err := w.append(marker((int64(len(b))+SectorSize-1)/SectorSize, markerDir)); err != nil {
		return 0, err
	}
	w.h.Directory = uint64(w.here())
	for _, p := range [][]byte{b, marker(1, markerFooter), w.h.sector(), marker(0, markerEnd)} {
		if err := w.append(p); err != nil {
			return 0, err
		}
	}
	err := w.flush()
	return w.at, err
}
