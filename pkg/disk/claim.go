package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/disk/signature"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// claimSpan is what must read as zeros at both ends before a disk is taken, in bytes: more
// than a scan looks at.
const claimSpan = 4 << 20

// Find looks at the one disk with this identity, and at no other's content: fault.NotFound without one, and
// fault.Precondition when several have it.
func (s *Scanner) Find(ctx context.Context, id storage.DiskID) (storage.Disk, error) {
	k, all, err := s.identify(ctx)
	if err != nil {
		return storage.Disk{}, err
	}
	var found []string
	for _, d := range all {
		if d.ID == id && id != "" {
			found = append(found, d.Name)
		}
	}
	switch len(found) {
	case 0:
		return storage.Disk{}, fault.New(fault.NotFound, "there is no disk %s in this machine", id)
	case 1:
		return s.probe(k, found[0]), nil
	default:
		return storage.Disk{}, fault.New(fault.Precondition, "%s have the identity %s", strings.Join(found, ", "), id)
	}
}

// Identify says what the disks are, and reads none of them: neither Contents nor Reasons are told.
func (s *Scanner) Identify(ctx context.Context) ([]storage.Disk, error) {
	_, all, err := s.identify(ctx)
	return all, err
}

func (s *Scanner) identify(ctx context.Context) (kernel, []storage.Disk, error) {
	k, err := readKernel(s.cfg.Root)
	if err != nil {
		return k, nil, err
	}
	names, err := s.names()
	if err != nil {
		return k, nil, err
	}
	var all []storage.Disk
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return k, nil, err
		}
		if f := s.look(k, name); f.driver != "" {
			all = append(all, f.Disk)
		}
	}
	return k, all, nil
}

// Path returns the disk's device node, which is right until the disk is pulled.
func (s *Scanner) Path(d storage.Disk) string { return s.path(d.Name) }

// Claim looks at the disk again and opens it exclusively and locked, for the moment before
// the first write. fault.Precondition says why it is not free.
func (s *Scanner) Claim(ctx context.Context, id storage.DiskID) (storage.Disk, *os.File, error) {
	d, err := s.Find(ctx, id)
	if err != nil {
		return d, nil, err
	}
	if !d.Free() {
		return d, nil, fault.New(fault.Precondition, "disk %s (%s) is not free, nothing was written to it: %s", id, d.Name, d.Why())
	}
	file, err := s.hold(d)
	if err != nil {
		return d, nil, err
	}
	if err := blankAtBothEnds(file); err != nil {
		return d, nil, errors.Join(fault.New(fault.Precondition, "disk %s (%s) is not free, nothing was written to it: %w", id, d.Name, err), file.Close())
	}
	return d, file, nil
}

// hold opens the disk for writing, exclusively and locked.
func (s *Scanner) hold(d storage.Disk) (*os.File, error) {
	file, err := s.openFor(&facts{Disk: d}, os.O_RDWR|unix.O_EXCL)
	if errors.Is(err, unix.EBUSY) {
		return nil, fault.New(fault.Busy, "disk %s (%s): something has it open exclusively", d.ID, d.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", d.ID, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fault.New(fault.Busy, "disk %s (%s): something has it locked", d.ID, d.Name), file.Close())
	}
	return file, nil
}

func blankAtBothEnds(file *os.File) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("ask for its size: %w", err)
	}
	span := make([]byte, min(claimSpan, size))
	for _, at := range []int64{0, size - int64(len(span))} {
		if _, err := file.ReadAt(span, at); err != nil {
			return fmt.Errorf("read it: %w", err)
		}
		if i := signature.FirstNonZero(span); i >= 0 {
			return fmt.Errorf("there is data at byte %d", at+int64(i))
		}
	}
	return nil
}

// Token is what a person must say to have the disk wiped: it names the serial number and, for
// a foreign OSD, its cluster, so that it cannot be meant for another disk.
func Token(d storage.Disk) string {
	name := d.Serial
	if name == "" {
		name = string(d.ID)
	}
	token := "wipe " + name
	for _, c := range d.Contents {
		if c.OSD != nil && c.OSD.FSID != "" {
			return token + " of " + c.OSD.FSID
		}
	}
	return token
}

// wipeable are the reasons that a wipe takes away; all others mean that somebody uses the
// disk, or that it is not known well enough.
var wipeable = []storage.ReasonCode{storage.ReasonCeph, storage.ReasonContent, storage.ReasonTable, storage.ReasonPartitions, storage.ReasonData, storage.ReasonSize}

// Wipe makes all that is recognised on the disk unreadable: zeros at both ends and wherever
// spare copies lie. The token must be the disk's (see Token). It succeeds when the disk then
// carries nothing; a disk that is blank already is left alone.
func (s *Scanner) Wipe(ctx context.Context, id storage.DiskID, token string) error {
	d, err := s.Find(ctx, id)
	if err != nil {
		return err
	}
	for _, r := range d.Reasons {
		if !slices.Contains(wipeable, r.Code) {
			return fault.New(fault.Precondition, "disk %s (%s) is not wiped: %s", id, d.Name, r.Message)
		}
	}
	if len(d.Contents) == 0 && !d.Because(storage.ReasonPartitions) {
		return nil
	}
	if want := Token(d); token != want {
		return fault.New(fault.Denied, "disk %s (%s) holds %s; to destroy all that is on it, say %q", id, d.Name, d.Why(), want)
	}
	file, err := s.hold(d)
	if err != nil {
		return err
	}
	if err := errors.Join(zero(file, int64(d.Size)), file.Close()); err != nil {
		return fmt.Errorf("wipe disk %s: %w", id, err)
	}
	after, err := s.Find(ctx, id)
	if err != nil {
		return err
	}
	if len(after.Contents) > 0 || after.Because(storage.ReasonUnknown) {
		return fault.New(fault.Precondition, "disk %s (%s) was wiped and is still not blank: %s", id, d.Name, after.Why())
	}
	return nil
}

// Blank makes a device that has just been made, such as a logical volume, as blank as Claim wants a disk: zeros at both ends and wherever
// spare copies lie. What an earlier user of the same place left there would be taken for the new user's.
func Blank(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		err = zero(file, size)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("blank %s: %w", path, err)
	}
	return nil
}

// zero overwrites both ends and the places of spare copies, and makes the kernel forget
// partitions.
func zero(file *os.File, size int64) error {
	zeros := make([]byte, claimSpan)
	places := append([]int64{0, size - claimSpan}, signature.SparePlaces()...)
	for _, at := range places {
		at = max(at, 0)
		if at >= size {
			continue
		}
		if _, err := file.WriteAt(zeros[:min(claimSpan, size-at)], at); err != nil {
			return fmt.Errorf("write at byte %d: %w", at, err)
		}
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	err := unix.IoctlSetInt(int(file.Fd()), unix.BLKRRPART, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) { // it cannot have any
		return fmt.Errorf("read partitions again: %w", err)
	}
	return nil
}
