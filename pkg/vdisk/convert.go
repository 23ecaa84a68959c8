package vdisk

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/raw"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vdi"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vmdk"
)

// Target says what a conversion makes.
type Target struct {
	Path      string
	Format    Format // VDI, VMDK or Raw
	Subformat string // of VMDK: monolithicSparse (default) or streamOptimized
	Size      int64  // of the new disk in bytes; 0: the source's
	Overwrite bool   // of a file that is there
}

// Progress is told how far a conversion is: done and total are bytes of the disk.
type Progress func(done, total int64)

// chunk is what is read, packed and written at a time, in bytes: a block of a VDI, sixteen grains of a VMDK.
const chunk = 1 << 20

// writer makes a format. Pack is called by several at once and keeps of a chunk what is not zero; Put and Finish are
// called in the order of the disk. Finish returns how long the file is to be.
type writer interface {
	Pack(chunk []byte, pieces []content.Piece) []content.Piece
	Put(off int64, pieces []content.Piece) error
	Finish() (length int64, err error)
}

var (
	_ writer = (*vdi.Writer)(nil)
	_ writer = (*vmdk.Sparse)(nil)
	_ writer = (*vmdk.Stream)(nil)
	_ writer = (*flat)(nil)
)

// Check refuses a target that cannot be made from a disk of size bytes.
func (t *Target) Check(size int64) error {
	if t.Size == 0 {
		t.Size = size
	}
	switch {
	case t.Size < size:
		return fault.New(fault.Range, "the disk has %d bytes: a smaller one, of %d, would cut off what is in it", size, t.Size)
	case t.Size%vmdk.SectorSize != 0:
		return fault.New(fault.Invalid, "%d bytes are no whole number of sectors of %d", t.Size, vmdk.SectorSize)
	case t.Format == VMDK && t.Subformat == "":
		t.Subformat = "monolithicSparse"
	case t.Format == VMDK && t.Subformat != "monolithicSparse" && t.Subformat != "streamOptimized":
		return fault.New(fault.Unsupported, "a VMDK of the subformat %q is not written: monolithicSparse and streamOptimized are", t.Subformat)
	case t.Format != VMDK && t.Subformat != "":
		return fault.New(fault.Invalid, "only a VMDK has subformats")
	case t.Format == VMDK && strings.ContainsAny(filepath.Base(t.Path), "\"\n\r"):
		return fault.New(fault.Invalid, "the name %q has a quote or a line's end, which a VMDK's descriptor cannot say", filepath.Base(t.Path))
	case t.Format == QCOW2:
		return fault.New(fault.Unsupported, "qcow2 is read only: vdi, vmdk and raw are written")
	case t.Format != VDI && t.Format != VMDK && t.Format != Raw:
		return fault.New(fault.Invalid, "format %q is not known: vdi, vmdk or raw", t.Format)
	}
	return nil
}

// Makeable refuses what Convert would refuse of a disk of size bytes, and makes nothing.
func (t *Target) Makeable(size int64) error {
	if err := t.Check(size); err != nil {
		return err
	}
	return t.free()
}

// Convert writes the content of a disk to a new file. The file has another name until it is whole and synced: cut
// off, nothing is left under its own.
func Convert(ctx context.Context, from content.Disk, target Target, progress Progress) (err error) {
	if err := target.Check(from.Size()); err != nil {
		return err
	}
	out, err := create(target.Path, target.Overwrite)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			out.discard()
		}
	}()
	if target.Format == Raw && cloned(from, out) {
		return out.keep(target.Size)
	}
	w, err := target.writer(out)
	if err != nil {
		return err
	}
	if err := pump(ctx, content.Resized(from, target.Size), w, progress); err != nil {
		return err
	}
	length, err := w.Finish()
	if err != nil {
		return fmt.Errorf("finish %s: %w", target.Path, err)
	}
	return out.keep(length)
}

// cloned has the file system share a raw disk's blocks with the new file, where it can.
func cloned(from content.Disk, out *output) bool {
	if i, ok := from.(*Image); ok && len(i.Parents) == 0 {
		from = i.top
	}
	d, ok := from.(*raw.Disk)
	return ok && d.Clone(out.file)
}

func (t *Target) writer(out *output) (writer, error) {
	switch {
	case t.Format == Raw:
		return &flat{out: out, size: t.Size}, nil
	case t.Format == VDI:
		return vdi.NewWriter(out, t.Size, newUUID(), newUUID())
	case t.Subformat == "streamOptimized":
		return vmdk.NewStream(out, t.Size, filepath.Base(t.Path), newCID())
	}
	return vmdk.NewSparse(out, t.Size, filepath.Base(t.Path), newCID())
}

// newUUID is a random one (RFC 9562, version 4) in the byte order of a VDI.
func newUUID() (u vdi.UUID) {
	_, _ = rand.Read(u[:]) // never fails
	u[7], u[8] = u[7]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}

// newCID is a content id: any number but that of no parent, and VMware's own first one.
func newCID() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint32(b[:])&0x7fffffff | 2
}

// flat writes a disk as it is, with holes.
type flat struct {
	out  io.WriterAt
	size int64
}

// flatPage is the length of zeros that is worth a hole, in bytes.
const flatPage = 32 << 10

func (f *flat) Pack(chunk []byte, pieces []content.Piece) []content.Piece {
	return content.Pack(chunk, flatPage, pieces)
}

func (f *flat) Put(off int64, pieces []content.Piece) error {
	for _, p := range pieces {
		if _, err := f.out.WriteAt(p.Data, off+int64(p.At)); err != nil {
			return err
		}
	}
	return nil
}

func (f *flat) Finish() (int64, error) { return f.size, nil }
