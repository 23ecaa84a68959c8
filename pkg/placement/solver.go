package placement

import (
	"cmp"
	"slices"
)

// shard is one place of one PG.
type shard struct{ pg, place int32 }

// solver moves shards of one group until no OSD holds more than its cap. It works on
// world.cur. Senders are the OSDs that hold too much at the start; they alone lose
// shards that they had, and nobody gains beyond its cap, so a solution moves no more
// than has to leave the senders.
type solver struct {
	*group
	cap    []int64   // by OSD
	sender []bool    // by OSD
	own    [][]shard // by OSD: what senders had at the start, upmapped shards first
	got    [][]shard // by OSD: what was moved there; may hold shards that have left again
	firsts []int     // by OSD: of how many PGs it is first, and so primary
	fair   []float64 // by OSD: of how many its weight asks it to be
	wide   bool      // shards may move that no sender had
}

// newSolver prepares for those caps (in the order of the group's OSDs).
func (g *group) newSolver(caps []int64) *solver {
	s := &solver{
		group: g, cap: make([]int64, len(g.osds)), sender: make([]bool, len(g.osds)),
		own: make([][]shard, len(g.osds)), got: make([][]shard, len(g.osds)),
	}
	for i, o := range g.ids {
		s.cap[o] = caps[i]
		s.sender[o] = g.osds[o].load > caps[i]
	}
	s.countFirsts()
	s.list(func(o int32) bool { return s.sender[o] })
	return s
}

// list notes what OSDs have: upmapped shards first, since moving those costs no new pair,
// then those that move anyway, then others. Among equals, OSDs that are primary too often
// give first places away first, and others keep theirs: the place goes with the shard.
func (s *solver) list(wanted func(int32) bool) {
	for class := range 3 {
		for _, first := range []bool{true, false} {
			for _, p := range s.members {
				for i := p.first; i < p.end; i++ {
					g := &s.pgs[i]
					if g.frozen || g.size == 0 {
						continue
					}
					for place, o := range s.places(g) {
						if s.isOSD(o) && s.in[o] && wanted(o) && ((place == 0) == s.firstTooOften(o, 0)) == first && s.class(g, place) == class {
							s.own[o] = append(s.own[o], shard{int32(i), int32(place)})
						}
					}
				}
			}
		}
	}
}

// countFirsts counts how many PGs each OSD is first of, and how many its weight asks for.
func (s *solver) countFirsts() {
	s.firsts, s.fair = make([]int, len(s.osds)), make([]float64, len(s.osds))
	pgs := 0
	for _, p := range s.members {
		for i := p.first; i < p.end; i++ {
			if o := s.places(&s.pgs[i])[0]; s.isOSD(o) {
				s.firsts[o]++
				pgs++
			}
		}
	}
	for o := range s.fair {
		s.fair[o] = float64(pgs) * s.osds[o].weight / s.weight
	}
}

// firstTooOften says whether an OSD is primary of more PGs than its weight asks for, or
// would be with more.
func (s *solver) firstTooOften(o int32, more int) bool {
	return float64(s.firsts[o]+more) > s.fair[o]
}

// class sorts shards by what moving them costs.
func (s *solver) class(p *pg, place int) int {
	switch {
	case s.isUpmapped(p, place):
		return 0
	case s.foreign(shard{s.index(p), int32(place)}, s.places(p)[place]) > 0:
		return 1
	default:
		return 2
	}
}

// isUpmapped says whether CRUSH would not have a PG on the OSD of a place.
func (s *solver) isUpmapped(p *pg, place int) bool {
	o, base := s.places(p)[place], s.basePlaces(p)
	if p.pool.positional {
		return base[place] != o
	}
	return !slices.Contains(base, o)
}

func (s *solver) at(x shard) int32 { return s.cur[int(s.pgs[x.pg].at)+int(x.place)] }

func (s *solver) size(x shard) int64 { return s.pgs[x.pg].size }

// slack is how much an OSD may still take.
func (s *solver) slack(o int32) int64 { return s.cap[o] - s.osds[o].load }

// allowed says whether a shard may move to an OSD: by the rule, and so that pairs of an
// upmap can say it.
func (s *solver) allowed(x shard, to int32) bool {
	p := &s.pgs[x.pg]
	return s.osds[to].takes && s.in[to] && s.fitsPairs(x, to) && p.pool.rule.allows(s.places(p), int(x.place), to)
}

// fitsPairs says whether pairs can put an OSD into a shard's place: they cannot swap
// places, and where places matter, an OSD may only be in that which CRUSH gives it.
func (s *solver) fitsPairs(x shard, to int32) bool {
	p := &s.pgs[x.pg]
	if !p.pool.positional {
		return true
	}
	for i, o := range s.basePlaces(p) {
		if o == to && i != int(x.place) {
			return false
		}
	}
	return true
}

// move moves a shard.
func (s *solver) move(x shard, to int32) {
	size := s.size(x)
	i := int(s.pgs[x.pg].at) + int(x.place)
	s.osds[s.cur[i]].load -= size
	if x.place == 0 {
		s.firsts[s.cur[i]]--
		s.firsts[to]++
	}
	s.cur[i] = to
	s.osds[to].load += size
	s.got[to] = append(s.got[to], x)
}

// over lists the OSDs above their caps, the most first.
func (s *solver) over() []int32 {
	var list []int32
	for _, o := range s.ids {
		if s.slack(o) < 0 {
			list = append(list, o)
		}
	}
	slices.SortStableFunc(list, func(a, b int32) int { return cmp.Compare(s.slack(a), s.slack(b)) })
	return list
}

// receivers lists the OSDs with room, the most first.
func (s *solver) receivers() []int32 {
	var list []int32
	for _, o := range s.ids {
		if s.slack(o) > 0 && s.osds[o].takes {
			list = append(list, o)
		}
	}
	slices.SortStableFunc(list, func(a, b int32) int { return cmp.Compare(s.slack(b), s.slack(a)) })
	return list
}

// solve returns whether all OSDs are within their caps now.
func (s *solver) solve() bool {
	s.undoUpmaps()
	s.undoMoves()
	for _, strict := range []bool{true, false} {
		s.moveBundles(strict)
		if s.even {
			s.solveEven()
		} else {
			s.solveUneven()
		}
	}
	return len(s.over()) == 0
}

// undoUpmaps moves upmapped shards of senders back to where CRUSH wants them: that is
// a move and a pair less.
func (s *solver) undoUpmaps() {
	for _, o := range s.ids {
		if !s.sender[o] {
			continue
		}
		for _, x := range s.own[o] {
			p := &s.pgs[x.pg]
			if s.slack(o) >= 0 || !s.isUpmapped(p, int(x.place)) {
				break // upmapped ones are first
			}
			for i, home := range s.basePlaces(p) {
				if p.pool.positional && i != int(x.place) || !s.isOSD(home) {
					continue
				}
				if s.slack(home) >= p.size && s.allowed(x, home) {
					s.move(x, home)
					break
				}
			}
		}
	}
}

// undoMoves moves shards of senders that move anyway back to where they were: a move less.
func (s *solver) undoMoves() {
	for _, o := range s.ids {
		if !s.sender[o] {
			continue
		}
		for _, x := range s.own[o] {
			p := &s.pgs[x.pg]
			if s.slack(o) >= 0 {
				break
			}
			if s.at(x) != o || s.foreign(x, o) == 0 {
				continue
			}
			for i, was := range s.oldPlaces(p) {
				if p.pool.positional && i != int(x.place) || !s.isOSD(was) {
					continue
				}
				if s.slack(was) >= p.size && s.allowed(x, was) {
					s.move(x, was)
					break
				}
			}
		}
	}
}

// solveEven moves shards of equal size, by chains where nothing else is left.
func (s *solver) solveEven() {
	s.greedy()
	for _, wide := range []bool{false, true} {
		s.widen(wide)
		for _, o := range s.over() {
			for s.slack(o) < 0 && s.augment(o) {
			}
		}
	}
	s.wide = false
}

// greedy moves shards of equal size, receivers taking turns. First places do not go to
// OSDs that are primary too often.
func (s *solver) greedy() {
	open, next := s.receivers(), 0
	for _, o := range s.over() {
		for _, x := range s.own[o] {
			if s.slack(o) >= 0 || len(open) == 0 {
				break
			}
			if s.at(x) != o {
				continue
			}
			for try := range open {
				i := (next + try) % len(open)
				to := open[i]
				if x.place == 0 && s.firstTooOften(to, 1) || !s.allowed(x, to) {
					continue
				}
				s.move(x, to)
				next = i + 1
				if s.slack(to) < s.unit {
					open = slices.Delete(open, i, i+1)
					next = i
				}
				break
			}
		}
	}
}

// widen lets shards move that no sender had, at a move more than the least.
func (s *solver) widen(wide bool) {
	if s.wide = wide; wide && len(s.over()) > 0 {
		for _, o := range s.ids {
			s.own[o] = nil
		}
		s.list(func(int32) bool { return true })
	}
}

// hop is how a search came to an OSD: a shard of another one moved there.
type hop struct {
	from  int32
	shard shard
	seen  bool
}

// augment finds the shortest chain of moves that takes one shard off an OSD: the last
// OSD of the chain has room, those between pass on what they were given before. A shard
// that is passed on, or goes back, is no move more.
func (s *solver) augment(start int32) bool {
	hops := make([]hop, len(s.osds))
	hops[start].seen = true
	queue := []int32{start}
	for at := 0; at < len(queue); at++ {
		from := queue[at]
		shards := s.movable(from)
		for _, room := range []bool{true, false} {
			for _, to := range s.ids {
				if hops[to].seen || !s.osds[to].takes || (s.slack(to) >= s.unit) != room {
					continue
				}
				x, ok := s.pick(shards, to, hops, from, start)
				if !ok {
					continue
				}
				hops[to] = hop{from, x, true}
				if room {
					s.follow(hops, start, to)
					return true
				}
				queue = append(queue, to)
			}
		}
	}
	return false
}

// movable lists what an OSD may pass on: a sender what it had, others what they got.
func (s *solver) movable(o int32) []shard {
	list := s.got[o]
	if s.sender[o] || s.wide {
		list = s.own[o]
	}
	if s.wide {
		list = append(slices.Clone(s.got[o]), list...)
	}
	there := make([]shard, 0, len(list))
	for _, x := range list {
		if s.at(x) == o {
			there = append(there, x)
		}
	}
	return there
}

// pick chooses a shard that may move to an OSD, of a PG that the chain does not move yet.
func (s *solver) pick(shards []shard, to int32, hops []hop, from, start int32) (shard, bool) {
	for _, x := range shards {
		if s.sender[to] && !s.wide && s.old[int(s.pgs[x.pg].at)+int(x.place)] != to {
			continue // senders take back what they had, nothing else
		}
		if s.allowed(x, to) && !onChain(hops, from, start, x.pg) {
			return x, true
		}
	}
	return shard{}, false
}

func onChain(hops []hop, at, start, pg int32) bool {
	for ; at != start; at = hops[at].from {
		if hops[at].shard.pg == pg {
			return true
		}
	}
	return false
}

// follow makes a chain's moves, the last first.
func (s *solver) follow(hops []hop, start, end int32) {
	for at := end; at != start; at = hops[at].from {
		s.move(hops[at].shard, at)
	}
}
