// Package partition reads partition tables: GPT with its backup, and MBR. It looks at both
// copies of a GPT each for itself, because a leftover backup alone already means that a disk
// is somebody's. It reads from an io.ReaderAt, writes nothing and imports no other package
// of this module.
package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// State is what a copy of a GPT is like.
type State string

// The states.
const (
	Absent  State = "absent"  // no signature
	Intact  State = "intact"  // header and entries have the right checksums
	Damaged State = "damaged" // the signature is there and a checksum or a field is wrong
)

// Copy is the primary or the backup GPT.
type Copy struct {
	State  State
	Offset int64  // bytes
	Why    string // what is wrong with a damaged one
	Used   int    // entries in use
}

// MBR is what sector 0 holds.
type MBR struct {
	Signature  bool // 55 AA at byte 510
	Used       int  // entries that have a type and a size
	Protective bool // an entry of type EE: a GPT is or was there
	Code       bool // boot code or anything else in the first 440 bytes
}

// Table is all that is there of partition tables.
type Table struct {
	MBR             MBR
	Primary, Backup Copy
}

const (
	mbrSize     = 512
	headerSize  = 92 // UEFI 2.10, section 5.3.2
	entrySize   = 128
	maxEntries  = 1024
	sectorSmall = 512
	sectorLarge = 4096
)

var signature = []byte("EFI PART")

// Read looks for tables on a disk of size bytes. A GPT is looked for at the places of both
// sector sizes, 512 and 4096: an image may have been written under the other one.
func Read(r io.ReaderAt, size int64) (Table, error) {
	t := Table{Primary: Copy{State: Absent}, Backup: Copy{State: Absent}}
	sector := make([]byte, mbrSize)
	if size < mbrSize {
		return t, nil
	}
	if err := readFull(r, sector, 0); err != nil {
		return t, err
	}
	t.MBR = parseMBR(sector)
	var err error
	if t.Primary, err = either(r, size, func(sector int64) int64 { return sector }); err != nil {
		return t, err
	}
	t.Backup, err = either(r, size, func(sector int64) int64 { return size/sector*sector - sector })
	return t, err
}

func readFull(r io.ReaderAt, buf []byte, at int64) error {
	if n, err := r.ReadAt(buf, at); n < len(buf) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %d bytes at %d: %w", len(buf), at, err)
	}
	return nil
}

func parseMBR(sector []byte) MBR {
	m := MBR{Signature: sector[510] == 0x55 && sector[511] == 0xaa, Code: len(bytes.Trim(sector[:440], "\x00")) > 0}
	if !m.Signature {
		return m
	}
	for i := range 4 {
		entry := sector[446+16*i:][:16]
		kind, sectors := entry[4], binary.LittleEndian.Uint32(entry[12:])
		// The first byte is 0x80 (active) or 0: boot sectors of file systems end with 55 AA, too,
		// and have text here.
		if kind == 0 || sectors == 0 || entry[0]&0x7f != 0 {
			continue
		}
		m.Used++
		m.Protective = m.Protective || kind == 0xee
	}
	return m
}

// either reads the copy for both sector sizes and returns the better one.
func either(r io.ReaderAt, size int64, place func(sector int64) int64) (Copy, error) {
	best := Copy{State: Absent}
	for _, sector := range []int64{sectorSmall, sectorLarge} {
		c, err := readCopy(r, size, place(sector), sector)
		if err != nil {
			return best, err
		}
		if best.State == Absent || c.State == Intact {
			best = c
		}
	}
	return best, nil
}

func readCopy(r io.ReaderAt, size, at, sector int64) (Copy, error) {
	c := Copy{State: Absent, Offset: at}
	if at < sector || at+sector > size {
		return c, nil
	}
	header := make([]byte, sectorSmall)
	if err := readFull(r, header, at); err != nil {
		return c, err
	}
	if !bytes.Equal(header[:8], signature) {
		return c, nil
	}
	c.State = Damaged
	var err error
	c.Why, err = c.check(r, header, size, sector)
	if err == nil && c.Why == "" {
		c.State = Intact
	}
	return c, err
}

// check returns what is wrong with the header or its entries, "" if nothing is.
func (c *Copy) check(r io.ReaderAt, header []byte, size, sector int64) (string, error) {
	le := binary.LittleEndian
	length := le.Uint32(header[12:])
	if length < headerSize || int64(length) > int64(len(header)) {
		return fmt.Sprintf("its header claims %d bytes", length), nil
	}
	sum := le.Uint32(header[16:])
	clear(header[16:20])
	if crc32.ChecksumIEEE(header[:length]) != sum {
		return "its header's checksum is wrong", nil
	}
	if int64(le.Uint64(header[24:])) != c.Offset/sector {
		return "its header belongs to another place", nil
	}
	number, width := le.Uint32(header[80:]), le.Uint32(header[84:])
	if width < entrySize || width > sectorLarge || number > maxEntries {
		return fmt.Sprintf("it claims %d entries of %d bytes", number, width), nil
	}
	start := le.Uint64(header[72:])
	entries := make([]byte, int(number)*int(width))
	if start > uint64(size/sector) || int64(start)*sector+int64(len(entries)) > size {
		return "its entries lie beyond the disk", nil
	}
	if err := readFull(r, entries, int64(start)*sector); err != nil {
		return "", err
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(header[88:]) {
		return "its entries' checksum is wrong", nil
	}
	for i := range int(number) {
		if len(bytes.Trim(entries[i*int(width):][:16], "\x00")) > 0 {
			c.Used++
		}
	}
	return "", nil
}
