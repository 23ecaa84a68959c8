package edit_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/holdfast-storage/holdfast/pkg/partition/edit"
)

// inMemory is a disk.
type inMemory []byte

func (m inMemory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

func (m inMemory) WriteAt(p []byte, off int64) (int, error) {
	if n := copy(m[off:], p); n < len(p) {
		return n, io.ErrShortWrite
	}
	return len(p), nil
}

// The only partition of an MBR ends at the end of a disk that has become larger.
func ExampleGrow() {
	disk := make(inMemory, 64<<20)
	entry := disk[446:462]
	entry[4] = 0x83
	binary.LittleEndian.PutUint32(entry[8:], 2048)        // its first sector
	binary.LittleEndian.PutUint32(entry[12:], 16<<20/512) // how many it has
	disk[510], disk[511] = 0x55, 0xaa
	table, err := edit.Grow(disk, int64(len(disk)), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range table.Partitions {
		fmt.Println(table.Kind, p.Number, p.Type, p.Start, p.Size)
	}
	// Output:
	// mbr 1 83 1048576 66060288
}
