package signature

import (
	"bytes"
	"encoding/binary"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// ZFS keeps four labels of 256 KiB, two at each end; the name-value list of each begins at
// 16 KiB (ZFS On-Disk Specification, 1.2). In front of it stands XDR's header: encoding 1,
// byte order, version 0, flag 1. The first and the last label are looked at.
const (
	zfsLabel = 256 << 10
	zfsPairs = 16 << 10
)

func (p *prober) zfs() {
	end := p.size &^ (zfsLabel - 1)
	for _, label := range []int64{0, end - zfsLabel} {
		pairs := p.at(label+zfsPairs, 4096)
		if pairs == nil || pairs[0] != 1 || pairs[1] > 1 || !bytes.Equal(pairs[2:12], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}) {
			continue
		}
		p.add(storage.Content{Kind: "zfs_member", Offset: label, Label: zfsName(pairs[12:])})
		return
	}
}

// zfsName finds the pool's name in XDR's pairs: sizes, name, type, number, value.
func zfsName(pairs []byte) string {
	for len(pairs) >= 12 {
		size, nameLength := binary.BigEndian.Uint32(pairs), binary.BigEndian.Uint32(pairs[8:])
		if size < 12 || uint64(size) > uint64(len(pairs)) || nameLength > size-12 {
			return ""
		}
		value := 12 + (int(nameLength)+3)&^3 + 8 // behind type and number
		if string(pairs[12:12+nameLength]) == "name" && value+4 <= int(size) {
			length := int(binary.BigEndian.Uint32(pairs[value:]))
			if length >= 0 && length <= int(size)-value-4 {
				return text(pairs[value+4:][:length])
			}
		}
		pairs = pairs[size:]
	}
	return ""
}
