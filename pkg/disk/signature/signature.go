// Package signature recognises what is on a disk by the bytes themselves: file systems,
// LVM, md and firmware RAID, encryption, BlueStore, partition tables; at the start and at
// the end of the disk, at the places of spare copies, and where a first partition usually
// begins. What nothing recognises and is not zero is reported as data: a disk counts as
// blank only when all that was read is zero.
//
// It is pure: it reads from an io.ReaderAt and writes nothing.
package signature

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// What is looked at of either end of the disk, in bytes. The head covers MBR, GPT, LVM, md's
// newer superblocks, both headers of LUKS and the first superblocks of file systems; the tail
// the backup GPT, md's older superblocks and the metadata of firmware RAID.
const (
	Head = 136 << 10
	Tail = 128 << 10
)

// firstPartition is where partitioning programs have let the first partition begin since 2009.
const firstPartition = 1 << 20

// Kinds that are no magic of the table.
const (
	BlueStore = "bluestore"
	Data      = "data" // not zero, and nothing that is known
	GPT       = "gpt"
	DOS       = "dos"
)

// Prober probes one disk after the other with the same buffers. Its zero value is ready; it
// serves one caller at a time.
type Prober struct{ head, tail, former []byte }

// Probe looks at a disk of size bytes. It returns what it found, the most telling first, and
// every place that could not be read as an error beside it: then nothing may be concluded
// from what is missing.
func (b *Prober) Probe(r io.ReaderAt, size int64) ([]storage.Content, error) {
	p := &prober{reader: r, size: size}
	p.head = p.readInto(&b.head, 0, min(size, Head))
	p.tail = p.readInto(&b.tail, max(0, size-Tail), min(size, Tail))
	p.blueStore(0)
	p.table()
	p.raid()
	p.zfs()
	p.lvm(0)
	p.magics(0)
	p.bootSector()
	if len(p.found) == 0 {
		p.formerPartition(&b.former)
	}
	if len(p.found) == 0 {
		p.spares()
	}
	if len(p.found) == 0 {
		p.unknown()
	}
	return p.found, errors.Join(p.errs...)
}

// Probe is Prober.Probe for a single disk.
func Probe(r io.ReaderAt, size int64) ([]storage.Content, error) { return new(Prober).Probe(r, size) }

// prober holds both ends of the disk in memory.
type prober struct {
	reader     io.ReaderAt
	size       int64
	head, tail []byte // less than Head and Tail on a small disk
	former     []byte // where a first partition may have been, once it was read
	found      []storage.Content
	errs       []error
}

// read reads n bytes; a place that cannot be read becomes an error and nil.
func (p *prober) read(at, n int64) []byte { return p.readInto(new([]byte), at, n) }

func (p *prober) readInto(buffer *[]byte, at, n int64) []byte {
	if int64(cap(*buffer)) < n {
		*buffer = make([]byte, n)
	}
	buf := (*buffer)[:n]
	if got, err := p.reader.ReadAt(buf, at); int64(got) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		p.errs = append(p.errs, fmt.Errorf("read %d KiB at byte %d: %w", n>>10, at, err))
		return nil
	}
	return buf
}

// at returns n bytes of the disk, nil beyond it and where it cannot be read.
func (p *prober) at(offset, n int64) []byte {
	switch last := p.size - int64(len(p.tail)); {
	case offset < 0 || n < 0 || offset > p.size-n:
		return nil
	case offset+n <= Head:
		if p.head == nil { // unreadable, and said so
			return nil
		}
		return p.head[offset : offset+n]
	case offset >= firstPartition && offset+n <= firstPartition+int64(len(p.former)):
		return p.former[offset-firstPartition:][:n]
	case len(p.tail) > 0 && offset >= last:
		return p.tail[offset-last : offset-last+n]
	case offset >= p.size-Tail: // the unreadable end
		return nil
	default:
		return p.read(offset, n)
	}
}

// ReadAt serves readers that want an io.ReaderAt, from memory where it can.
func (p *prober) ReadAt(buf []byte, offset int64) (int, error) {
	data := p.at(offset, int64(len(buf)))
	if data == nil {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(buf, data), nil
}

func (p *prober) add(c storage.Content) { p.found = append(p.found, c) }

// formerPartition looks for what is left of a first partition when the table is gone.
func (p *prober) formerPartition(buffer *[]byte) {
	if p.size < firstPartition+detailSize {
		return
	}
	p.former = p.readInto(buffer, firstPartition, detailSize)
	p.magics(firstPartition)
	p.lvm(firstPartition)
}

// unknown reports the first byte of what was read that is not zero.
func (p *prober) unknown() {
	for _, end := range []struct {
		data  []byte
		start int64
	}{{p.head, 0}, {p.former, firstPartition}, {p.tail, p.size - int64(len(p.tail))}} {
		if i := FirstNonZero(end.data); i >= 0 {
			p.add(storage.Content{Kind: Data, Offset: end.start + int64(i)})
			return
		}
	}
}

var zeros [max(Head, Tail, detailSize)]byte

// FirstNonZero returns the index of the first byte that is not zero, -1 without one.
func FirstNonZero(data []byte) int {
	if len(data) <= len(zeros) && bytes.Equal(data, zeros[:len(data)]) {
		return -1
	}
	return bytes.IndexFunc(data, func(r rune) bool { return r != 0 })
}

// text is a field that ends with NUL or with the field.
func text(field []byte) string {
	before, _, _ := bytes.Cut(field, []byte{0})
	return string(bytes.ToValidUTF8(bytes.TrimSpace(before), []byte("?")))
}

// uuid prints 16 bytes as a UUID, "" for zeros.
func uuid(b []byte) string {
	if len(b) < 16 || FirstNonZero(b[:16]) < 0 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
