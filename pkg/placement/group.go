package placement

import "slices"

// group is a set of OSDs that share data by way of some pools, and the pools: what is in
// one group cannot relieve another, as with device classes. OSDs rise.
type group struct {
	*world
	members []*pool
	ids     []int32
	in      []bool // by OSD
	total   int64  // load, in bytes or shards
	weight  float64
	even    bool // all shards are of one size
	unit    int64
	fills   []*wholeFill // by OSD, where shards are of several sizes
	crowded bool         // the data cannot be laid out with all OSDs below the nearfull ratio
}

// groups splits a world. OSDs that no pool reaches are in none.
func (w *world) groups() []*group {
	root := make([]int, len(w.pools))
	for i := range root {
		root[i] = i
	}
	find := func(i int) int {
		for root[i] != i {
			i = root[i]
		}
		return i
	}
	owner := make([]int, len(w.osds))
	for i := range owner {
		owner[i] = -1
	}
	for i, p := range w.pools {
		for o := range w.osds {
			if !p.reaches(w, o) {
				continue
			}
			if owner[o] < 0 {
				owner[o] = find(i)
			}
			root[max(find(i), find(owner[o]))] = min(find(i), find(owner[o]))
		}
	}
	var all []*group
	byRoot := map[int]*group{}
	for i, p := range w.pools {
		g := byRoot[find(i)]
		if g == nil {
			g = &group{world: w, in: make([]bool, len(w.osds))}
			byRoot[find(i)] = g
			all = append(all, g)
		}
		g.members = append(g.members, p)
	}
	for _, g := range all {
		g.gather(owner, find)
	}
	return slices.DeleteFunc(all, func(g *group) bool { return g.total == 0 || g.weight == 0 })
}

// reaches says whether the pool's rule can choose an OSD that has weight.
func (p *pool) reaches(w *world, o int) bool {
	return w.osds[o].weight > 0 && slices.ContainsFunc(p.rule.blocks, func(b block) bool { return b.in[o] })
}

// gather finds the group's OSDs and sums. OSDs without weight that still have shards
// belong to it, too: all has to leave them.
func (g *group) gather(owner []int, find func(int) int) {
	first := slices.Index(g.pools, g.members[0])
	for o, of := range owner {
		if of >= 0 && find(of) == find(first) {
			g.ids = append(g.ids, int32(o))
			g.in[o] = true
			g.total += g.osds[o].load
			g.weight += g.osds[o].weight
		}
	}
	g.even = true
	var leaving []int32
	for _, p := range g.members {
		for i := p.first; i < p.end; i++ {
			size := g.pgs[i].size
			if g.unit == 0 {
				g.unit = size
			}
			g.even = g.even && size == g.unit
			for _, o := range g.places(&g.pgs[i]) {
				if g.isOSD(o) && !g.in[o] && g.osds[o].weight == 0 {
					leaving, g.in[o], g.total = append(leaving, o), true, g.total+g.osds[o].load
				}
			}
		}
	}
	g.ids = append(g.ids, leaving...)
	slices.Sort(g.ids)
	g.findFills()
}

// mean is the load that one unit of weight has on average.
func (g *group) mean() float64 { return float64(g.total) / g.weight }

// fullest returns the highest load that a unit of weight has.
func (g *group) fullest() float64 {
	var level float64
	for _, o := range g.ids {
		if g.osds[o].weight > 0 {
			level = max(level, float64(g.osds[o].load)/g.osds[o].weight)
		}
	}
	return level
}

// usable is the part of the group's raw capacity that can be filled before its fullest
// OSD is full, if data grows alike everywhere: 1 over the fullest OSD's relative fill.
func (g *group) usable() float64 {
	level := g.fullest()
	if level == 0 {
		return 1
	}
	return g.mean() / level
}
