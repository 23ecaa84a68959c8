package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// Loop devices, by loop(4). Each of ours carries a tag in lo_file_name, so that it is
// found whatever became of the file under it. Autoclear is off: a loop device lives
// until it is detached by name.

// loopAttach puts a loop device with direct I/O on file and returns its path.
func loopAttach(ctx context.Context, file, tag string, readOnly bool) (string, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	backing, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", file, err)
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", fault.As(fault.Unsupported, fmt.Errorf("no loop devices here (modprobe loop): %w", err))
	}
	defer control.Close()
	path := ""
	err = poll.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return false, fmt.Errorf("find a free loop device: %w", err)
		}
		path = fmt.Sprintf("/dev/loop%d", n)
		err = loopConfigure(path, n, int(backing.Fd()), tag, readOnly)
		return err == nil, ignore(err, unix.EBUSY) // another process was faster: the next one
	})
	if err != nil {
		return "", fmt.Errorf("set up loop device on %s: %w", file, err)
	}
	return path, nil
}

func loopConfigure(path string, n, backing int, tag string, readOnly bool) error {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) { // a /dev without devtmpfs
		if err = unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(7, uint32(n)))); err == nil {
			device, err = os.OpenFile(path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer device.Close()
	config := unix.LoopConfig{Fd: uint32(backing)}
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	if readOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	copy(config.Info.File_name[:], tag)
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &config); err != nil {
		return fmt.Errorf("configure %s: %w", path, err)
	}
	return nil
}

// loopStatus is what the kernel tells about a loop device in use.
type loopStatus struct {
	path  string
	tag   string
	dev   uint64 // of the file under it
	inode uint64
}

// loopGet returns a loop device's state, an error (ENXIO) if it is not in use.
func loopGet(path string) (loopStatus, error) {
	device, err := os.Open(path)
	if err != nil {
		return loopStatus{}, err
	}
	defer device.Close()
	info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if err != nil {
		return loopStatus{}, fmt.Errorf("status of %s: %w", path, err)
	}
	name, _, _ := bytes.Cut(info.File_name[:], []byte{0})
	return loopStatus{path: path, tag: string(name), dev: info.Device, inode: info.Inode}, nil
}

// tagged lists the loop devices with the tag of an id: one, or more when the helper under
// an earlier one died while it was mounted. Devices of others are not even opened: to
// close one may mean to wait for a cluster that is not ours.
func tagged(id string) ([]loopStatus, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var list []loopStatus
	for _, f := range files {
		backing, _ := os.ReadFile(f)
		path := strings.TrimSpace(string(backing))
		// The export of a dead helper is unmounted: its path is "/", or "/ (deleted)".
		if !strings.Contains(path, id) && !strings.HasPrefix(path, "/ ") && path != "/" {
			continue
		}
		s, err := loopGet("/dev/" + filepath.Base(filepath.Dir(filepath.Dir(f))))
		if err == nil && s.tag == tagPrefix+id {
			list = append(list, s)
		}
	}
	return list, nil
}

// on reports whether the device stands on this very file: a FUSE mount made anew has
// another device number.
func (s loopStatus) on(file string) bool {
	var st unix.Stat_t
	if unix.Stat(file, &st) != nil {
		return false
	}
	return st.Ino == s.inode && st.Dev == s.dev
}

// loopDetach frees the device if it still carries the tag, and waits until it is free.
// A device that is mounted or open stays: fault.Busy when ctx ends, and the kernel frees it
// with its last user then (see loopKeep).
func loopDetach(ctx context.Context, path, tag string) error {
	err := poll.Until(ctx, pollEvery, func() (bool, error) {
		s, err := loopGet(path)
		if errors.Is(err, unix.ENXIO) || errors.Is(err, os.ErrNotExist) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if s.tag != tag {
			return true, nil // freed and in use for something else
		}
		return false, loopClear(path)
	})
	if errors.Is(err, context.DeadlineExceeded) { // no %w: this is not the cluster's slowness
		return fault.New(fault.Busy, "detach %s: it is still mounted or open (%v)", path, err)
	}
	if err != nil {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	return nil
}

// loopKeep takes back that a device is to be freed with its last user, which is what
// LOOP_CLR_FD asks for while it is open: else it would vanish, and its number be given to
// another volume, under whoever it is shown to next. ErrLost: it is not the volume's any more.
func loopKeep(path, tag string) error {
	device, err := os.Open(path) // while this is open, no other user is the last
	if err != nil {
		return Lost("%s: %v", path, err)
	}
	defer device.Close()
	fd := int(device.Fd())
	for range 2 { // the second time to see what the first has done
		info, err := unix.IoctlLoopGetStatus64(fd)
		if err != nil {
			return Lost("%s is free: %v", path, err)
		}
		if name, _, _ := bytes.Cut(info.File_name[:], []byte{0}); string(name) != tag {
			return Lost("%s is not the volume's device any more", path)
		}
		if info.Flags&unix.LO_FLAGS_AUTOCLEAR == 0 {
			return nil
		}
		info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
		if err := unix.IoctlLoopSetStatus64(fd, info); err != nil {
			return fmt.Errorf("keep %s: %w", path, err)
		}
	}
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil || info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0 {
		return fault.New(fault.Aborted, "keep %s: somebody else frees it (%v)", path, err)
	}
	return nil
}

// loopForget frees a device on an export that died, at the latest with its last user. The
// kernel asks the export for the status that it is to tell: a dead one has none, and its tag
// cannot be read any more. A device in any other state is left alone.
func loopForget(path string) error {
	if _, err := loopGet(path); !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
		return nil
	}
	return loopClear(path)
}

// loopClear asks for the device to be freed; while it is open elsewhere the kernel does
// so on the last close.
func loopClear(path string) error {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer device.Close()
	_, err = unix.IoctlRetInt(int(device.Fd()), unix.LOOP_CLR_FD)
	return ignore(ignore(err, unix.ENXIO), unix.EBUSY)
}

// loopRefresh makes the device as large as the file under it.
func loopRefresh(path string) error {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer device.Close()
	if _, err := unix.IoctlRetInt(int(device.Fd()), unix.LOOP_SET_CAPACITY); err != nil {
		return fmt.Errorf("grow %s: %w", path, err)
	}
	return nil
}

// DeviceSize returns a block device's size in bytes, as sysfs has it (sectors of 512).
func DeviceSize(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("size of %s: %w", path, err)
	}
	data, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/size", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", path, err)
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", path, err)
	}
	return sectors * 512, nil
}

// ignore turns one errno into no error.
func ignore(err error, errno unix.Errno) error {
	if errors.Is(err, errno) {
		return nil
	}
	return err
}
