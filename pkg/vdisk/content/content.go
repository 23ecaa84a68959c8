// Package content is what a virtual disk holds, whatever file it is kept in: the one interface that readers of all
// formats give and that conversion, import and comparison take. It knows no format and opens no file.
package content

import (
	"errors"
	"fmt"
	"io"
)

// Kind is what a span of a disk holds.
type Kind uint8

// Kinds of spans.
const (
	Data Kind = iota // was written; it may hold zeros all the same
	Zero             // was said to be zeros, and hides what a parent has there
	Hole             // was never written: zeros, or what the parent has there
)

// String names the kind as `holdfast image map` prints it.
func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case Zero:
		return "zero"
	case Hole:
		return "hole"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Span is a stretch of a disk of one kind: Offset and Length are bytes.
type Span struct {
	Offset, Length int64
	Kind           Kind
}

// End is the first byte behind the span.
func (s Span) End() int64 { return s.Offset + s.Length }

// Disk is the content of a virtual disk. ReadAt is safe for concurrent use, reads zeros where nothing was written,
// and returns io.EOF with what it read when it meets the end.
type Disk interface {
	io.ReaderAt
	io.Closer
	// Size is in bytes.
	Size() int64
	// Span returns the stretch of one kind that begins at off, 0 <= off < Size. It may end before the kind
	// changes, never after, and never behind Size.
	Span(off int64) (Span, error)
}

// Clip bounds a span that begins before limit.
func Clip(s Span, limit int64) Span {
	s.Length = min(s.Length, limit-s.Offset)
	return s
}

// Each calls fn for all of a disk in ascending order, neighbours of one kind as one span.
func Each(d Disk, fn func(Span) error) error {
	var run Span
	for off := int64(0); off < d.Size(); {
		s, err := d.Span(off)
		if err != nil {
			return err
		}
		if s.Length <= 0 || s.Offset != off {
			return fmt.Errorf("span at offset %d is said to be %d bytes at %d", off, s.Length, s.Offset)
		}
		off = s.End()
		switch {
		case run.Length == 0:
			run = s
		case run.Kind == s.Kind:
			run.Length += s.Length
		default:
			if err := fn(run); err != nil {
				return err
			}
			run = s
		}
	}
	if run.Length == 0 {
		return nil
	}
	return fn(run)
}

// Pieces is how a format finds what it holds: the piece that covers off. From (when Kind is Data) reads it.
type Pieces interface {
	Size() int64
	// Piece returns the span of one kind around off, cut to begin at off, and for Data what reads p at
	// that offset of the disk.
	Piece(off int64) (Span, io.ReaderAt, error)
}

// ReadAt implements Disk.ReadAt on pieces. A piece's reader is asked by offsets of the disk.
func ReadAt(d Pieces, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("offset %d is negative", off)
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		if at >= d.Size() {
			return n, io.EOF
		}
		s, from, err := d.Piece(at)
		if err != nil {
			return n, err
		}
		part := p[n:min(int64(len(p)), int64(n)+s.Length)]
		if s.Kind != Data {
			clear(part)
		} else if got, err := from.ReadAt(part, at); got < len(part) {
			return n + got, fmt.Errorf("read %d bytes at offset %d of the disk: %w", len(part), at, unexpected(err))
		}
		n += len(part)
	}
	return n, nil
}

func unexpected(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Shifted reads a file whose byte At+x is byte x of the disk; At may be negative.
type Shifted struct {
	File io.ReaderAt
	At   int64
}

// ReadAt implements io.ReaderAt.
func (s Shifted) ReadAt(p []byte, off int64) (int, error) { return s.File.ReadAt(p, s.At+off) }
