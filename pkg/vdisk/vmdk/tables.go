package vmdk

import (
	"encoding/binary"
	"io"
	"sync"
)

// tables reads grain tables as they are asked for, and keeps some: all of those of a disk of 2 TiB are 128 MiB.
// Safe for concurrent use.
type tables struct {
	file    io.ReaderAt
	entries int // of a table

	mu   sync.Mutex
	kept map[uint32][]uint32 // by sector
}

// keptTables is how many tables are kept: with 512 entries each, half a MiB.
const keptTables = 256

// at returns the table that begins at a sector of the file.
func (t *tables) at(sector uint32) ([]uint32, error) {
	t.mu.Lock()
	table, ok := t.kept[sector]
	t.mu.Unlock()
	if ok {
		return table, nil
	}
	table, err := readTable(t.file, int64(sector)*SectorSize, t.entries, "a grain table")
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.kept) >= keptTables || t.kept == nil {
		t.kept = make(map[uint32][]uint32, keptTables) // readers go from the front to the end: the old ones are done with
	}
	t.kept[sector] = table
	return table, nil
}

func readTable(file io.ReaderAt, off int64, entries int, what string) ([]uint32, error) {
	raw, err := readAll(file, off, 4*int64(entries), what)
	if err != nil {
		return nil, err
	}
	table := make([]uint32, entries)
	for n := range table {
		table[n] = binary.LittleEndian.Uint32(raw[4*n:])
	}
	return table, nil
}
