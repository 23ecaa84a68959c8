// Package qcow2 reads QEMU's images by a library; nothing is written in this format.
package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	library "github.com/lima-vm/go-qcow2reader/image/qcow2"

	"github.com/lima-vm/go-qcow2reader/image"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// Is reports whether a file begins like an image.
func Is(head []byte) bool { return bytes.HasPrefix(head, []byte("QFI\xfb")) }

// Disk is an image.
type Disk struct {
	image image.Image
	file  io.Closer
}

var _ content.Disk = (*Disk)(nil)

// File is what an image is kept in.
type File interface {
	io.ReaderAt
	io.Closer
}

// Offsets of the header's fields (QEMU: docs/interop/qcow2.txt).
const (
	atBacking  = 8
	atClusters = 20
	atSize     = 24
	atL1Size   = 36
	headerSize = 72
)

// maxL1 bounds the first table, in entries: 16 MiB of memory.
const maxL1 = 2 << 20

// Open reads the header. An image with a backing file is fault.Unsupported: the library would open whatever file of
// this machine the image names.
func Open(file File) (*Disk, error) {
	head := make([]byte, headerSize)
	if _, err := file.ReadAt(head, 0); err != nil {
		return nil, fault.New(fault.Invalid, "read the header: %v", err)
	}
	be := binary.BigEndian
	if be.Uint64(head[atBacking:]) != 0 {
		return nil, fault.New(fault.Unsupported, "the image has a backing file (offset of its name at byte %d is not 0): make one image of both with `qemu-img convert` first", atBacking)
	}
	if bits := be.Uint32(head[atClusters:]); bits < 9 || bits > 21 {
		return nil, fault.New(fault.Invalid, "cluster size at byte %d is 2^%d: it must be from 2^9 to 2^21", atClusters, bits)
	}
	if l1 := be.Uint32(head[atL1Size:]); l1 > maxL1 {
		return nil, fault.New(fault.Invalid, "size of the L1 table at byte %d is %d entries: at most %d are known", atL1Size, l1, maxL1)
	}
	if size := be.Uint64(head[atSize:]); size == 0 || size > 1<<60 || size%512 != 0 {
		return nil, fault.New(fault.Invalid, "disk size at byte %d is %d: it must be a multiple of 512 above 0", atSize, size)
	}
	opened, err := library.Open(file, nil)
	if err == nil {
		err = opened.Readable()
	}
	if err != nil {
		return nil, fault.New(fault.Unsupported, "read the image: %v", err)
	}
	return &Disk{image: opened, file: file}, nil
}

// Size implements content.Disk.
func (d *Disk) Size() int64 { return d.image.Size() }

// Close implements content.Disk.
func (d *Disk) Close() error { return d.file.Close() }

// ReadAt implements content.Disk.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return d.image.ReadAt(p, off) }

// Span implements content.Disk.
func (d *Disk) Span(off int64) (content.Span, error) {
	s := content.Span{Offset: off, Length: d.Size() - off}
	found, err := d.image.Extent(off, s.Length)
	if err != nil {
		return s, fmt.Errorf("look up offset %d: %w", off, err)
	}
	switch {
	case !found.Allocated:
		s.Kind = content.Hole
	case found.Zero:
		s.Kind = content.Zero
	}
	return content.Clip(s, found.Start+found.Length), nil
}
