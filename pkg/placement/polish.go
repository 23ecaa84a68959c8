package placement

import (
	"cmp"
	"slices"
)

const (
	// polished is how near to the lowest level polish leaves OSDs alone, as a factor.
	polished = 1.0005
	// maxPolish bounds the pairs of a shard and an OSD that polish looks at: about two seconds.
	maxPolish = 5_000_000
	// neighbours is how many shards about the best size are tried for coming back.
	neighbours = 4
)

// swap is a shard that leaves an OSD, and one that comes back for it (pg -1: none).
type swap struct {
	out, back shard
	to        int32
	level     float64 // that of the fuller of the two OSDs after it
	cost      int64   // bytes moved more than before, of the whole plan
	thrifty   bool    // only swaps that move no more than they relieve
}

// polish evens out shards of several sizes further than whole levels do: as long as it
// helps the fullest OSD, that gives a larger shard for a smaller one to the OSD where
// the difference fits best. All in all not more than so many bytes move since start.
func (g *group) polish(start *saved, lowest float64, most int64) {
	s := g.newSolver(g.caps(lowest))
	held := s.held()
	_, moved := g.change(start)
	goal := lowest * polished
	for tries := maxPolish; tries > 0; {
		o := s.fullestOSD()
		if o == none || s.levelWith(o, 0) <= goal {
			return
		}
		best := s.bestSwap(o, held, goal, most-moved, true)
		if best.to == none {
			best = s.bestSwap(o, held, goal, most-moved, false)
		}
		tries -= len(held[o]) * len(s.ids)
		if best.to == none {
			return
		}
		s.transfer(held, best.out, best.to)
		if best.back.pg >= 0 {
			s.transfer(held, best.back, o)
		}
		moved += best.cost
	}
}

// fullestOSD is that with the most load a unit of weight.
func (g *group) fullestOSD() int32 {
	best := none
	for _, o := range g.ids {
		if g.osds[o].weight > 0 && (best == none || g.levelWith(o, 0) > g.levelWith(best, 0)) {
			best = o
		}
	}
	return best
}

// levelWith is the load a unit of weight that an OSD would have with so much more.
func (w *world) levelWith(o int32, more int64) float64 {
	return float64(w.osds[o].load+more) / w.osds[o].weight
}

// bestSwap looks for what relieves an OSD best: of the swaps that reach the goal that which
// moves the least, else that which ends the lowest. With thrifty no swap moves more bytes
// than it relieves the OSD of.
func (s *solver) bestSwap(o int32, held [][]shard, goal float64, most int64, thrifty bool) swap {
	best := swap{level: s.levelWith(o, 0) * (1 - 1e-7), to: none, thrifty: thrifty}
	for _, t := range s.ids {
		if t != o && s.osds[t].takes {
			s.swapWith(&best, o, t, held, goal, most)
		}
	}
	return best
}

// swapWith looks for a swap between two OSDs that is better than the best one known.
func (s *solver) swapWith(best *swap, o, t int32, held [][]shard, goal float64, most int64) {
	want := s.evening(o, t)
	if want <= 0 {
		return
	}
	for _, a := range held[o] {
		s.trySwap(best, swap{out: a, back: shard{-1, 0}, to: t, thrifty: best.thrifty}, goal, most)
		i, _ := slices.BinarySearchFunc(held[t], s.size(a)-want, func(y shard, size int64) int { return cmp.Compare(s.size(y), size) })
		for j := max(0, i-neighbours/2); j < min(len(held[t]), i+neighbours/2); j++ {
			s.trySwap(best, swap{out: a, back: held[t][j], to: t, thrifty: best.thrifty}, goal, most)
		}
	}
}

// evening is the load that would have to go from one OSD to another for both to be as full.
func (s *solver) evening(o, t int32) int64 {
	a, b := &s.osds[o], &s.osds[t]
	return int64((float64(a.load)*b.weight - float64(b.load)*a.weight) / (a.weight + b.weight))
}

// trySwap takes a swap for the best one if it is better and allowed.
func (s *solver) trySwap(best *swap, x swap, goal float64, most int64) {
	o := s.at(x.out)
	gone := s.size(x.out)
	x.cost = s.extra(x.out, x.to)
	if x.back.pg >= 0 {
		if x.back.pg == x.out.pg {
			return
		}
		gone -= s.size(x.back)
		x.cost += s.extra(x.back, o)
	}
	x.level = max(s.levelWith(o, -gone), s.levelWith(x.to, gone))
	if x.cost > most || x.thrifty && x.cost > gone || s.osds[x.to].load+gone > s.mostOf(x.to) || !x.betters(best, goal) {
		return
	}
	if s.allowed(x.out, x.to) && (x.back.pg < 0 || s.allowed(x.back, o)) {
		*best = x
	}
}

// betters says whether a swap is better than another one.
func (x *swap) betters(best *swap, goal float64) bool {
	if x.level <= goal && best.level <= goal {
		return x.cost < best.cost
	}
	return x.level < best.level
}

// extra is how many bytes more the plan moves if a shard goes to an OSD: fewer than none
// where it goes back.
func (s *solver) extra(x shard, to int32) int64 {
	return s.size(x) * int64(s.foreign(x, to)-s.foreign(x, s.at(x)))
}
