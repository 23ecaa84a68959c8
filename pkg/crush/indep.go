package crush

// indep fills room positions of c.out from position on, each by itself, so that the loss
// of one item moves no other; what stays empty becomes None (crush_choose_indep).
func (c *choice) indep(start, room, position int, parentR int32) {
	end := position + room
	for i := position; i < end; i++ {
		c.out[i] = undefined
		if c.leaves != nil {
			c.leaves[i] = undefined
		}
	}
	left := room
	for failed := uint32(0); left > 0 && failed < c.tries; failed++ {
		for rep := position; rep < end; rep++ {
			if c.out[rep] == undefined && c.oneIndep(start, rep, position, end, parentR, failed) {
				left--
			}
		}
	}
	for i := position; i < end; i++ {
		if c.out[i] == undefined {
			c.out[i] = None
		}
		if c.leaves != nil && c.leaves[i] == undefined {
			c.leaves[i] = None
		}
	}
}

// oneIndep tries once to fill one position; it says whether the position is settled.
func (c *choice) oneIndep(start, rep, position, end int, parentR int32, failed uint32) bool {
	in := &c.buckets[start]
	for {
		if len(in.items) == 0 {
			c.note(in, None, 0, position)
			return false
		}
		stride := uint32(c.count)
		if in.algorithm == Uniform && len(in.items)%c.count == 0 {
			stride++
		}
		r := int32(rep) + parentR + int32(stride*failed)
		item := c.draw(in, r, position)
		c.note(in, item, r, position)
		if int(item) >= c.maxDevices {
			return c.giveUp(rep)
		}
		kind := c.kindOf(item)
		if kind != c.kind {
			if item >= 0 {
				return c.giveUp(rep)
			}
			in = &c.buckets[-1-item]
			continue
		}
		for _, chosen := range c.out[position:end] {
			if chosen == item {
				return false
			}
		}
		if c.toLeaf && !c.leafIndep(item, rep, r) {
			return false
		}
		if kind == 0 && c.isOut(item) {
			return false
		}
		c.out[rep] = item
		return true
	}
}

// giveUp leaves a position empty for good.
func (c *choice) giveUp(rep int) bool {
	c.out[rep] = None
	if c.leaves != nil {
		c.leaves[rep] = None
	}
	return true
}

// leafIndep looks for an OSD below item, and keeps it.
func (c *choice) leafIndep(item ItemID, rep int, r int32) bool {
	if item >= 0 {
		c.leaves[rep] = item
		return true
	}
	leaf := choice{run: c.run, out: c.leaves, tries: c.leafTries, count: c.count}
	leaf.indep(int(-1-item), 1, rep, r)
	return c.leaves[rep] != None
}
