package md

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Where the partial parity log lies on each member, in sectors of 512 bytes from its start. mdadm puts it right behind the
// superblock and gives up ("Not enough space to add ppl") where the bad block log is, which every member has unless
// mdadm.conf(5) says otherwise; the kernel takes any place before the data (Documentation/admin-guide/md.rst, ppl_sector
// and ppl_size). 1 MiB is what mdadm gives it. It begins behind all that mdadm puts before the data: the bad block log
// is at sector 24, 144 or 272, by the member's size, and at 2064 on one that is added while there is a log (mdadm: super1.c,
// write_init_super1, choose_bm_space).
const (
	logAt     = 4096
	logLength = 2048
)

// The log's header (linux/raid/md_p.h, struct ppl_header): 512 reserved bytes of 0xff, the signature, 4 bytes of padding, an
// 8-byte generation, the number of entries, the checksum. Both sums are CRC-32C, the signature's over the
// array's UUID (drivers/md/raid5-ppl.c, ppl_init_log).
const (
	logHeader   = 4096
	signatureAt = 512
	checksumAt  = 532
)

// emptyLog is the header of a log without entries.
func emptyLog(uuid string) ([]byte, error) {
	id, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil || len(id) != 16 {
		return nil, fault.New(fault.Invalid, "array UUID %q: want 32 hexadecimal digits", uuid)
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	buf := make([]byte, logHeader)
	for i := range signatureAt {
		buf[i] = 0xff
	}
	binary.LittleEndian.PutUint32(buf[signatureAt:], crc32.Checksum(id, table))
	binary.LittleEndian.PutUint32(buf[checksumAt:], crc32.Checksum(buf, table))
	return buf, nil
}

// addLog gives an array in sync a partial parity log: an empty one on each member, then the kernel is told.
func (t Tool) addLog(a Array) error {
	header, err := emptyLog(a.UUID)
	if err != nil {
		return err
	}
	for _, m := range a.Members {
		if err := t.addMemberLog(a, m, header); err != nil {
			return fmt.Errorf("add a parity log to array %s: %w", a.Device, err)
		}
	}
	return t.set(a.Device, "consistency_policy", "ppl")
}

func (t Tool) addMemberLog(a Array, m Member, header []byte) error {
	r := &attributes{dir: filepath.Join(t.Sys, "block", a.Device, "md", "dev-"+m.Device)}
	if data := r.number("offset"); r.err != nil || data < logAt+logLength {
		return fault.New(fault.Unsupported, "%s: data begin at sector %d, so there is no room for a log (%v)", m.Device, data, r.err)
	}
	if err := writeAt("/dev/"+m.Device, header, logAt*512); err != nil {
		return err
	}
	if err := t.set(a.Device, "dev-"+m.Device+"/ppl_sector", strconv.Itoa(logAt)); err != nil {
		return err
	}
	return t.set(a.Device, "dev-"+m.Device+"/ppl_size", strconv.Itoa(logLength))
}

// writeAt writes to a device and waits until it is there.
func writeAt(device string, data []byte, at storage.Bytes) error {
	f, err := os.OpenFile(device, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		return fmt.Errorf("write parity log: %w", err)
	}
	if _, err := f.WriteAt(data, int64(at)); err != nil {
		f.Close()
		return fmt.Errorf("write parity log to %s: %w", device, err)
	}
	return f.Close()
}
