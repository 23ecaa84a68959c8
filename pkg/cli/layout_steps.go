package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// parseRate reads "150MB/s" or "150MB", in bytes a second.
func parseRate(text string) (storage.Bytes, error) {
	rate, err := storage.ParseBytes(strings.TrimSuffix(strings.TrimSpace(text), "/s"))
	if err != nil {
		return 0, err
	}
	if rate <= 0 {
		return 0, fmt.Errorf("%q is no rate: want bytes a second such as 150MB/s", text)
	}
	return rate, nil
}

// diskNames gives names to new disks: disk4 after disk3, no name twice.
type diskNames struct {
	last   int
	zeroed bool
}

func (n *diskNames) disk(text string) (layout.Disk, error) {
	size, err := storage.ParseBytes(text)
	if err != nil {
		return layout.Disk{}, err
	}
	n.last++
	return layout.Disk{ID: diskName(n.last), Size: size, Zeroed: n.zeroed}, nil
}

// change reads a step such as "add:8TB,8TB" or "replace:4TB=8TB" for the pool l.
func (n *diskNames) change(l layout.Layout, text string) (layout.Change, error) {
	kind, list, ok := strings.Cut(text, ":")
	if !ok || list == "" {
		return layout.Change{}, errors.New("want add:SIZE, replace:DISK=SIZE or grow:DISK=SIZE, several separated by commas")
	}
	var c layout.Change
	taken := map[string]bool{}
	for _, item := range strings.Split(list, ",") {
		switch kind {
		case layout.StepAdd:
			d, err := n.disk(item)
			if err != nil {
				return c, err
			}
			c.Add = append(c.Add, d)
		case layout.StepReplace, layout.StepGrow:
			which, size, ok := strings.Cut(item, "=")
			if !ok {
				return c, fmt.Errorf("%q: want DISK=SIZE, such as 4TB=8TB or disk1=8TB", item)
			}
			old, err := findDisk(l, which, taken)
			if err != nil {
				return c, err
			}
			taken[old] = true
			if kind == layout.StepGrow {
				grown, err := storage.ParseBytes(size)
				if err != nil {
					return c, err
				}
				c.Grown = append(c.Grown, layout.Disk{ID: old, Size: grown, Zeroed: n.zeroed})
				continue
			}
			d, err := n.disk(size)
			if err != nil {
				return c, err
			}
			c.Replace = append(c.Replace, layout.Replacement{Old: old, New: d})
		default:
			return c, fmt.Errorf("%q is none of add, replace, grow", kind)
		}
	}
	return c, nil
}

// findDisk finds a disk by its name, or the first of a size that is not taken.
func findDisk(l layout.Layout, which string, taken map[string]bool) (string, error) {
	size, err := storage.ParseBytes(which)
	var there []string
	for _, d := range l.Disks {
		if !taken[d.ID] && (d.ID == which || err == nil && d.Size == size) {
			return d.ID, nil
		}
		there = append(there, fmt.Sprintf("%s (%s)", d.ID, d.Size.Decimal()))
	}
	return "", fmt.Errorf("no disk %q; there are %s", which, strings.Join(there, ", "))
}
