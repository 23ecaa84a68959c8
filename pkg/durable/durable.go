// Package durable writes files that a crash or a power cut leaves whole: with the content from before, or with the new one.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFile replaces the file at path, with the mode given whatever the umask. When it returns nil the new content outlives a power
// cut; when it fails the old file is there, or none if there was none, or the new one if only its directory could not be synced.
// Writers of one path do not disturb each other: the last wins.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), prefix(path)+"*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, bare(err))
	}
	_, err = f.Write(data)
	for _, do := range []func() error{func() error { return f.Chmod(mode) }, f.Sync, f.Close, func() error { return os.Rename(f.Name(), path) }} {
		if err == nil {
			err = do()
		}
	}
	if err != nil {
		_ = errors.Join(f.Close(), os.Remove(f.Name())) // it is the first error that tells
		return fmt.Errorf("write %s: %w", path, bare(err))
	}
	return SyncDir(filepath.Dir(path))
}

// bare is an error without the name of the temporary file, which is another one each time: a write that fails again says the same.
func bare(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	default:
		return err
	}
}

// SyncDir makes names that were given or taken away in a directory outlive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err = d.Sync(); errors.Is(err, unix.EINVAL) {
		err = nil // some file systems have no fsync of directories
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// Leftovers are files that WriteFile was cut off from making paths of. A directory that is not there has none.
func Leftovers(paths ...string) (list []string, err error) {
	for _, path := range paths {
		dir := filepath.Dir(path)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for what was cut off: %w", err)
		}
		for _, e := range entries {
			if e.Type().IsRegular() && IsLeftover(path, e.Name()) {
				list = append(list, filepath.Join(dir, e.Name()))
			}
		}
	}
	return list, nil
}

// IsLeftover reports whether name, without its directory, is such a file's.
func IsLeftover(path, name string) bool {
	random, ok := strings.CutPrefix(name, prefix(path))
	return ok && random != "" && strings.Trim(random, "0123456789") == ""
}

func prefix(path string) string { return "." + filepath.Base(path) + "." }
