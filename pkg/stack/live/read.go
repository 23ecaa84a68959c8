package live

import (
	"os"
	"strconv"
	"strings"

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
