package signature

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// LabelSize is what a BlueStore label takes, in bytes.
const LabelSize = 4096

// The label of a BlueStore device (os/bluestore/bluestore_types.cc, bluestore_bdev_label_t):
// a line of text, the OSD's UUID as a line of text, and the encoded label with its CRC-32C.
const (
	blueStoreMagic = "bluestore block device\n"
	labelHead      = int64(len(blueStoreMagic)) + 36 + 1 // where the encoding begins
)

// spareLabels are where Ceph 19.2 and newer keep copies of the label.
var spareLabels = [...]int64{1 << 30, 10 << 30, 100 << 30, 1000 << 30}

func (p *prober) blueStore(at int64) {
	if c, ok := ParseLabel(p.at(at, LabelSize)); ok {
		c.Offset = at
		p.add(c)
	}
}

// SparePlaces are the places, far from the ends of a disk, where copies may lie.
func SparePlaces() []int64 { return append([]int64{firstPartition, btrfsSpare}, spareLabels[:]...) }

// spares looks for copies far from the ends, which outlive what wipes those alone: those of
// BlueStore's label, and the second superblock of btrfs.
func (p *prober) spares() {
	for _, at := range spareLabels {
		if len(p.found) == 0 && at+LabelSize <= p.size {
			p.blueStore(at)
		}
	}
	if bytes.Equal(p.at(btrfsSpare+0x40, int64(len(btrfsMagic))), []byte(btrfsMagic)) {
		p.add(storage.Content{Kind: "btrfs", Offset: btrfsSpare, Detail: "its second superblock"})
	}
}

// ParseLabel reads the first LabelSize bytes of a BlueStore device; ok is false if they are no label.
func ParseLabel(data []byte) (label storage.Content, ok bool) {
	if !bytes.HasPrefix(data, []byte(blueStoreMagic)) {
		return storage.Content{}, false
	}
	c := storage.Content{Kind: BlueStore, OSD: &storage.OSD{}}
	d := &decoder{data: data[labelHead:]}
	meta := d.label(c.OSD)
	switch {
	case d.failed:
		c.Detail = "its label cannot be read"
	case crc32c(data[:len(data)-len(d.data)]) != d.u32():
		c.Detail = "its label's checksum is wrong"
	}
	c.UUID, c.Label = c.OSD.UUID, meta["description"]
	if role := meta["description"]; role != "" && role != "main" && c.Detail == "" {
		c.Detail = role
	}
	return c, true
}

// crc32c is Ceph's: it starts from -1 and does not invert the result.
func crc32c(data []byte) uint32 {
	return ^crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
}

// decoder reads Ceph's encoding; after a failure it returns zeros.
type decoder struct {
	data   []byte
	failed bool
}

func (d *decoder) take(n uint32) []byte {
	if d.failed || uint64(n) > uint64(len(d.data)) {
		d.failed = true
		return make([]byte, min(n, 16)) // as long as the longest field of a fixed size
	}
	field := d.data[:n]
	d.data = d.data[n:]
	return field
}

func (d *decoder) u32() uint32    { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) string() string { return string(d.take(d.u32())) }

// label reads the encoded label into osd and returns its key-value pairs, with its
// description beside them.
func (d *decoder) label(osd *storage.OSD) map[string]string {
	meta := map[string]string{}
	d.take(2) // version and compatible version
	length := d.u32()
	if d.failed || uint64(length) > uint64(len(d.data)) {
		d.failed = true
		return meta
	}
	rest := d.data[length:]
	osd.UUID = uuid(d.take(16))
	osd.Size = storage.Bytes(binary.LittleEndian.Uint64(d.take(8)))
	d.take(8) // time of birth
	meta["description"] = d.string()
	for range d.u32() {
		key := d.string()
		meta[key] = d.string()
		if d.failed {
			return meta
		}
	}
	osd.FSID, osd.ID, osd.Ready = meta["ceph_fsid"], meta["whoami"], meta["ready"] == "ready"
	// Ceph 16.2 leaves the label's own size as it was when the device is expanded, and updates
	// that of the free list beside it (BlueStore::expand_devices).
	if size, err := strconv.ParseInt(meta["bfm_size"], 10, 64); err == nil && size > 0 {
		osd.Size = storage.Bytes(size)
	}
	d.data = rest // what later versions append is skipped
	return meta
}

// DescribeOSD says which OSD a content is, for a person.
func DescribeOSD(osd storage.OSD) string {
	name := "an OSD"
	if osd.ID != "" {
		name = "OSD " + osd.ID
	}
	if osd.FSID == "" {
		return name + " of an unknown Ceph cluster"
	}
	return fmt.Sprintf("%s of Ceph cluster %s", name, osd.FSID)
}
