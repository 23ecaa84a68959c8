package placement

import (
	"cmp"
	"math"
	"slices"
)

// bound is the best that any placement by the pools' rules can do: the lowest level (load
// a unit of weight of the fullest OSD) at which the data can be laid out.
//
// It is found by a maximum flow: pool -> each bucket that the rule counts, at most the
// number of places it may have in every PG -> OSD, at most one place of every PG, and at
// most what fills it to the level -> done. A level is possible only if all data flows.
// Where all shards are of one size, OSDs hold whole ones. Where they differ, only what a number
// of them can hold at all is looked at, so that the bound may not be quite within reach.
type bound struct {
	*network
	source, sink int32
	demand       int64
	sinks        []int32 // by OSD of the group: its arc to the sink
	inner        []inner
	full         []int64 // capacities as built, by arc
	nested       []nested
}

// nested is an outer bucket whose places of a PG have to be in several inner ones: two
// hosts of a rack. However much room one host has, it cannot take more than the others can
// match, but for places that PGs lack altogether.
type nested struct {
	arc        int32
	once       int64           // a place in every PG of the pools
	lacking    int64           // places that PGs do not have anywhere
	each, most int             // places that a PG has in the outer bucket, and in one inner one
	inner      map[int32][]int // by inner bucket: its OSDs, as numbers of the group's
}

// limit is the most that an outer bucket can take: that of the largest n (the load of one place in
// some PGs) for which its inner buckets take each times n, or at most what is lacking less.
func (n *nested) limit(caps []int64) int64 {
	low, high := int64(0), n.once
	for low < high {
		mid := low + (high-low+1)/2
		if n.room(caps, mid) >= mid*int64(n.each)-n.lacking {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return min(low*int64(n.each), n.room(caps, low))
}

// room is what the inner buckets can take of PGs one place of which has a load of once.
func (n *nested) room(caps []int64, once int64) (sum int64) {
	for _, osds := range n.inner {
		var room int64
		for _, i := range osds {
			room += min(caps[i], once)
		}
		sum += min(room, once*int64(n.most))
	}
	return sum
}

// inner is an arc into a bucket that a rule counts.
type inner struct {
	arc    int32
	pool   *pool
	bucket int32
	each   int
	node   int32
}

// newBound builds the network of a group.
func (g *group) newBound() *bound {
	b := &bound{network: &network{}}
	b.source, b.sink = b.node(), b.node()
	leaf := make([]int32, len(g.osds))
	for _, o := range g.ids {
		leaf[o] = b.node()
		b.sinks = append(b.sinks, b.connect(leaf[o], b.sink, 0))
	}
	for _, alike := range g.alike() {
		for i := range alike[0].rule.blocks {
			g.addBlock(b, alike, i, leaf)
		}
	}
	for _, a := range b.arcs {
		b.full = append(b.full, a.left)
	}
	return b
}

// alike lists the pools of the group, those together that have the same size and rules that say the
// same. They are like one pool: what lays that out, lays each of them out in proportion. One by
// one, each would be promised what only one of them can have.
func (g *group) alike() (list [][]*pool) {
	for _, p := range g.members {
		i := slices.IndexFunc(list, func(l []*pool) bool { return l[0].Size == p.Size && l[0].rule.equal(p.rule) })
		if i < 0 {
			list = append(list, []*pool{p})
			continue
		}
		list[i] = append(list[i], p)
	}
	return list
}

// addBlock adds one block of the rule that pools have in common: their data, the buckets of its
// levels, its OSDs.
func (g *group) addBlock(b *bound, pools []*pool, number int, leaf []int32) {
	p, bl := pools[0], &pools[0].rule.blocks[number]
	var demand, once int64
	for _, p := range pools {
		all, there := g.demandOf(p, bl)
		once, demand = once+all, demand+there
	}
	b.demand += demand
	top := b.node()
	b.connect(b.source, top, demand)
	type key struct{ level, bucket int32 }
	nodes, outer := map[key]int32{}, map[int32]int{}
	for number, o := range g.ids {
		if !bl.in[o] {
			continue
		}
		at := top
		for l := range bl.levels {
			bucket := bl.levels[l].parent[o]
			if bucket == noParent {
				at = -1
				break
			}
			node, ok := nodes[key{int32(l), bucket}]
			if !ok {
				node = b.node()
				nodes[key{int32(l), bucket}] = node
				a := b.connect(at, node, once*int64(bl.levels[l].each))
				b.inner = append(b.inner, inner{a, p, bucket, bl.levels[l].each, node})
				if l == 0 && len(bl.levels) == 2 && bl.levels[0].each > 1 {
					outer[bucket] = len(b.nested)
					b.nested = append(b.nested, nested{
						arc: a, once: once, lacking: once*int64(bl.to-bl.from) - demand,
						each: bl.levels[0].each, most: bl.levels[1].each, inner: map[int32][]int{},
					})
				}
			}
			if i, ok := outer[bl.levels[0].parent[o]]; ok && l == 1 {
				b.nested[i].inner[bucket] = append(b.nested[i].inner[bucket], number)
			}
			at = node
		}
		if at >= 0 {
			b.connect(at, leaf[o], once)
		}
	}
}

// demandOf is the load of one place in every PG of a pool, and that of the block's places that PGs have.
func (g *group) demandOf(p *pool, bl *block) (once, demand int64) {
	for i := p.first; i < p.end; i++ {
		once += g.pgs[i].size
		for _, o := range g.places(&g.pgs[i])[bl.from:bl.to] {
			if g.isOSD(o) && g.in[o] {
				demand += g.pgs[i].size
			}
		}
	}
	return once, demand
}

// caps is what each OSD of the group may hold at a level: as many whole shards as fit,
// where all are of one size, else as much as some number of shards can hold. OSDs that take nothing keep at most what they have, and none
// grows beyond the nearfull ratio, or the backfillfull ratio where all cannot stay below that.
func (g *group) caps(level float64) []int64 {
	caps := make([]int64, len(g.ids))
	for i, o := range g.ids {
		c := math.Floor(level*g.osds[o].weight*(1+1e-12) + 1e-9)
		if g.even {
			c = math.Floor(c/float64(g.unit)) * float64(g.unit)
		}
		caps[i] = int64(c)
		if !g.even {
			caps[i] = g.fills[o].upTo(caps[i])
		}
		if !g.osds[o].takes {
			caps[i] = min(caps[i], g.osds[o].load)
		}
		caps[i] = min(caps[i], g.mostOf(o))
	}
	return caps
}

// mostOf is what an OSD may grow to.
func (g *group) mostOf(o int32) int64 {
	if g.crowded {
		return g.osds[o].most
	}
	return g.osds[o].near
}

// feasible says whether all data can be laid out with those caps.
func (b *bound) feasible(caps []int64) bool {
	for i := range b.arcs {
		b.arcs[i].left = b.full[i]
	}
	for i, a := range b.sinks {
		b.arcs[a].left = caps[i]
	}
	for i := range b.nested {
		n := &b.nested[i]
		b.arcs[n.arc].left = min(b.arcs[n.arc].left, n.limit(caps))
	}
	return b.push(b.source, b.sink) == b.demand
}

// lowest searches for the lowest level that is feasible, and at least low.
func (g *group) lowest(b *bound) float64 {
	if !g.crowded && !b.feasible(g.caps(unlimited/max(1, g.weight))) {
		g.crowded = true
	}
	high := max(g.fullest(), g.mean())
	low := g.mean() * (1 - 1e-9)
	if b.feasible(g.caps(low)) {
		return low
	}
	// OSDs that leave may make it necessary to fill others more than any is now.
	for try := 0; !b.feasible(g.caps(high)); try++ {
		if try == 200 {
			return max(g.fullest(), g.mean()) // nobody may take what has to go
		}
		low, high = high, high*1.1
	}
	for range 60 {
		mid := (low + high) / 2
		if high-low < high*1e-11 {
			break
		}
		if b.feasible(g.caps(mid)) {
			high = mid
		} else {
			low = mid
		}
	}
	return g.settle(high)
}

// settle lowers a level to the highest that an OSD at its cap has.
func (g *group) settle(level float64) float64 {
	if !g.even {
		return level
	}
	var most float64
	for i, c := range g.caps(level) {
		if o := g.osds[g.ids[i]]; float64(c)/o.weight > most {
			most = float64(c) / o.weight
		}
	}
	return min(level, most)
}

// excess is the least that has to leave OSDs for all of them to be within their caps: in
// bytes (or shards), of whole shards, and as a number of shards, the largest leaving first. No plan moves
// less.
func (g *group) excess(caps []int64) (load, shards int64) {
	over := make([]int64, len(g.osds))
	for i, o := range g.ids {
		if e := g.osds[o].load - caps[i]; e > 0 {
			over[o], load = e, load+e
		}
	}
	if g.even {
		return load, load / max(1, g.unit)
	}
	sizes := make([][]int64, len(g.osds))
	for _, p := range g.members {
		for i := p.first; i < p.end; i++ {
			for _, o := range g.places(&g.pgs[i]) {
				if g.isOSD(o) && over[o] > 0 {
					sizes[o] = append(sizes[o], g.pgs[i].size)
				}
			}
		}
	}
	load = 0
	for o, list := range sizes {
		load += cover(list, over[o])
		slices.SortFunc(list, func(a, b int64) int { return cmp.Compare(b, a) })
		for _, size := range list {
			if over[o] <= 0 {
				break
			}
			over[o] -= size
			shards++
		}
	}
	return load, shards
}
