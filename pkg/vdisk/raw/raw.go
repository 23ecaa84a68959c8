// Package raw reads disks that are kept as they are: files, with their holes, and block devices.
package raw

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// SectorSize is what sizes of disks are multiples of, in bytes.
const SectorSize = 512

// Disk is a file or block device, or a stretch of a file.
type Disk struct {
	file       *os.File
	from, size int64
	shared     bool // the file is closed by somebody else
}

var _ content.Disk = (*Disk)(nil)

// New is all of a file or block device, which it owns from now on. A last sector that is cut off is fault.Invalid.
func New(file *os.File) (*Disk, error) {
	size, err := file.Seek(0, io.SeekEnd) // of a block device, too
	if err != nil {
		return nil, fmt.Errorf("find the size of %s: %w", file.Name(), err)
	}
	if size%SectorSize != 0 {
		return nil, fault.New(fault.Invalid, "%s has %d bytes, which is no whole number of sectors of %d: it was cut off, or is no disk", file.Name(), size, SectorSize)
	}
	return &Disk{file: file, size: size}, nil
}

// Section is size bytes of a file from byte from on.
func Section(file *os.File, from, size int64) *Disk { return &Disk{file: file, from: from, size: size} }

// Shared is a Section whose Close leaves the file open.
func Shared(file *os.File, from, size int64) *Disk {
	return &Disk{file: file, from: from, size: size, shared: true}
}

// Clone makes out, an empty file, share the whole of the disk's file with it, which takes no time and no space; false: the file
// system cannot (ioctl_ficlone(2): Btrfs and XFS can), the disk is a part of a file, or the files are on two file systems.
func (d *Disk) Clone(out *os.File) bool {
	info, err := d.file.Stat()
	if err != nil || !info.Mode().IsRegular() || d.from != 0 || info.Size() != d.size {
		return false
	}
	return unix.IoctlFileClone(int(out.Fd()), int(d.file.Fd())) == nil
}

// Size implements content.Disk.
func (d *Disk) Size() int64 { return d.size }

// Close implements content.Disk.
func (d *Disk) Close() error {
	if d.shared {
		return nil
	}
	return d.file.Close()
}

// ReadAt implements content.Disk.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	rest := d.size - off
	if off < 0 || rest <= 0 {
		return 0, io.EOF
	}
	if int64(len(p)) <= rest {
		return d.file.ReadAt(p, d.from+off)
	}
	n, err := d.file.ReadAt(p[:rest], d.from+off)
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// Span implements content.Disk by the holes that the file system knows of (lseek(2), SEEK_DATA and SEEK_HOLE). What
// knows of none is data.
func (d *Disk) Span(off int64) (content.Span, error) {
	s := content.Span{Offset: off, Length: d.size - off}
	fd := int(d.file.Fd())
	data, err := unix.Seek(fd, d.from+off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		s.Kind = content.Hole // up to the end
		return s, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP): // a block device
		return s, nil
	case err != nil:
		return s, fmt.Errorf("look for data in %s from byte %d: %w", d.file.Name(), d.from+off, err)
	case data > d.from+off:
		s.Kind = content.Hole
		return content.Clip(s, min(data-d.from, d.size)), nil
	}
	hole, err := unix.Seek(fd, d.from+off, unix.SEEK_HOLE)
	if err != nil {
		return s, fmt.Errorf("look for a hole in %s from byte %d: %w", d.file.Name(), d.from+off, err)
	}
	return content.Clip(s, min(hole-d.from, d.size)), nil
}
