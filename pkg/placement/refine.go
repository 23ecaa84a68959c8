package placement

// maxRefine bounds the checks of whether a shard may move, in one look at all of them:
// about a second.
const maxRefine = 20_000_000

// maxCycles bounds the improvements.
const maxCycles = 2000

// refine lowers the number of moves of a solution in which the shards are of one size,
// and says whether it is proven that no solution within these caps has fewer.
//
// Moves are the cost of a flow: PG -> bucket that the rule counts -> OSD -> done, where an
// OSD that the PG was on costs nothing and another one 1. A flow costs the least if its
// residual network has no cycle of negative cost (Klein 1967). A cycle through PGs is one
// through OSDs: a shard goes from one to the next, which costs -1 if it goes back home,
// 1 if it leaves home, else 0. That is exact where rules have at most one level above
// OSDs, with one place a bucket.
func (s *solver) refine() (proven bool) {
	exact, shards := true, 0
	for _, p := range s.members {
		exact = exact && p.rule.flat()
		shards += (p.end - p.first) * p.Size
	}
	if shards*len(s.ids) > maxRefine {
		return false
	}
	for range maxCycles {
		cycle := s.newCosts().negativeCycle()
		if cycle == nil {
			return exact
		}
		if !s.turn(cycle) {
			return false
		}
	}
	return false
}

// flat says whether a rule is one `take`, one choose step with one place a bucket, `emit`.
func (r *rule) flat() bool {
	return len(r.blocks) == 1 && len(r.blocks[0].levels) <= 1 && (len(r.blocks[0].levels) == 0 || r.blocks[0].levels[0].each == 1)
}

// step is the cheapest move of a shard between two OSDs.
type step struct {
	shard shard
	cost  int8
}

const never = int8(2)

// costs has a step for every two OSDs of the group, by index, and as the last index the
// end of the flow: OSDs with room lead there, and from there any OSD can be had.
type costs struct {
	n     int
	steps []step
}

func (s *solver) newCosts() *costs {
	n := len(s.ids) + 1
	c := &costs{n: n, steps: make([]step, n*n)}
	for i := range c.steps {
		c.steps[i].cost = never
	}
	index := make([]int32, len(s.osds))
	for i, o := range s.ids {
		index[o] = int32(i)
		c.steps[(n-1)*n+i].cost = 0
		if s.slack(o) >= s.unit {
			c.steps[i*n+n-1].cost = 0
		}
	}
	for _, p := range s.members {
		for i := p.first; i < p.end; i++ {
			if s.pgs[i].frozen {
				continue
			}
			for place, o := range s.places(&s.pgs[i]) {
				if s.isOSD(o) && s.in[o] {
					s.offer(c, index, shard{int32(i), int32(place)})
				}
			}
		}
	}
	return c
}

// offer notes where a shard could go, if that is cheaper than what is known.
func (s *solver) offer(c *costs, index []int32, x shard) {
	from := s.at(x)
	for i, to := range s.ids {
		at := &c.steps[int(index[from])*c.n+i]
		if cost := s.foreign(x, to) - s.foreign(x, from); to != from && cost < at.cost && s.allowed(x, to) {
			*at = step{x, cost}
		}
	}
}

// foreign is 0 for an OSD that a shard's PG was on (in its place, where places matter), and 1
// for another.
func (s *solver) foreign(x shard, o int32) int8 {
	p := &s.pgs[x.pg]
	for i, old := range s.oldPlaces(p) {
		if old == o && (!p.pool.positional || i == int(x.place)) {
			return 0
		}
	}
	return 1
}

// negativeCycle finds one (Bellman and Ford), as a list of steps, or nil.
func (c *costs) negativeCycle() []cycleStep {
	dist, before := make([]int, c.n), make([]int, c.n)
	last := -1
	for range c.n {
		last = -1
		for from := range c.n {
			for to := range c.n {
				cost := c.steps[from*c.n+to].cost
				if cost == never || from == to {
					continue
				}
				if d := dist[from] + int(cost); d < dist[to] {
					dist[to], before[to], last = d, from, to
				}
			}
		}
		if last < 0 {
			return nil
		}
	}
	for range c.n { // surely inside of the cycle then
		last = before[last]
	}
	var cycle []cycleStep
	for at := last; ; {
		from := before[at]
		if from != c.n-1 && at != c.n-1 {
			cycle = append(cycle, cycleStep{c.steps[from*c.n+at].shard, at})
		}
		if at = from; at == last {
			return cycle
		}
	}
}

// cycleStep is a shard and the index of the OSD that it goes to.
type cycleStep struct {
	shard shard
	to    int
}

// turn makes a cycle's moves. Two of them may be of one PG and exclude each other: then
// none is made.
func (s *solver) turn(cycle []cycleStep) bool {
	var done []cycleStep
	for _, c := range cycle {
		from := s.at(c.shard)
		if !s.allowed(c.shard, s.ids[c.to]) {
			for i := len(done) - 1; i >= 0; i-- {
				s.move(done[i].shard, int32(done[i].to))
			}
			return false
		}
		s.move(c.shard, s.ids[c.to])
		done = append(done, cycleStep{c.shard, int(from)})
	}
	return true
}
