package crush

// run is the state of one rule at work on one input.
type run struct {
	*Mapper
	replicas int
	working  []ItemID // what the last step chose
	output   []ItemID // what this step chooses
	leaves   []ItemID // the OSDs under it, for chooseleaf
	size     int      // of working

	tries, leafTries    uint32
	localRetries        uint32
	localFallback       uint32
	varyR, stable       int32
	leafTriesAreFromMap bool
}

func newRun(m *Mapper, replicas int) run {
	t := m.tunables
	return run{
		Mapper: m, replicas: replicas,
		working: m.scratch[0][:replicas], output: m.scratch[1][:replicas], leaves: m.scratch[2][:replicas],
		// The tunable counts retries after the first try, the step counts tries.
		tries: t.ChooseTotalTries + 1, leafTriesAreFromMap: true,
		localRetries: t.ChooseLocalTries, localFallback: t.ChooseLocalFallbackTries,
		varyR: int32(t.ChooseleafVaryR), stable: int32(t.ChooseleafStable),
	}
}

func (r *run) take(item ItemID) {
	bucket := -1 - int(item)
	switch {
	case r.replicas == 0:
	case item >= 0 && int(item) < r.maxDevices,
		bucket >= 0 && bucket < len(r.buckets) && r.present[bucket]:
		r.working[0] = item
		r.size = 1
	}
}

// set takes a set_* step; steps that are not known do nothing, as in Ceph.
func (r *run) set(step Step) {
	arg := step.Arg1
	switch step.Op {
	case OpSetChooseTries:
		if arg > 0 {
			r.tries = uint32(arg)
		}
	case OpSetChooseleafTries:
		if arg > 0 {
			r.leafTries, r.leafTriesAreFromMap = uint32(arg), false
		}
	case OpSetChooseLocalTries:
		if arg >= 0 {
			r.localRetries = uint32(arg)
		}
	case OpSetChooseLocalFallbackTries:
		if arg >= 0 {
			r.localFallback = uint32(arg)
		}
	case OpSetChooseleafVaryR:
		if arg >= 0 {
			r.varyR = arg
		}
	case OpSetChooseleafStable:
		if arg >= 0 {
			r.stable = arg
		}
	}
}

// choose replaces each bucket of the working set by what is chosen in it.
func (r *run) choose(step Step) {
	if r.size == 0 {
		return
	}
	toLeaf := step.Op == OpChooseleafFirstN || step.Op == OpChooseleafIndep
	firstN := step.Op == OpChooseFirstN || step.Op == OpChooseleafFirstN
	size := 0
	for _, item := range r.working[:r.size] {
		// 0 and below are relative to the size of the result.
		count := int(step.Arg1)
		if count <= 0 {
			count += r.replicas
		}
		number := -1 - int(item)
		if count <= 0 || number < 0 || number >= len(r.buckets) || !r.present[number] {
			continue
		}
		c := choice{
			run: r, kind: int(step.Arg2), toLeaf: toLeaf, count: count,
			out: r.output[size:], leaves: r.leaves[size:], tries: r.tries,
		}
		if firstN {
			c.leafTries = r.leafTriesFirstN()
			size += c.firstN(number, 0, 0, r.replicas-size)
			continue
		}
		c.leafTries = 1
		if !r.leafTriesAreFromMap {
			c.leafTries = r.leafTries
		}
		room := min(count, r.replicas-size)
		c.indep(number, room, 0, 0)
		size += room
	}
	if toLeaf {
		copy(r.output[:size], r.leaves[:size])
	}
	r.working, r.output = r.output, r.working
	r.size = size
}

func (r *run) leafTriesFirstN() uint32 {
	switch {
	case !r.leafTriesAreFromMap:
		return r.leafTries
	case r.tunables.ChooseleafDescendOnce != 0:
		return 1
	default:
		return r.tries
	}
}

// choice is one search below one bucket, for items of one type.
type choice struct {
	*run
	kind             int
	toLeaf           bool // look for an OSD below each item, too
	count            int  // how many to choose; indep steps through inputs by it
	out, leaves      []ItemID
	tries, leafTries uint32
}

// firstN chooses distinct items until there are c.count, or room is used up, and fills
// c.out from position on; it returns where it ended (crush_choose_firstn).
func (c *choice) firstN(start, position int, parentR int32, room int) int {
	first := position
	if c.stable != 0 {
		first = 0
	}
	for rep := first; rep < c.count && room > 0; rep++ {
		item, ok := c.oneFirstN(start, int32(rep)+parentR, position, room)
		if !ok {
			continue
		}
		c.out[position] = item
		position++
		room--
	}
	return position
}

// verdict is what became of a draw.
type verdict uint8

const (
	accepted verdict = iota
	rejected
	collided
	hopeless // a bucket holds what it may not: this replica is given up
)

// oneFirstN searches for one replica, with retries.
func (c *choice) oneFirstN(start int, r int32, position, room int) (ItemID, bool) {
	var failed uint32
	for {
		in := &c.buckets[start]
		var failedHere uint32
		for {
			item, next, v := c.drawFirstN(in, r+int32(failed), failedHere, position, room)
			if next != nil {
				in = next
				continue
			}
			if v == accepted {
				return item, true
			}
			if v == hopeless {
				return 0, false
			}
			failed++
			failedHere++
			if v == collided && failedHere <= c.localRetries {
				continue
			}
			if c.localFallback > 0 && uint64(failedHere) <= uint64(len(in.items))+uint64(c.localFallback) {
				continue
			}
			break
		}
		if failed >= c.tries {
			return 0, false
		}
	}
}

// drawFirstN draws once in a bucket. It returns the bucket to go on in where the draw is
// of another type than is wanted.
func (c *choice) drawFirstN(in *bucket, r int32, failedHere uint32, position, room int) (ItemID, *bucket, verdict) {
	if len(in.items) == 0 {
		c.note(in, None, r, position)
		return 0, nil, rejected
	}
	var item ItemID
	if c.localFallback > 0 && failedHere >= uint32(len(in.items)>>1) && failedHere > c.localFallback {
		item = c.permuted(in, r)
	} else {
		item = c.draw(in, r, position)
	}
	c.note(in, item, r, position)
	if int(item) >= c.maxDevices {
		return 0, nil, hopeless
	}
	kind := c.kindOf(item)
	if kind != c.kind {
		if item >= 0 {
			return 0, nil, hopeless
		}
		return 0, &c.buckets[-1-item], accepted
	}
	for _, chosen := range c.out[:position] {
		if chosen == item {
			return 0, nil, collided
		}
	}
	if c.toLeaf && !c.leafFirstN(item, r, position, room) {
		return 0, nil, rejected
	}
	if kind == 0 && c.isOut(item) {
		return 0, nil, rejected
	}
	return item, nil, accepted
}

// leafFirstN looks for an OSD below item, and keeps it.
func (c *choice) leafFirstN(item ItemID, r int32, position, room int) bool {
	if item >= 0 {
		c.leaves[position] = item
		return true
	}
	var subR int32
	if c.varyR != 0 {
		subR = r >> (uint32(c.varyR-1) & 31)
	}
	leaf := choice{run: c.run, out: c.leaves, tries: c.leafTries, count: position + 1}
	if c.stable != 0 {
		leaf.count = 1
	}
	return leaf.firstN(int(-1-item), position, subR, room) > position
}
