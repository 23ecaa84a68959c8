// Package inside looks at what a virtual disk holds, its partitions and what is in them, and makes partitions and file systems
// larger. Partitions are changed in an overlay of the disk; file systems by their own tools, in a raw file.
package inside

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/holdfast-storage/holdfast/pkg/disk/signature"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/partition/edit"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// Part is a partition and what is in it.
type Part struct {
	edit.Partition
	Content string `json:"content,omitempty"` // "ext4", "xfs", "swap", "lvm2", ...; "" is empty or not known
	Label   string `json:"label,omitempty"`
	Group   *Group `json:"group,omitempty"` // of lvm2, where its metadata can be read
}

// Layout is what a disk holds. Without a partition table, Whole is what the disk itself is.
type Layout struct {
	Table edit.Table `json:"table"`
	Parts []Part     `json:"partitions"`
	Whole string     `json:"whole,omitempty"`
}

// Look reads the partition table and looks into each partition.
func Look(disk content.Disk) (*Layout, error) {
	table, err := edit.Read(disk, disk.Size())
	if errors.Is(err, fault.NotFound) {
		kind, _, err := probe(disk, 0, disk.Size())
		return &Layout{Table: edit.Table{DiskSize: disk.Size()}, Parts: []Part{}, Whole: kind}, err
	}
	if err != nil {
		return nil, err
	}
	l := &Layout{Table: *table, Parts: []Part{}}
	for _, p := range table.Partitions {
		part := Part{Partition: p}
		if !p.Extended {
			if part.Content, part.Label, err = probe(disk, p.Start, p.Size); err != nil {
				return nil, fmt.Errorf("look into partition %d: %w", p.Number, err)
			}
			if part.Content == "lvm2" {
				part.Group, _ = ReadGroup(content.Section(disk, p.Start, p.Size)) // else it is not shown
			}
		}
		l.Parts = append(l.Parts, part)
	}
	return l, nil
}

// probe names what is in a stretch of the disk.
func probe(disk io.ReaderAt, start, size int64) (kind, label string, err error) {
	found, err := signature.Probe(io.NewSectionReader(disk, start, size), size)
	if len(found) == 0 || found[0].Kind == signature.Data {
		return "", "", err
	}
	return found[0].Kind, found[0].Label, err
}

// Find returns the part with a partition's number; 0 is the last one that is no container.
func (l *Layout) Find(number int) (Part, error) {
	p, err := l.Table.Find(number)
	if err != nil {
		return Part{}, err
	}
	for _, part := range l.Parts {
		if part.Number == p.Number {
			return part, nil
		}
	}
	return Part{}, fault.New(fault.NotFound, "there is no partition %d", number)
}

// pictureWidth is how many cells the bar of a disk has.
const pictureWidth = 72

// Picture draws the disk as a bar that is scaled to size bytes, and a line for each partition.
func (l *Layout) Picture(size int64) string {
	var b strings.Builder
	cells := func(bytes int64) int { return int(float64(bytes) / float64(size) * pictureWidth) }
	at := 0
	for _, p := range l.Parts {
		if p.Logical {
			continue // within its container
		}
		begin, end := cells(p.Start), max(cells(p.End()), cells(p.Start)+2)
		if begin > at {
			b.WriteString(strings.Repeat("·", begin-at))
		}
		begin = max(begin, at)
		text := fmt.Sprint(p.Number)
		if p.Content != "" {
			text += " " + p.Content
		}
		width := max(1, end-begin-2)
		b.WriteString("[" + runewidth.FillRight(runewidth.Truncate(text, width, ""), width) + "]")
		at = begin + width + 2
	}
	if end := cells(l.Table.DiskSize); end > at {
		b.WriteString(strings.Repeat("·", end-at))
	}
	fmt.Fprintf(&b, "  %s\n", storage.Bytes(l.Table.DiskSize))
	for _, p := range l.Parts {
		fmt.Fprintf(&b, "%3d  %-10s at %-10s %s\n", p.Number, storage.Bytes(p.Size), storage.Bytes(p.Start), p.describe())
		if p.Group != nil {
			p.Group.draw(&b)
		}
	}
	if len(l.Parts) == 0 {
		fmt.Fprintf(&b, "     no partitions%s\n", map[bool]string{true: ": " + l.Whole + " from end to end"}[l.Whole != ""])
	}
	return b.String()
}

// draw adds a line for each logical volume.
func (g *Group) draw(b *strings.Builder) {
	for _, v := range g.Volumes {
		fmt.Fprintf(b, "       %-10s %s/%s %s\n", storage.Bytes(v.Size), g.Name, v.Name, v.Content)
	}
	if g.Free > 0 {
		fmt.Fprintf(b, "       %-10s free in %s\n", storage.Bytes(g.Free), g.Name)
	}
}

func (p Part) describe() string {
	words := []string{p.Content}
	switch {
	case p.Extended:
		words = []string{"container of logical partitions"}
	case p.Content == "":
		words = []string{"type " + p.Type}
	}
	for _, text := range []string{p.Name, p.Label} {
		if text != "" {
			words = append(words, fmt.Sprintf("%q", text))
		}
	}
	if p.Boot {
		words = append(words, "boot")
	}
	return strings.Join(words, " ")
}
