package inside

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// sector is LVM's unit of sizes, in bytes.
const sector = 512

// maxLVMText bounds the metadata of a group, in bytes; a group of thousands of volumes has one MiB.
const maxLVMText = 16 << 20

// Group is a volume group that lies in one partition as a whole.
type Group struct {
	Name    string    `json:"name"`
	Volumes []Logical `json:"volumes"`
	Free    int64     `json:"free_bytes"` // of what the physical volume has now
	Others  int       `json:"other_physical_volumes,omitempty"`

	start, extent, extents int64 // where extent 0 begins, and how long one is, in bytes; how many there are
}

// Logical is a logical volume. Sizes are bytes.
type Logical struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Content string `json:"content,omitempty"` // "ext4", "xfs", ...; "": empty, not known, or not to be read here
	Linear  bool   `json:"linear"`            // it lies in this partition, stretch after stretch

	segments []segment
	hidden   bool   // a part of another, which LVM does not show
	fixed    string // why its size stays what it is, whatever is in it
}

// segment is a stretch of a volume: bytes of the volume and of the partition.
type segment struct{ at, length, from int64 }

// ReadGroup reads the group of which a partition is the physical volume, by the metadata at its begin.
func ReadGroup(disk content.Disk) (*Group, error) {
	text, id, err := lvmMetadata(disk)
	if err != nil {
		return nil, err
	}
	all, err := parseLVM(text)
	if err != nil {
		return nil, err
	}
	for name, v := range all {
		if vg, ok := v.(section); ok {
			return newGroup(disk, name, vg, id)
		}
	}
	return nil, fault.New(fault.NotFound, "the physical volume belongs to no group")
}

// lvmMetadata finds the text (lvm2, lib/label/label.h, lib/format_text/layout.h): a label in one of the first four sectors, which tells
// where areas of metadata are, whose head tells where in the ring behind it the text is.
func lvmMetadata(disk content.Disk) (text, id string, err error) {
	head := make([]byte, 4*sector)
	if n, err := disk.ReadAt(head, 0); n < len(head) {
		return "", "", fmt.Errorf("read the label: %w", err)
	}
	for at := 0; at < len(head); at += sector {
		label := head[at : at+sector]
		if string(label[:8]) != "LABELONE" || string(label[24:32]) != "LVM2 001" {
			continue
		}
		header := int(binary.LittleEndian.Uint32(label[20:]))
		if header < 32 || header > sector-48 {
			return "", "", fault.New(fault.Invalid, "LVM's label at offset %d: its header at %d", at, header)
		}
		area, err := metadataArea(label[header+40:])
		if err != nil {
			return "", "", err
		}
		text, err = ring(disk, area)
		return text, string(label[header : header+32]), err
	}
	return "", "", fault.New(fault.NotFound, "there is no label of LVM")
}

// metadataArea is where the first area is: behind the list of data areas, which ends with zeros.
func metadataArea(list []byte) (int64, error) {
	data := true
	for ; len(list) >= 16; list = list[16:] {
		at := binary.LittleEndian.Uint64(list)
		switch {
		case at == 0 && !data:
			return 0, fault.New(fault.Unsupported, "the physical volume has no metadata of its own")
		case at == 0:
			data = false
		case !data:
			if at > math.MaxInt64/2 {
				return 0, fault.New(fault.Invalid, "LVM's metadata at offset %d", at)
			}
			return int64(at), nil
		}
	}
	return 0, fault.New(fault.Invalid, "LVM's label names no metadata")
}

// ring reads the text out of an area.
func ring(disk content.Disk, area int64) (string, error) {
	head := make([]byte, sector)
	if n, err := disk.ReadAt(head, area); n < len(head) {
		return "", fmt.Errorf("read LVM's metadata at offset %d: %w", area, err)
	}
	if string(head[4:20]) != " LVM2 x[5A%r0N*>" {
		return "", fault.New(fault.Invalid, "LVM's metadata at offset %d has another signature", area)
	}
	size := binary.LittleEndian.Uint64(head[32:])
	at, length := binary.LittleEndian.Uint64(head[40:]), binary.LittleEndian.Uint64(head[48:])
	if length == 0 {
		return "", fault.New(fault.NotFound, "the physical volume belongs to no group")
	}
	if length > maxLVMText || size > math.MaxInt64/2 || size <= sector || length > size-sector || at < sector || at >= size {
		return "", fault.New(fault.Invalid, "LVM's metadata at offset %d: %d bytes at %d of %d", area, length, at, size)
	}
	text := make([]byte, length)
	first := text[:min(length, size-at)]
	if n, err := disk.ReadAt(first, area+int64(at)); n < len(first) {
		return "", fmt.Errorf("read LVM's metadata: %w", err)
	}
	rest := text[len(first):]
	if n, err := disk.ReadAt(rest, area+sector); n < len(rest) {
		return "", fmt.Errorf("read LVM's metadata: %w", err)
	}
	return string(text), nil
}

func newGroup(disk content.Disk, name string, vg section, id string) (*Group, error) {
	g := &Group{Name: name, Volumes: []Logical{}}
	sectors, ok := vg.number("extent_size")
	if !ok || sectors <= 0 || sectors > 1<<32 {
		return nil, fault.New(fault.Invalid, "LVM's group %s: extent_size", name)
	}
	g.extent = sectors * sector
	own := ""
	for key := range vg.sub("physical_volumes") {
		pv := vg.sub("physical_volumes").sub(key)
		if strings.ReplaceAll(pv.text("id"), "-", "") != id {
			g.Others++
			continue
		}
		start, hasStart := pv.number("pe_start")
		count, hasCount := pv.number("pe_count")
		if !hasStart || !hasCount || start < 0 || start > 1<<40 || count < 0 || count > (1<<62)/g.extent {
			return nil, fault.New(fault.Invalid, "LVM's group %s: pe_start or pe_count", name)
		}
		own, g.start, g.extents = key, start*sector, count
	}
	if own == "" {
		return nil, fault.New(fault.Invalid, "LVM's group %s does not have this physical volume", name)
	}
	used := int64(0)
	for key := range vg.sub("logical_volumes") {
		v := g.volume(key, vg.sub("logical_volumes").sub(key), own)
		for _, s := range v.segments {
			used += s.length
		}
		if v.Linear {
			var err error
			if v.Content, _, err = probe(g.Disk(disk, v), 0, v.Size); err != nil {
				return nil, fmt.Errorf("look into %s/%s: %w", name, key, err)
			}
		}
		g.Volumes = append(g.Volumes, v)
	}
	g.fixSnapshots(vg.sub("logical_volumes"))
	sort.Slice(g.Volumes, func(i, j int) bool { return g.Volumes[i].Name < g.Volumes[j].Name })
	g.Free = g.extents*g.extent - used
	return g, nil
}

// volume reads a logical volume. One that is not linear, or not all of which is here, is named and not read.
func (g *Group) volume(name string, lv section, own string) Logical {
	v := Logical{Name: name, Linear: true, hidden: !slices.Contains(lv.list("status"), any("VISIBLE"))}
	for key := range lv {
		s, ok := lv[key].(section)
		if !ok || !strings.HasPrefix(key, "segment") {
			continue
		}
		start, _ := s.number("start_extent")
		count, _ := s.number("extent_count")
		if start < 0 || count <= 0 || start > g.extents || count > g.extents {
			v.Linear = false
			continue
		}
		v.Size += count * g.extent
		stripes := s.list("stripes")
		number, _ := s.number("stripe_count")
		from, isNumber := int64(0), false
		if len(stripes) == 2 {
			from, isNumber = stripes[1].(int64)
		}
		if s.text("type") != "striped" || number != 1 || !isNumber || stripes[0] != own || from < 0 || from > g.extents-count {
			v.Linear = false
			continue
		}
		v.segments = append(v.segments, segment{start * g.extent, count * g.extent, g.start + from*g.extent})
	}
	slices.SortFunc(v.segments, func(a, b segment) int { return int(max(-1, min(1, a.at-b.at))) })
	at := int64(0)
	for _, s := range v.segments {
		v.Linear = v.Linear && s.at == at
		at += s.length
	}
	v.Linear = v.Linear && at > 0
	return v
}

// fixSnapshots marks the volumes that have a snapshot and those that hold what it keeps: their file systems do not grow apart.
func (g *Group) fixSnapshots(all section) {
	for key := range all {
		for name := range all.sub(key) {
			if s := all.sub(key).sub(name); s.text("type") == "snapshot" {
				g.fix(s.text("origin"), "it has the snapshot "+s.text("cow_store")+": remove that first, in the machine")
				g.fix(s.text("cow_store"), "it is a snapshot of "+s.text("origin"))
			}
		}
	}
}

func (g *Group) fix(name, why string) {
	for i := range g.Volumes {
		if g.Volumes[i].Name == name {
			g.Volumes[i].fixed = why
		}
	}
}

// Disk is a linear volume as a disk, in the partition that holds its group.
func (*Group) Disk(partition content.Disk, v Logical) content.Disk {
	return &linear{Disk: partition, size: v.Size, segments: v.segments}
}

// Pick returns the volume that grows: the one named, or the only one with a file system that can.
func (g *Group) Pick(name string) (Logical, error) {
	var fit []Logical
	var names []string
	var fixed error
	for _, v := range g.Volumes {
		named := name == v.Name || name == g.Name+"/"+v.Name
		if v.hidden || name != "" && !named {
			continue
		}
		way, _ := WayOf(v.Content, "")
		grows := v.Linear && way.Here()
		switch {
		case v.fixed != "" && (named || grows):
			fixed = fault.New(fault.Unsupported, "%s/%s does not grow here: %s", g.Name, v.Name, v.fixed)
		case v.fixed == "" && grows:
			fit, names = append(fit, v), append(names, v.Name)
		}
	}
	switch {
	case g.Others > 0:
		return Logical{}, fault.New(fault.Unsupported, "the group %s has physical volumes on other disks, too", g.Name)
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) == 0 && fixed != nil:
		return Logical{}, fixed
	case name != "":
		return Logical{}, fault.New(fault.NotFound, "the group %s has no volume %s with a file system that grows", g.Name, name)
	case len(fit) == 0:
		return Logical{}, fault.New(fault.Unsupported, "the group %s has no volume with a file system that grows", g.Name)
	}
	return Logical{}, fault.New(fault.Invalid, "the group %s has several volumes that could grow (%s): say which with --grow-volume", g.Name, strings.Join(names, ", "))
}

// Extend shows what the group will be when its physical volume has size bytes, and the volume all that is free. Nothing is written.
func (g *Group) Extend(name string, size int64) {
	more := max(0, (size-g.start)/g.extent-g.extents)*g.extent + g.Free
	for i := range g.Volumes {
		if g.Volumes[i].Name == name {
			g.Volumes[i].Size += more
			g.Free = 0
		}
	}
}

// linear is a volume as a disk.
type linear struct {
	content.Disk // the partition
	size         int64
	segments     []segment
}

func (l *linear) Size() int64 { return l.size }

func (*linear) Close() error { return nil }

func (l *linear) ReadAt(p []byte, off int64) (int, error) { return content.ReadAt(l, p, off) }

func (l *linear) Span(off int64) (content.Span, error) {
	s, _, err := l.Piece(off)
	return s, err
}

// Piece implements content.Pieces.
func (l *linear) Piece(off int64) (content.Span, io.ReaderAt, error) {
	for _, s := range l.segments {
		if off < s.at || off >= s.at+s.length {
			continue
		}
		from := off - s.at + s.from
		if from >= l.Disk.Size() {
			break
		}
		span, err := l.Disk.Span(from)
		span.Offset = off
		return content.Clip(span, s.at+s.length), content.Shifted{File: l.Disk, At: s.from - s.at}, err
	}
	return content.Span{}, nil, fault.New(fault.Invalid, "offset %d of the volume is not in the partition", off)
}
