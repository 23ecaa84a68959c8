package vdisk

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/raw"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vdi"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vmdk"
)

// CanGrow refuses an image that Grow cannot make a disk of size bytes, with the reason.
func (i *Image) CanGrow(size int64) error {
	switch {
	case i.Member != "":
		return fault.New(fault.Unsupported, "a disk in an archive does not grow in place: use `holdfast image convert` with --size")
	case i.Format == QCOW2:
		return fault.New(fault.Unsupported, "qcow2 is read only: use `holdfast image convert` with --size, or `qemu-img resize`")
	case size%raw.SectorSize != 0:
		return fault.New(fault.Invalid, "%d bytes are no whole number of sectors of %d", size, raw.SectorSize)
	case size < i.Size():
		return fault.New(fault.Range, "the disk has %d bytes: it only grows, and %d are fewer", i.Size(), size)
	case len(i.Parents) > 0:
		return fault.New(fault.Unsupported, "a snapshot does not grow by itself: convert the disk to one of its own with --size")
	case i.Format == VMDK && i.Subformat != "monolithicSparse" && i.Subformat != "monolithicFlat" && i.Subformat != "vmfs":
		return fault.New(fault.Unsupported, "a disk of the subformat %s does not grow in place: use `holdfast image convert` with --size", i.Subformat)
	}
	return nil
}

// Grow makes the disk in the image at path larger, in place: size is in bytes. Cut off, the image is the
// old one or the new one. Nobody else may have it open: other Holdfasts are kept out by a lock, virtual machines are not.
func Grow(path string, options Options, size int64) error {
	i, err := Open(path, options)
	if err != nil {
		return err
	}
	err = i.CanGrow(size)
	flatFile := ""
	if d, ok := i.top.(*vmdk.Disk); ok && err == nil && i.Subformat != "monolithicSparse" {
		flatFile, err = soleFlat(i, d)
	}
	if closeErr := i.Close(); err == nil {
		err = closeErr
	}
	if err != nil || size == i.Size() {
		return err
	}
	if flatFile != "" {
		return growFlat(i, flatFile, size)
	}
	return locked(i.Path, func(file *os.File, length int64) error {
		switch i.Format {
		case VDI:
			return vdi.Grow(file, length, size)
		case VMDK:
			return vmdk.Grow(file, length, size)
		default:
			return extend(file, length, size)
		}
	})
}

// locked opens a file for writing and keeps others that lock it out.
func locked(path string, do func(file *os.File, length int64) error) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // all is synced by then
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fault.New(fault.Busy, "%s is in use by another process: %v", path, err)
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fault.New(fault.Unsupported, "%s is not a file: a device grows where it is made", path)
	}
	if err := do(file, info.Size()); err != nil {
		return fmt.Errorf("%s: %w", path, explainWrite(err))
	}
	return nil
}

func extend(file *os.File, length, size int64) error {
	if size <= length {
		return nil
	}
	if err := file.Truncate(size); err != nil {
		return err
	}
	return file.Sync()
}

// soleFlat is the file of a disk that is one flat file as a whole.
func soleFlat(i *Image, d *vmdk.Disk) (string, error) {
	if len(d.Extents) != 1 || d.Extents[0].Offset != 0 || len(i.Files) != 2 {
		return "", fault.New(fault.Unsupported, "a disk of several extents does not grow in place: use `holdfast image convert` with --size")
	}
	return i.Files[1], nil
}

// growFlat makes the flat file longer and then changes the descriptor: what is in the file behind the disk's end does
// not count.
func growFlat(i *Image, flatFile string, size int64) error {
	d := i.top.(*vmdk.Disk)
	err := locked(flatFile, func(file *os.File, length int64) error {
		// Behind the end there may be something that the disk never had.
		if length > i.Size() {
			if err := file.Truncate(i.Size()); err != nil {
				return err
			}
		}
		return extend(file, min(length, i.Size()), size)
	})
	if err != nil {
		return err
	}
	out, err := create(i.Path, true)
	if err != nil {
		return err
	}
	text := d.Resized(size)
	if _, err := out.WriteAt(text, 0); err != nil {
		out.discard()
		return err
	}
	if err := out.keep(int64(len(text))); err != nil {
		out.discard()
		return err
	}
	return nil
}

// Check looks at the structure of an image and returns what is wrong: damage may cost content, counts do not. At most
// limit findings each.
func (i *Image) Check(limit int) (damage, counts []string, err error) {
	switch d := i.top.(type) {
	case *vdi.Image:
		damage, counts = d.Check(limit)
	case *vmdk.Disk:
		damage = d.Check(limit)
	default:
		err = content.Each(i.top, func(content.Span) error { return nil })
	}
	return damage, counts, err
}

// Allocated is how many bytes of the disk are data, parents' included.
func (i *Image) Allocated() (int64, error) {
	var sum int64
	err := content.Each(i.Disk, func(s content.Span) error {
		if s.Kind == content.Data {
			sum += s.Length
		}
		return nil
	})
	return sum, err
}
