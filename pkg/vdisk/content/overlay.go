package content

import (
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// overlayPage is what an overlay keeps at a time, in bytes.
const overlayPage = 4096

// maxOverlay bounds what it keeps, in bytes.
const maxOverlay = 32 << 20

// Overlay is a disk with changes that are kept in memory: those of a partition table, say. The disk below is only
// read. Safe for concurrent use.
type Overlay struct {
	Disk

	mu    sync.RWMutex
	pages map[int64][]byte // by number; the last one may be short
}

// NewOverlay lays changes over a disk.
func NewOverlay(below Disk) *Overlay { return &Overlay{Disk: below, pages: map[int64][]byte{}} }

// WriteAt implements io.WriterAt within the disk. fault.Exhausted when more is changed than is kept.
func (o *Overlay) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > o.Size() {
		return 0, fault.New(fault.Range, "%d bytes at offset %d are not within the disk's %d", len(p), off, o.Size())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for n < len(p) {
		number, inside := (off+int64(n))/overlayPage, (off+int64(n))%overlayPage
		page, err := o.page(number)
		if err != nil {
			return n, err
		}
		n += copy(page[inside:], p[n:])
	}
	return n, nil
}

// page returns one that can be written to.
func (o *Overlay) page(number int64) ([]byte, error) {
	if page, ok := o.pages[number]; ok {
		return page, nil
	}
	if int64(len(o.pages)) >= maxOverlay/overlayPage {
		return nil, fault.New(fault.Exhausted, "more than %d bytes of the disk are changed", maxOverlay)
	}
	page := make([]byte, min(overlayPage, o.Size()-number*overlayPage))
	if n, err := o.Disk.ReadAt(page, number*overlayPage); n < len(page) {
		return nil, fmt.Errorf("read what is at offset %d: %w", number*overlayPage, err)
	}
	o.pages[number] = page
	return page, nil
}

// ReadAt implements Disk.
func (o *Overlay) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.Disk.ReadAt(p, off)
	o.mu.RLock()
	defer o.mu.RUnlock()
	for number := off / overlayPage; number*overlayPage < off+int64(n); number++ {
		page, ok := o.pages[number]
		if !ok {
			continue
		}
		begin := number * overlayPage
		if begin < off {
			copy(p[:n], page[off-begin:])
		} else {
			copy(p[begin-off:n], page)
		}
	}
	return n, err
}

// Span implements Disk: what was changed is data.
func (o *Overlay) Span(off int64) (Span, error) {
	s, _, err := o.Piece(off)
	return s, err
}

// Piece implements Pieces.
func (o *Overlay) Piece(off int64) (Span, io.ReaderAt, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	number := off / overlayPage
	if page, ok := o.pages[number]; ok {
		return Span{Offset: off, Length: number*overlayPage + int64(len(page)) - off, Kind: Data}, o, nil
	}
	s, err := o.Disk.Span(off)
	return Clip(s, o.next(number)*overlayPage), o, err
}

// next is the first changed page behind one.
func (o *Overlay) next(number int64) int64 {
	next := o.Size()/overlayPage + 1
	for n := range o.pages {
		if n > number {
			next = min(next, n)
		}
	}
	return next
}

// Changed lists the stretches that were changed, in order.
func (o *Overlay) Changed() []Span {
	o.mu.RLock()
	defer o.mu.RUnlock()
	var spans []Span
	for number, page := range o.pages {
		spans = append(spans, Span{Offset: number * overlayPage, Length: int64(len(page))})
	}
	slices.SortFunc(spans, func(a, b Span) int { return int(max(-1, min(1, a.Offset-b.Offset))) })
	return spans
}
