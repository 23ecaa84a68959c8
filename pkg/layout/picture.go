package layout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Picture draws the disks as columns and the slices as bands, the lowest at the bottom.
func (l Layout) Picture() string {
	const name = 9
	width := name
	for _, d := range l.Disks {
		width = max(width, len(d.ID)+2, len(d.Size.Decimal())+2)
	}
	for _, s := range l.Slices {
		width = max(width, len(s.Size.Decimal())+3)
	}
	var b strings.Builder
	row := func(title string, cell func(Disk) string, tail string) {
		line := fmt.Sprintf("%-*s", name, title)
		for _, d := range l.Disks {
			line += fmt.Sprintf("%-*s", width, cell(d))
		}
		b.WriteString(strings.TrimRight(line+tail, " ") + "\n")
	}
	row("", func(d Disk) string { return d.ID }, "")
	row("", func(d Disk) string { return d.Size.Decimal() }, "")
	if slices.ContainsFunc(l.Disks, func(d Disk) bool { return l.Free(d) > 0 }) {
		row("unused", func(d Disk) string { return sized(l.Free(d)) }, "")
	}
	for i := len(l.Slices) - 1; i >= 0; i-- {
		s := l.Slices[i]
		cell := func(d Disk) string {
			if slices.Contains(s.Members, d.ID) {
				return "[" + s.Size.Decimal() + "]"
			}
			return ""
		}
		row(fmt.Sprintf("slice %d", i+1), cell, fmt.Sprintf("%s, holds %s", s.Level, s.Capacity().Decimal()))
	}
	return b.String()
}

func sized(size storage.Bytes) string {
	if size == 0 {
		return ""
	}
	return size.Decimal()
}
