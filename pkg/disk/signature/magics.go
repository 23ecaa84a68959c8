package signature

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// magic is a signature at a fixed place. The offsets and bytes are those of libblkid
// (util-linux, libblkid/src/superblocks) and of the kernel's own headers.
type magic struct {
	kind   string
	offset int64
	bytes  string
	detail func(c *storage.Content, block []byte) // may be nil; gets the first detailSize bytes from base
}

// detailSize is what the functions below may look at.
const detailSize = 72 << 10

const (
	btrfsMagic = "_BHRfS_M"
	btrfsSpare = 64 << 20
)

var magicTable = []magic{
	{"crypto_LUKS", 0, "LUKS\xba\xbe", luks},
	{"crypto_LUKS", 0x4000, "SKUL\xba\xbe", nil},
	{"crypto_LUKS", 0x8000, "SKUL\xba\xbe", nil},
	{"crypto_LUKS", 0x10000, "SKUL\xba\xbe", nil},
	{"crypto_LUKS", 0x20000, "SKUL\xba\xbe", nil},
	{"BitLocker", 3, "-FVE-FS-", nil},
	{"stratis", 516, "!Stra0tis\x86\xff\x02^\x41rh", nil},
	{"vdo", 0, "dmvdo001", nil},
	{"bcache", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf7\xf5\x7f\x48\xba\x6d", nil},
	{"bcachefs", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", nil},
	{"dm-integrity", 0, "integrt\x00", nil},
	{"dm-verity", 0, "verity\x00\x00", nil},
	{"dm-snapshot", 0, "SnAp", nil},
	{"oracle-asm", 32, "ORCLDISK", nil},
	{"vmfs_member", 0, "\x0d\xd0\x01\xc0", nil}, // where a first partition begins
	{"xfs", 0, "XFSB", func(c *storage.Content, b []byte) { c.UUID, c.Label = uuid(b[32:]), text(b[108:120]) }},
	{"ext2", 0x438, "\x53\xef", ext},
	{"btrfs", 0x10040, btrfsMagic, func(c *storage.Content, b []byte) { c.UUID, c.Label = uuid(b[0x10020:]), text(b[0x1012b:0x1022b]) }},
	{"f2fs", 1024, "\x10\x20\xf5\xf2", nil},
	{"nilfs2", 1024, "\x02\x00\x00\x00\x00\x00\x34\x34", nil},
	{"jfs", 32768, "JFS1", nil},
	{"reiserfs", 0x10034, "ReIsEr", nil},
	{"reiserfs", 0x2034, "ReIsEr", nil},
	{"gfs2", 0x10000, "\x01\x16\x19\x70", nil},
	{"ocfs2", 1024, "OCFSV2", nil},
	{"ocfs2", 8192, "OCFSV2", nil},
	{"squashfs", 0, "hsqs", nil},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0", nil},
	{"iso9660", 32769, "CD001", nil},
	{"udf", 32769, "BEA01", nil},
	{"apfs", 32, "NXSB", nil},
	{"hfsplus", 1024, "H+\x00\x04", nil},
	{"hfsplus", 1024, "HX\x00\x05", nil},
	{"ntfs", 3, "NTFS    ", nil},
	{"refs", 3, "ReFS\x00", nil},
	{"exfat", 3, "EXFAT   ", nil},
	{"vfat", 82, "FAT32   ", nil},
	{"vfat", 54, "FAT16   ", nil},
	{"vfat", 54, "FAT12   ", nil},
	{"swap", 4096 - 10, "SWAPSPACE2", swap},
	{"swap", 8192 - 10, "SWAPSPACE2", nil},
	{"swap", 16384 - 10, "SWAPSPACE2", nil},
	{"swap", 65536 - 10, "SWAPSPACE2", nil},
	{"hibernation", 4096 - 10, "S1SUSPEND", nil},
	{"hibernation", 4096 - 10, "LINHIB0001", nil},
	{"amiga", 0, "RDSK", nil},
	{"mac", 512, "PM\x00\x00", nil},
	{"sgi", 0, "\x0b\xe5\xa9\x41", nil},
	{"sun", 508, "\xda\xbe", nil},
	{"bsd", 512, "\x57\x45\x56\x82", nil},
}

// magics adds every entry of the table that is found from base on, a kind once.
func (p *prober) magics(base int64) {
	seen := map[string]bool{}
	for _, m := range magicTable {
		if seen[m.kind] || !bytes.Equal(p.at(base+m.offset, int64(len(m.bytes))), []byte(m.bytes)) {
			continue
		}
		seen[m.kind] = true
		c := storage.Content{Kind: m.kind, Offset: base + m.offset}
		if block := p.at(base, detailSize); m.detail != nil && block != nil {
			m.detail(&c, block)
		}
		p.add(c)
	}
}

// ext tells ext2, ext3 and ext4 apart by their features (Documentation/filesystems/ext4).
func ext(c *storage.Content, b []byte) {
	sb := b[1024:2048]
	compatible, incompatible := binary.LittleEndian.Uint32(sb[92:]), binary.LittleEndian.Uint32(sb[96:])
	switch {
	case incompatible&0x0008 != 0:
		c.Kind = "ext-journal"
	case incompatible&(0x40|0x80|0x200) != 0: // extents, 64 bit, flexible block groups
		c.Kind = "ext4"
	case compatible&0x4 != 0:
		c.Kind = "ext3"
	}
	c.UUID, c.Label = uuid(sb[104:]), text(sb[120:136])
}

// What the LUKS2 header of an encrypted OSD says: which OSD in its label (Holdfast's), of
// which cluster in its subsystem (Holdfast's and Rook's).
const (
	LabelOfOSD     = "hf-osd-"
	SubsystemOfOSD = "ceph_fsid="
)

var fsidInSubsystem = regexp.MustCompile(SubsystemOfOSD + `([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})`)

// luks reads label and subsystem of LUKS2.
func luks(c *storage.Content, b []byte) {
	version := binary.BigEndian.Uint16(b[6:])
	c.UUID, c.Detail = text(b[168:208]), "version "+strconv.Itoa(int(version))
	if version != 2 {
		return
	}
	c.Label = text(b[24:72])
	subsystem := text(b[208:256])
	if subsystem != "" {
		c.Detail += ", " + subsystem
	}
	if m := fsidInSubsystem.FindStringSubmatch(subsystem); m != nil {
		c.OSD = &storage.OSD{FSID: m[1], Encrypted: true}
		c.OSD.UUID, _ = strings.CutPrefix(c.Label, LabelOfOSD)
	}
}

func swap(c *storage.Content, b []byte) {
	c.UUID, c.Label = uuid(b[1024+12:]), text(b[1024+28:1024+44])
}
