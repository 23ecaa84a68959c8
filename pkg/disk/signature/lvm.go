package signature

import (
	"encoding/binary"
	"regexp"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// LVM's metadata (lib/format_text/layout.h of LVM2): a label in one of the first four
// sectors, behind it the PV's header with areas, whose metadata header says where the text is.
var (
	vgName   = regexp.MustCompile(`(?m)^([A-Za-z0-9+_.-]+) \{`)
	cephFSID = regexp.MustCompile(`"ceph\.cluster_fsid=([0-9a-f-]{36})"`)
	cephOSD  = regexp.MustCompile(`"ceph\.osd_id=([0-9]+)"`)
	cephUUID = regexp.MustCompile(`"ceph\.osd_fsid=([0-9a-f-]{36})"`)
)

const (
	mdaMagic    = " LVM2 x[5A%r0N*>"
	largestText = 1 << 20
)

// lvm looks for a physical volume's label in the first four sectors from base on.
func (p *prober) lvm(base int64) {
	for at := base; at < base+4*512; at += 512 {
		sector := p.at(at, 512)
		if sector == nil || string(sector[:8]) != "LABELONE" {
			continue
		}
		c := storage.Content{Kind: "lvm2", Offset: at}
		if string(sector[24:32]) != "LVM2 001" {
			c.Detail = text(sector[24:32])
		} else if header := binary.LittleEndian.Uint32(sector[20:]); header >= 32 && header <= 400 {
			c.UUID = text(sector[header:][:32])
			readVolumeGroup(&c, p.metadataText(base, sector[header+40:]))
		}
		p.add(c)
		return
	}
}

// metadataText returns the newest text of the first metadata area. areas are the lists of
// data areas and of metadata areas, each with an entry of zeros at its end.
func (p *prober) metadataText(base int64, areas []byte) []byte {
	le := binary.LittleEndian
	for len(areas) >= 32 && (le.Uint64(areas) != 0 || le.Uint64(areas[8:]) != 0) {
		areas = areas[16:]
	}
	if len(areas) < 32 {
		return nil
	}
	area := int64(le.Uint64(areas[16:]))
	header := p.at(base+area, 512)
	if header == nil || string(header[4:20]) != mdaMagic {
		return nil
	}
	offset, size := le.Uint64(header[40:]), le.Uint64(header[48:])
	if size > largestText || offset > largestText {
		return nil
	}
	return p.at(base+area+int64(offset), int64(size))
}

// readVolumeGroup takes the group's name, and what ceph-volume tagged, from the text.
func readVolumeGroup(c *storage.Content, metadata []byte) {
	if m := vgName.FindSubmatch(metadata); m != nil {
		c.Label = string(m[1])
	}
	fsid := cephFSID.FindSubmatch(metadata)
	if fsid == nil {
		return
	}
	c.OSD = &storage.OSD{FSID: string(fsid[1])}
	if m := cephOSD.FindSubmatch(metadata); m != nil {
		c.OSD.ID = string(m[1])
	}
	if m := cephUUID.FindSubmatch(metadata); m != nil {
		c.OSD.UUID = string(m[1])
	}
}
