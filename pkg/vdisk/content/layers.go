package content

import (
	"errors"
	"io"
)

// Over is a disk whose holes show its parent: a snapshot or a differencing image. It closes both. The parent may be
// shorter; what lies behind its end is zeros.
func Over(child, parent Disk) Disk { return &layers{child, parent} }

type layers struct{ child, parent Disk }

func (l *layers) Size() int64 { return l.child.Size() }

func (l *layers) Close() error { return errors.Join(l.child.Close(), l.parent.Close()) }

func (l *layers) ReadAt(p []byte, off int64) (int, error) { return ReadAt(l, p, off) }

func (l *layers) Span(off int64) (Span, error) {
	s, _, err := l.Piece(off)
	return s, err
}

// Piece implements Pieces.
func (l *layers) Piece(off int64) (Span, io.ReaderAt, error) {
	s, err := l.child.Span(off)
	if err != nil || s.Kind != Hole {
		return s, l.child, err
	}
	if off >= l.parent.Size() {
		return s, nil, nil
	}
	below, err := l.parent.Span(off)
	return Clip(below, s.End()), l.parent, err
}

// Resized is a disk of another size: longer by a hole, or cut off. What is read is d's.
func Resized(d Disk, size int64) Disk {
	if size == d.Size() {
		return d
	}
	return &resized{d, size}
}

type resized struct {
	Disk
	size int64
}

func (r *resized) Size() int64 { return r.size }

func (r *resized) ReadAt(p []byte, off int64) (int, error) { return ReadAt(r, p, off) }

func (r *resized) Span(off int64) (Span, error) {
	s, _, err := r.Piece(off)
	return s, err
}

// Piece implements Pieces.
func (r *resized) Piece(off int64) (Span, io.ReaderAt, error) {
	if off >= r.Disk.Size() {
		return Span{Offset: off, Length: r.size - off, Kind: Hole}, nil, nil
	}
	s, err := r.Disk.Span(off)
	return Clip(s, r.size), r.Disk, err
}
