package vdisktest

import (
	"errors"

	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// Walk reads the beginning of each of a disk's first hundred spans, for what makes a reader crash or hang.
func Walk(d content.Disk) {
	buffer := make([]byte, 8<<10)
	count := 0
	_ = content.Each(d, func(s content.Span) error {
		if count++; count > 100 {
			return errors.New("enough")
		}
		_, err := d.ReadAt(buffer[:min(s.Length, int64(len(buffer)))], s.Offset)
		return err
	})
}
