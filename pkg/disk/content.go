package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// path is the device's node below /dev; the kernel writes '/' in names as '!'.
func (s *Scanner) path(name string) string {
	return filepath.Join(s.cfg.Root, "dev", strings.ReplaceAll(name, "!", "/"))
}

// open opens the device and makes sure that it is the one that sysfs tells of: between the
// two, the name may have moved to another disk.
func (s *Scanner) open(f *facts, flags int) (*os.File, error) {
	return s.openFor(f, os.O_RDONLY|unix.O_NONBLOCK|flags)
}

func (s *Scanner) openFor(f *facts, flags int) (*os.File, error) {
	file, err := os.OpenFile(s.path(f.Name), flags, 0)
	if err != nil {
		return nil, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		if now := fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev)); now != f.Device {
			return nil, errors.Join(fmt.Errorf("%s is device %s, and not %s", file.Name(), now, f.Device), file.Close())
		}
	case unix.S_IFREG:
		if !s.cfg.Images {
			return nil, errors.Join(fmt.Errorf("%s is a file", file.Name()), file.Close())
		}
	default:
		return nil, errors.Join(fmt.Errorf("%s is no block device", file.Name()), file.Close())
	}
	return file, nil
}

// read looks at what is on the device. Only what may be a disk is read: a question to a CD
// drive or a dead network device may hang.
func (s *Scanner) read(f *facts) {
	if f.driver == "" || f.hidden || f.Size == 0 {
		return
	}
	file, err := s.open(f, unix.O_DIRECT)
	if errors.Is(err, unix.EINVAL) { // a driver without direct reads
		file, err = s.open(f, 0)
	}
	if err != nil {
		f.unanswered = append(f.unanswered, fmt.Sprintf("open it: %v", err))
		return
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	switch {
	case err != nil:
		f.unanswered = append(f.unanswered, fmt.Sprintf("ask for its size: %v", err))
		return
	case storage.Bytes(size) != f.Size:
		f.unanswered = append(f.unanswered, fmt.Sprintf("its size: the kernel says %s in sysfs and %s when it is opened", f.Size, storage.Bytes(size)))
	}
	s.reader.file, s.reader.size = file, size
	f.Contents, err = s.prober.Probe(&s.reader, size)
	if err != nil {
		f.unanswered = append(f.unanswered, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// tryAlone finds users that leave no other trace: it opens the disk exclusively for a
// moment, which fails while a file system, swap, md, LVM or another program that asked for
// the same has it, and locks it. Only disks that look free are asked, so that a daemon that
// starts on a disk of its own never meets this.
func (s *Scanner) tryAlone(f *facts) {
	file, err := s.open(f, unix.O_EXCL)
	if errors.Is(err, unix.EBUSY) {
		f.busy = "a program or a mount in another namespace has it open exclusively"
		return
	}
	if err != nil {
		f.unanswered = append(f.unanswered, fmt.Sprintf("open it exclusively: %v", err))
		return
	}
	defer file.Close()
	err = unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.busy = "a program has it locked (flock)"
	} else if err != nil {
		f.unanswered = append(f.unanswered, fmt.Sprintf("lock it: %v", err))
	}
}
