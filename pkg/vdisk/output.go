package vdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// output is a new file that gets its name when it is whole.
type output struct {
	file      *os.File
	path      string
	overwrite bool
	since     int64 // bytes that were written since the kernel was asked to begin with writing back
	at        int64 // where that begins
}

// writeBack is after how many bytes the kernel is asked to begin, so that the sync at the end finds little to do.
const writeBack = 32 << 20

// create begins a file beside the one at path. That another has the name already is found out now and at the end. What a
// process that died left of the same file is removed.
func create(path string, overwrite bool) (*output, error) {
	if err := (&Target{Path: path, Overwrite: overwrite}).free(); err != nil {
		return nil, err
	}
	pattern := "." + shorten(filepath.Base(path)) + ".partial-"
	sweep(filepath.Dir(path), pattern)
	for {
		file, err := os.CreateTemp(filepath.Dir(path), pattern+"*")
		if err != nil {
			return nil, err
		}
		ours, err := lockNew(file)
		if err == nil && ours {
			return &output{file: file, path: path, overwrite: overwrite}, nil
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return nil, errors.Join(err, os.Remove(file.Name()))
		}
	}
}

// lockNew shows others that somebody works on a new file or folder. ours is false of one that the sweep of another process took for
// left over in the moment before, and removes.
func lockNew(file *os.File) (ours bool, err error) {
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return hasName(file, file.Name())
}

// hasName reports whether what is open is what has the name now.
func hasName(file *os.File, path string) (bool, error) {
	open, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(open, named), err
}

// free refuses a name that a new file cannot have.
func (t *Target) free() error {
	if info, err := os.Lstat(t.Path); err == nil {
		if !t.Overwrite {
			return fault.New(fault.Exists, "%s is there already: give another name, or --overwrite", t.Path)
		}
		if !info.Mode().IsRegular() {
			return fault.New(fault.Precondition, "%s is not a file: a device is not overwritten", t.Path)
		}
	}
	folder := filepath.Dir(t.Path)
	if info, err := os.Stat(folder); err != nil {
		return err
	} else if !info.IsDir() {
		return fault.New(fault.Invalid, "%s is not a folder", folder)
	}
	if err := unix.Access(folder, unix.W_OK|unix.X_OK); err != nil {
		return fault.New(fault.Denied, "a file cannot be made in %s: %v", folder, err)
	}
	return nil
}

// sweep removes the files whose names begin with prefix and that nobody has locked: who wrote them died.
func sweep(folder, prefix string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return // the new file will say so
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && (e.Type().IsRegular() || e.IsDir()) {
			_ = sweepOne(filepath.Join(folder, e.Name())) // what cannot be removed is in nobody's way
		}
	}
}

func sweepOne(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// WorkFolder makes a folder beside a file that is to be, for what its making needs. done removes it; what a process that
// died left of another is removed now.
func WorkFolder(path string) (folder string, done func(), err error) {
	prefix := "." + shorten(filepath.Base(path)) + ".work-"
	sweep(filepath.Dir(path), prefix)
	for {
		if folder, err = os.MkdirTemp(filepath.Dir(path), prefix+"*"); err != nil {
			return "", nil, err
		}
		lock, err := os.Open(folder)
		if errors.Is(err, fs.ErrNotExist) { // as if lockNew said it
			continue
		}
		if err != nil {
			return "", nil, errors.Join(err, os.RemoveAll(folder))
		}
		ours, err := lockNew(lock)
		if err == nil && ours {
			return folder, func() {
				_ = os.RemoveAll(folder)
				_ = lock.Close()
			}, nil
		}
		if err = errors.Join(err, lock.Close()); err != nil {
			return "", nil, errors.Join(err, os.RemoveAll(folder))
		}
	}
}

// shorten keeps the name with its additions within the 255 bytes that file systems take.
func shorten(name string) string { return name[:min(len(name), 200)] }

// WriteAt writes, and asks the kernel to begin with writing back.
func (o *output) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.file.WriteAt(p, off)
	if err != nil {
		return n, explainWrite(err)
	}
	if o.since == 0 {
		o.at = off
	}
	if o.since += int64(n); o.since >= writeBack {
		// Only a hint: what the file system does not know of it does by itself.
		_ = unix.SyncFileRange(int(o.file.Fd()), o.at, max(0, off+int64(n)-o.at), unix.SYNC_FILE_RANGE_WRITE)
		o.since = 0
	}
	return n, nil
}

func explainWrite(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.New(fault.Exhausted, "the file system is full: %v", err)
	}
	return err
}

// keep syncs the file, of length bytes, and gives it its name.
func (o *output) keep(length int64) error {
	if err := o.file.Truncate(length); err != nil {
		return explainWrite(err)
	}
	mode := 0o666 &^ umask()
	if info, err := os.Stat(o.path); err == nil && o.overwrite {
		mode = info.Mode().Perm()
	}
	if err := o.file.Chmod(mode); err != nil {
		return err
	}
	if err := o.file.Sync(); err != nil {
		return explainWrite(err)
	}
	if err := o.name(); err != nil {
		return err
	}
	return errors.Join(o.file.Close(), durable.SyncDir(filepath.Dir(o.path)))
}

// name takes the name; RENAME_NOREPLACE refuses one that somebody has taken meanwhile.
func (o *output) name() error {
	if o.overwrite {
		return os.Rename(o.file.Name(), o.path)
	}
	err := unix.Renameat2(unix.AT_FDCWD, o.file.Name(), unix.AT_FDCWD, o.path, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return fault.New(fault.Exists, "%s was made by somebody else meanwhile", o.path)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS): // the file system does not know it
		return os.Rename(o.file.Name(), o.path)
	}
	return err
}

func (o *output) discard() {
	_ = o.file.Close()
	_ = os.Remove(o.file.Name())
}

// umask is that of the process, which can only be read by setting it: /proc tells since Linux 4.7.
func umask() os.FileMode {
	status, err := os.ReadFile("/proc/self/status")
	mask := 0o022
	if err == nil {
		_, _ = fmt.Sscanf(after(string(status), "Umask:"), "%o", &mask)
	}
	return os.FileMode(mask)
}

func after(text, key string) string {
	_, rest, _ := strings.Cut(text, key)
	return strings.TrimSpace(rest)
}
