package vmdk

import (
	"fmt"
	"slices"
)

// Check looks at the structure of all sparse extents and returns what is wrong, at most limit findings, each with the
// offset of the field.
func (d *Disk) Check(limit int) []string {
	var found []string
	for n, e := range d.extents {
		s, ok := e.Disk.(*sparse)
		if !ok {
			continue
		}
		c := checker{s: s, limit: limit - len(found)}
		c.run()
		for _, text := range c.found {
			if len(d.extents) > 1 {
				text = fmt.Sprintf("extent %d (%s): %s", n+1, d.Extents[n].File, text)
			}
			found = append(found, text)
		}
	}
	return found
}

type checker struct {
	s     *sparse
	limit int
	found []string
	taken []uint64 // a bit a grain's length of the file: a grain begins there
}

func (c *checker) report(format string, args ...any) {
	if len(c.found) < c.limit {
		c.found = append(c.found, fmt.Sprintf(format, args...))
	}
}

func (c *checker) run() {
	unit := int64(SectorSize)
	if !c.s.deflated {
		unit = c.s.grain
	}
	c.taken = make([]uint64, c.s.length/unit/64+1)
	for n, sector := range c.s.directory {
		if sector == 0 {
			continue
		}
		table, err := c.s.tables.at(sector)
		if err != nil {
			c.report("entry %d of the grain directory: %v", n, err)
			continue
		}
		c.copies(n, sector, table)
		for index, entry := range table {
			number := int64(n)*int64(len(table)) + int64(index)
			if number*c.s.grain < c.s.capacity {
				c.entry(number, entry, int64(sector)*SectorSize+4*int64(index), unit)
			}
		}
	}
}

// copies compares a table with the one of the redundant directory.
func (c *checker) copies(n int, sector uint32, table []uint32) {
	if n >= len(c.s.redundant) || c.s.redundant[n] == sector || c.s.redundant[n] == 0 {
		return
	}
	other, err := readTable(c.s.file, int64(c.s.redundant[n])*SectorSize, len(table), "a redundant grain table")
	if err != nil {
		c.report("entry %d of the redundant grain directory: %v", n, err)
		return
	}
	if !slices.Equal(table, other) {
		c.report("the grain table at byte %d and its copy at byte %d differ", int64(sector)*SectorSize, int64(c.s.redundant[n])*SectorSize)
	}
}

func (c *checker) entry(number int64, entry uint32, field, unit int64) {
	if entry == 0 || entry == 1 && c.s.zeroed {
		return
	}
	at := int64(entry) * SectorSize
	end := at + min(c.s.grain, c.s.capacity-number*c.s.grain)
	if c.s.deflated {
		end = at + markerSize
	}
	if at < c.s.metadata || end > c.s.length {
		c.report("the grain table entry at byte %d says that grain %d is at byte %d, and the file has %d", field, number, at, c.s.length)
		return
	}
	slot := at / unit
	if c.taken[slot/64]&(1<<(slot%64)) != 0 {
		c.report("the grain table entry at byte %d says that grain %d is at byte %d, where another is, too", field, number, at)
	}
	c.taken[slot/64] |= 1 << (slot % 64)
	if c.s.deflated {
		g := grain{c.s, number, at}
		if err := g.verify(); err != nil {
			c.report("the grain table entry at byte %d: %v", field, err)
		}
	}
}
