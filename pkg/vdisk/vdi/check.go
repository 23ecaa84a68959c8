package vdi

import "fmt"

// Check looks at all of the image's structure and returns what is wrong, at most limit findings, each with the offset of
// the field. damage may cost content; a count that is off does not.
func (i *Image) Check(limit int) (damage, counts []string) {
	c := checker{Image: i, limit: limit, taken: make([]uint64, (i.length-min(i.length, int64(i.DataOffset)))/int64(i.BlockSize)/64+1)}
	var used, above uint32
	for n, entry := range i.blocks {
		if entry >= firstNo {
			continue
		}
		used++
		if entry >= i.Allocated {
			above++
		}
		c.entry(n, entry)
	}
	if above > 0 || used != i.Allocated {
		counts = append(counts, fmt.Sprintf("number of allocated blocks at byte %#x is %d; the map has %d, %d of them behind that", atAllocated, i.Allocated, used, above))
	}
	return c.found, counts
}

type checker struct {
	*Image
	limit int
	found []string
	taken []uint64 // a bit a block of the file
}

func (c *checker) report(format string, args ...any) {
	if len(c.found) < c.limit {
		c.found = append(c.found, fmt.Sprintf(format, args...))
	}
}

func (c *checker) entry(n int, entry uint32) {
	at := int64(c.MapOffset) + 4*int64(n)
	size := min(int64(c.BlockSize), c.Size()-int64(n)*int64(c.BlockSize))
	if end := c.blockAt(entry) + size; end > c.length {
		c.report("map at byte %d: block %d is the file's block %d, which ends at byte %d, and the file has %d", at, n, entry, end, c.length)
		return
	}
	if c.taken[entry/64]&(1<<(entry%64)) != 0 {
		c.report("map at byte %d: block %d is the file's block %d, which another block is, too", at, n, entry)
	}
	c.taken[entry/64] |= 1 << (entry % 64)
}
