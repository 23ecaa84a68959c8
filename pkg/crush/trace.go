package crush

import "slices"

// Draw is one draw of a mapping: what a bucket gave for which number. A mapping is decided by
// its draws, by whether the OSDs among them are in, and by its rule and the tunables.
type Draw struct {
	Bucket, Item ItemID // Item is None where the bucket was empty
	R            uint32
	Position     int32
}

// DoTraced is Do, and appends what it drew to trace.
func (m *Mapper) DoTraced(out []ItemID, trace []Draw, rule int, x int32, replicas int) ([]ItemID, []Draw, error) {
	m.tracing, m.trace = true, trace
	out, err := m.Do(out, rule, x, replicas)
	trace, m.tracing, m.trace = m.trace, false, nil
	return out, trace, err
}

// note keeps a draw, where they are kept.
func (m *Mapper) note(b *bucket, item ItemID, r int32, position int) {
	if m.tracing {
		m.trace = append(m.trace, Draw{b.id, item, uint32(r), int32(position)})
	}
}

// Delta is what differs between two maps, for finding the mappings that this can touch. It
// serves one goroutine at a time.
type Delta struct {
	before, after *Mapper
	global        bool           // tunables differ: all can be touched
	buckets       []bucketChange // by index
}

// bucketChange is what became of a bucket.
type bucketChange struct {
	differs bool
	// For straw2 buckets whose remaining items are in the order they were: by set of weights,
	// the places of the items, after the change, that are new or weigh otherwise.
	quick   bool
	changed [][]int
	at      map[ItemID]int // by item: its place after the change
}

// NewDelta compares the maps of two mappers, with the reweights that they have now.
func NewDelta(before, after *Mapper) *Delta {
	d := &Delta{before: before.Fork(), after: after.Fork()}
	d.global = before.tunables != after.tunables
	d.buckets = make([]bucketChange, max(len(before.buckets), len(after.buckets)))
	for i := range d.buckets {
		d.buckets[i] = d.compare(i)
	}
	return d
}

// Fork returns a delta of the same maps for another goroutine.
func (d *Delta) Fork() *Delta {
	f := *d
	f.before, f.after = d.before.Fork(), d.after.Fork()
	return &f
}

// lookup is a bucket that is there, or nil.
func (c *compiled) lookup(index int) *bucket {
	if index < 0 || index >= len(c.buckets) || !c.present[index] {
		return nil
	}
	return &c.buckets[index]
}

func (d *Delta) compare(index int) bucketChange {
	a, b := d.before.lookup(index), d.after.lookup(index)
	if a == nil || b == nil {
		return bucketChange{differs: a != b}
	}
	same := a.kind == b.kind && a.algorithm == b.algorithm && slices.Equal(a.items, b.items) && slices.Equal(a.weights, b.weights) &&
		slices.Equal(a.derived, b.derived) && slices.EqualFunc(a.draws, b.draws, func(x, y straw2Draw) bool {
		return slices.Equal(x.ids, y.ids) && slices.Equal(x.weights, y.weights)
	})
	if same {
		return bucketChange{}
	}
	c := bucketChange{differs: true}
	if a.kind != b.kind || a.algorithm != Straw2 || b.algorithm != Straw2 || len(a.draws) != len(b.draws) {
		return c
	}
	was := map[ItemID]int{}
	for i, item := range a.items {
		was[item] = i
	}
	c.at, c.quick = map[ItemID]int{}, true
	last := -1
	for i, item := range b.items {
		c.at[item] = i
		if at, ok := was[item]; ok {
			c.quick = c.quick && at > last
			last = at
		}
	}
	for set := range b.draws {
		var changed []int
		for i, item := range b.items {
			at, ok := was[item]
			if !ok || a.draws[set].weights[at] != b.draws[set].weights[i] || a.draws[set].ids[at] != b.draws[set].ids[i] {
				changed = append(changed, i)
			}
		}
		c.changed = append(c.changed, changed)
	}
	return c
}

// Keeps says whether a mapping is surely the same after the change: that of a rule that has
// the same number in both maps, and drew what the trace says.
func (d *Delta) Keeps(rule int, x int32, trace []Draw) bool {
	a, b := d.before.compiled, d.after.compiled
	if d.global || rule < 0 || rule >= len(a.rules) || rule >= len(b.rules) || a.rules[rule] == nil || b.rules[rule] == nil {
		return false
	}
	if !slices.Equal(a.rules[rule].Steps, b.rules[rule].Steps) || !d.takesTheSame(rule) {
		return false
	}
	d.before.x, d.after.x = uint32(x), uint32(x)
	local := d.local(rule)
	for i := range trace {
		if !d.keepsDraw(&trace[i], local) {
			return false
		}
	}
	return true
}

// takesTheSame says whether what a rule takes is, or is not, there in both maps.
func (d *Delta) takesTheSame(rule int) bool {
	return !slices.ContainsFunc(d.before.rules[rule].Steps, func(s Step) bool {
		if s.Op != OpTake {
			return false
		}
		if s.Arg1 >= 0 {
			return (int(s.Arg1) < d.before.maxDevices) != (int(s.Arg1) < d.after.maxDevices)
		}
		at := -1 - int(s.Arg1)
		return (d.before.lookup(at) == nil) != (d.after.lookup(at) == nil)
	})
}

// local says whether a rule may fall back to permutations of a bucket, which depend on all of it.
func (d *Delta) local(rule int) bool {
	return d.before.tunables.ChooseLocalFallbackTries > 0 || slices.ContainsFunc(d.before.rules[rule].Steps, func(s Step) bool {
		return s.Op == OpSetChooseLocalFallbackTries
	})
}

// keepsDraw says whether a draw comes out as it did, and means the same.
func (d *Delta) keepsDraw(t *Draw, local bool) bool {
	if t.Item >= 0 && t.Item != None {
		if (int(t.Item) < d.before.maxDevices) != (int(t.Item) < d.after.maxDevices) || d.before.isOut(t.Item) != d.after.isOut(t.Item) {
			return false
		}
	}
	if t.Item < 0 {
		a, b := d.before.lookup(-1-int(t.Item)), d.after.lookup(-1-int(t.Item))
		if a == nil || b == nil || a.kind != b.kind {
			return false
		}
	}
	c := &d.buckets[-1-t.Bucket]
	if !c.differs {
		return true
	}
	if local || !c.quick || t.Item == None {
		return false
	}
	return d.drawsAgain(c, t)
}

// drawsAgain says whether a changed straw2 bucket gives the same item. If that weighs what it
// did, only items that are new or weigh otherwise can have taken its place.
func (d *Delta) drawsAgain(c *bucketChange, t *Draw) bool {
	winner, ok := c.at[t.Item]
	if !ok {
		return false
	}
	b := &d.after.buckets[-1-t.Bucket]
	set := min(int(t.Position), len(b.draws)-1)
	draw := &b.draws[set]
	if draw.weights[winner] == 0 || slices.Contains(c.changed[set], winner) {
		return d.after.drawStraw2(draw, t.R) == winner
	}
	cost := func(i int) uint64 {
		return lnCost(hash3(d.after.x, uint32(draw.ids[i]), t.R)&0xffff) / uint64(draw.weights[i])
	}
	least := cost(winner)
	for _, i := range c.changed[set] {
		if draw.weights[i] == 0 {
			continue
		}
		if other := cost(i); other < least || other == least && i < winner {
			return false
		}
	}
	return true
}
