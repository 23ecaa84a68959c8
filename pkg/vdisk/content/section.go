package content

import "io"

// Section is length bytes of a disk from byte from on: a partition. Closing it closes nothing.
func Section(d Disk, from, length int64) Disk { return &section{d, from, length} }

type section struct {
	of           Disk
	from, length int64
}

func (s *section) Size() int64 { return s.length }

func (*section) Close() error { return nil }

func (s *section) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(s.of, s.from, s.length).ReadAt(p, off)
}

func (s *section) Span(off int64) (Span, error) {
	span, err := s.of.Span(s.from + off)
	span.Offset = off
	return Clip(span, s.length), err
}

// Spliced is a disk in which another one takes the place of what is at byte at. It must fit. Closing it closes
// the first.
func Spliced(d Disk, at int64, inner Disk) Disk { return &spliced{d, at, inner} }

type spliced struct {
	Disk
	at    int64
	inner Disk
}

func (s *spliced) ReadAt(p []byte, off int64) (int, error) { return ReadAt(s, p, off) }

func (s *spliced) Span(off int64) (Span, error) {
	span, _, err := s.Piece(off)
	return span, err
}

// Piece implements Pieces.
func (s *spliced) Piece(off int64) (Span, io.ReaderAt, error) {
	if off >= s.at && off < s.at+s.inner.Size() {
		span, err := s.inner.Span(off - s.at)
		span.Offset = off
		return span, Shifted{File: s.inner, At: -s.at}, err
	}
	span, err := s.Disk.Span(off)
	if off < s.at {
		span = Clip(span, s.at)
	}
	return span, s.Disk, err
}
