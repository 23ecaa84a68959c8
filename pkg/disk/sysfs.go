package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// directory is an open directory of sysfs. A scan of many disks reads some dozen small files
// each, so they are read by descriptor and without a buffer of their own.
type directory struct {
	fd   int
	path string
	buf  [4096]byte
}

func openDirectory(path string) (*directory, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &directory{fd: fd, path: path}, nil
}

func (d *directory) close() { unix.Close(d.fd) }

// raw reads a file as it is.
func (d *directory) raw(name string) ([]byte, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(d.path, name), err)
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, d.buf[:])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(d.path, name), err)
	}
	return d.buf[:n], nil
}

// text reads a file, with every run of blanks made one and none at the ends.
func (d *directory) text(name string) (string, error) {
	data, err := d.raw(name)
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(data), "?")), " "), err
}

// number reads a file that holds a number.
func (d *directory) number(name string) (int64, error) {
	text, err := d.text(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", filepath.Join(d.path, name), err)
	}
	return n, nil
}

// optional reads a file that not every device has; "" where there is none.
func (d *directory) optional(name string) (string, error) {
	text, err := d.text(name)
	if absent(err) {
		return "", nil
	}
	return text, err
}

// absent reports whether the file is not there. A device may also have the file and nothing
// to say in it: SCSI's pages then give EINVAL, and ENXIO or ENODATA elsewhere.
func absent(err error) bool {
	for _, e := range []error{os.ErrNotExist, unix.ENOTDIR, unix.EINVAL, unix.ENXIO, unix.ENODATA, unix.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// list returns the names in a directory below this one; "." is this one.
func (d *directory) list(name string) ([]string, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", filepath.Join(d.path, name), err)
	}
	defer unix.Close(fd)
	var names []string
	for {
		n, err := unix.Getdents(fd, d.buf[:])
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", filepath.Join(d.path, name), err)
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(d.buf[:n], -1, names)
	}
}
