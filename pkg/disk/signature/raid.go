package signature

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// md's superblocks (linux/raid/md_p.h): version 0.90 lies in the last 64 KiB that begin at a
// multiple of 64 KiB, 1.0 in the last 8 to 12 KiB, 1.1 at the start, 1.2 at 4 KiB.
const mdMagic = 0xa92b4efc

func (p *prober) raid() {
	p.md090(p.size&^(64<<10-1) - 64<<10)
	p.md1((p.size>>9-16)&^7<<9, "1.0")
	p.md1(0, "1.1")
	p.md1(4096, "1.2")
	p.firmwareRAID()
	p.drbd()
}

func (p *prober) md090(at int64) {
	sb := p.at(at, 4096)
	if sb == nil {
		return
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(sb) != mdMagic {
		order = binary.BigEndian
	}
	if order.Uint32(sb) != mdMagic || order.Uint32(sb[4:]) != 0 {
		return
	}
	id := make([]byte, 0, 16)
	for _, word := range []int{5, 13, 14, 15} {
		id = binary.BigEndian.AppendUint32(id, order.Uint32(sb[4*word:]))
	}
	p.add(storage.Content{Kind: "md", Offset: at, UUID: uuid(id), Detail: fmt.Sprintf("version 0.90, level %d, %d disks", int32(order.Uint32(sb[4*7:])), order.Uint32(sb[4*10:]))})
}

func (p *prober) md1(at int64, version string) {
	sb := p.at(at, 512)
	if sb == nil || binary.LittleEndian.Uint32(sb) != mdMagic || binary.LittleEndian.Uint32(sb[4:]) != 1 {
		return
	}
	p.add(storage.Content{
		Kind: "md", Offset: at, UUID: uuid(sb[16:32]), Label: text(sb[32:64]),
		Detail: fmt.Sprintf("version %s, level %d, %d disks", version, int32(binary.LittleEndian.Uint32(sb[72:])), binary.LittleEndian.Uint32(sb[92:])),
	})
}

// firmwareRAID looks for what RAID of mainboards and controllers leaves at the end of a disk
// (the offsets are libblkid's and dmraid's).
func (p *prober) firmwareRAID() {
	for _, m := range []struct {
		kind  string
		back  []int64 // bytes before the end
		magic string
	}{
		{"imsm", []int64{1024, 8192}, "Intel Raid ISM Cfg Sig. "},
		{"ddf", []int64{512, 4096}, "\xde\x11\xde\x11"},
		{"nvidia_raid", []int64{1024}, "NVIDIA"},
		{"lsi_mega_raid", []int64{512}, "$XIDE$"},
		{"promise_raid", []int64{63 * 512, 255 * 512, 256 * 512, 16 * 512}, "Promise Technology, Inc."},
		{"adaptec_raid", []int64{512}, "\x37\xfc\x4d\x1e"},
	} {
		for _, back := range m.back {
			if bytes.Equal(p.at(p.size-back, int64(len(m.magic))), []byte(m.magic)) {
				p.add(storage.Content{Kind: m.kind, Offset: p.size - back})
				break
			}
		}
	}
}

// drbd looks for DRBD's internal metadata: in the last 4 KiB, with its magic at byte 60.
func (p *prober) drbd() {
	at := p.size&^4095 - 4096
	block := p.at(at, 4096)
	if block == nil {
		return
	}
	switch binary.BigEndian.Uint32(block[60:]) {
	case 0x8374026b, 0x8374026c, 0x8374026d:
		p.add(storage.Content{Kind: "drbd", Offset: at})
	}
}
