package vdisk

import (
	"errors"
	"fmt"
	"io"
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
// old one or the new one. Nobody else may have it open: other Holdfasts and QEMU are kept out by their locks, other machines are not.
func Grow(path string, options Options, size int64) error { return grow(path, options, size, false) }

// Growable refuses what Grow would refuse, and changes nothing.
func Growable(path string, options Options, size int64) error { return grow(path, options, size, true) }

func grow(path string, options Options, size int64, dry bool) error {
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
	sparse := i.Format == VMDK && flatFile == "" // what was cut off may be left to tidy up
	if err != nil || size == i.Size() && !sparse {
		return err
	}
	if flatFile != "" {
		return growFlat(i, flatFile, size, dry)
	}
	return locked(i.Path, dry, func(file content.Editable, length int64) error {
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

// untouched is a file of which nothing is changed: the first change is errUntouched.
type untouched struct{ *os.File }

var errUntouched = errors.New("a change of the file")

func (untouched) WriteAt([]byte, int64) (int, error) { return 0, errUntouched }
func (untouched) Truncate(int64) error               { return errUntouched }
func (untouched) Sync() error                        { return errUntouched }

// locked opens a file for writing and keeps others that lock it out. A dry one ends at the first change.
func locked(path string, dry bool, do func(file content.Editable, length int64) error) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // all is synced by then
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fault.New(fault.Busy, "%s is in use by another process: %v", path, err)
	}
	if err := lockOutQEMU(file); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fault.New(fault.Unsupported, "%s is not a file: a device grows where it is made", path)
	}
	var changed content.Editable = file
	if dry {
		changed = untouched{file}
	}
	if err := do(changed, info.Size()); err != nil && !errors.Is(err, errUntouched) {
		return fmt.Errorf("%s: %w", path, explainWrite(err))
	}
	return nil
}

// QEMU's locks on an image: a byte for each permission that it uses, and for each that it does not share (block/file-posix.c,
// RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE).
const (
	qemuLocks     = 100
	qemuLocksSpan = 200
)

// lockOutQEMU takes all of QEMU's locks on a file, for as long as it is open.
func lockOutQEMU(file *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: qemuLocks, Len: qemuLocksSpan}
	err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return fault.New(fault.Busy, "%s is in use by a virtual machine, or another program that takes QEMU's locks: shut it down first", file.Name())
	}
	return nil // a file system without locks has none to mind
}

func extend(file content.Editable, length, size int64) error {
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
func growFlat(i *Image, flatFile string, size int64, dry bool) error {
	d := i.top.(*vmdk.Disk)
	err := locked(flatFile, dry, func(file content.Editable, length int64) error {
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
	if dry {
		return (&Target{Path: i.Path, Overwrite: true}).free()
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
