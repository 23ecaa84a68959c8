package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// mounts is the mount table and what changes it.
type mounts interface {
	// At returns the topmost mount on path, nil without one. It touches no file
	// system, so a dead one does not hang it.
	At(path string) (*mountinfo.Info, error)
	Mount(device, target, fs string, options []string, readOnly bool) error
	// Bind shows source at target too.
	Bind(source, target string, readOnly bool) error
	// Unmount takes the topmost mount away: fault.Busy while it is in use.
	Unmount(target string) error
	// Drop takes every mount on target away, used or not; for dead ones.
	Drop(target string) error
}

type system struct{}

var _ mounts = system{}

func (system) At(path string) (*mountinfo.Info, error) {
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list[len(list)-1], nil
}

func (system) Mount(device, target, fs string, options []string, readOnly bool) error {
	flags, data := attach.MountOptions(options)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(device, target, fs, flags, data); err != nil {
		return fmt.Errorf("mount %s (%s) on %s: %w", device, fs, target, err)
	}
	return nil
}

func (system) Bind(source, target string, readOnly bool) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	// A bind takes no other flags at once, and a remount must repeat those that stand
	// (mount_namespaces(7): locked flags; else it would drop nosuid and the like).
	var st unix.Statfs_t
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY)
	err := unix.Statfs(target, &st)
	if err == nil {
		for _, f := range []uintptr{unix.MS_NOSUID, unix.MS_NODEV, unix.MS_NOEXEC} { // ST_* have the same values
			flags |= uintptr(st.Flags) & f
		}
		for st1, ms := range map[uintptr]uintptr{unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME} {
			if uintptr(st.Flags)&st1 != 0 {
				flags |= ms
			}
		}
		err = unix.Mount("", target, "", flags, "")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make %s read-only: %w", target, err), unix.Unmount(target, unix.MNT_DETACH))
	}
	return nil
}

func (system) Unmount(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		return fault.As(fault.Busy, fmt.Errorf("unmount %s: a process still uses it: %w", target, err))
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

func (system) Drop(target string) error {
	for range 16 {
		err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	return fault.New(fault.Busy, "unmount %s: it stays mounted", target)
}

// resolvePath returns the path as the mount table shows it: the directory above it
// without symbolic links. The last element is not looked at; it may be a dead mount.
func resolvePath(path string) string {
	path = filepath.Clean(path)
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(dir, filepath.Base(path))
}

// unmountOne takes the mount on path away if there is one; a dead one is dropped.
func unmountOne(m mounts, path string) error {
	for range 16 {
		at, err := m.At(path)
		if err != nil || at == nil {
			return err
		}
		if err := m.Unmount(path); err != nil {
			if errors.Is(err, fault.Busy) {
				return err
			}
			return m.Drop(path)
		}
	}
	return fault.New(fault.Busy, "unmount %s: it stays mounted", path)
}

// dead reports whether the file system at path is dead.
func dead(path string) bool {
	_, err := os.Stat(path)
	return isDead(err)
}

// isDead reports whether an error means that the server of a file system is gone: a
// FUSE process that died, a CephFS client that the cluster cut off, a device with errors
// for which the file system shut itself down.
func isDead(err error) bool {
	for _, errno := range []unix.Errno{unix.ENOTCONN, unix.ESTALE, unix.ECONNABORTED, unix.ESHUTDOWN, unix.EIO} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
