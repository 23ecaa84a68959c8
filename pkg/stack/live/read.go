package live

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// readText reads an attribute of sysfs, "" where there is none.
func readText(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// readSectors reads a size in the kernel's sectors, which are of 512 bytes on every disk.
func readSectors(path string) storage.Bytes {
	n, err := strconv.ParseInt(readText(path), 10, 64)
	if err != nil {
		return 0
	}
	return storage.Bytes(n) * 512
}

// number is a device node's major and minor number; false for what is none.
func number(path string) (major, minor int, ok bool) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil || s.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, false
	}
	return int(unix.Major(s.Rdev)), int(unix.Minor(s.Rdev)), true
}
