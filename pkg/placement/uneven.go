package placement

import (
	"cmp"
	"slices"
)

// solveUneven is solve for shards of several sizes: the senders' excess is made up of few
// shards, these are laid out like parcels, the largest first, and what does not fit is
// mended by exchanges.
func (s *solver) solveUneven() {
	for _, o := range s.over() {
		slices.SortStableFunc(s.own[o], func(a, b shard) int { return cmp.Compare(s.size(b), s.size(a)) })
	}
	parcels := s.parcels()
	slices.SortStableFunc(parcels, func(a, b shard) int { return cmp.Compare(s.size(b), s.size(a)) })
	for _, x := range parcels {
		s.place(x)
	}
	s.mend()
}

// parcels chooses what leaves the senders: largest first as long as it fits into the
// excess, and the smallest one that covers the rest.
func (s *solver) parcels() []shard {
	var all []shard
	for _, o := range s.over() {
		left := -s.slack(o)
		var last shard
		have := false
		for _, x := range s.own[o] {
			size := s.size(x)
			switch {
			case s.at(x) != o || left <= 0:
			case size <= left:
				all = append(all, x)
				left -= size
			default:
				last, have = x, true
			}
		}
		// Of those that were too large at their turn, the last is the smallest that
		// still covers what is left now, or the search goes on in mend.
		if left > 0 && have {
			all = append(all, s.smallestCover(o, left, last, all))
		}
	}
	return all
}

// smallestCover is the smallest shard of a sender, not chosen yet, that is at least left.
func (s *solver) smallestCover(o int32, left int64, best shard, chosen []shard) shard {
	for _, x := range s.own[o] {
		if s.at(x) == o && s.size(x) >= left && s.size(x) < s.size(best) && !slices.Contains(chosen, x) {
			best = x
		}
	}
	return best
}

// place moves a shard to the OSD with the most room that may take it.
func (s *solver) place(x shard) bool {
	best, room := int32(-1), s.size(x)-1
	for _, to := range s.ids {
		if slack := s.slack(to); slack > room && !s.sender[to] && s.allowed(x, to) {
			best, room = to, slack
		}
	}
	if best >= 0 {
		s.move(x, best)
	}
	return best >= 0
}

// maxMends bounds the exchanges; a map of 10,000 OSDs needs fewer.
const maxMends = 20_000

// mend brings OSDs within their caps by exchanges, the cheapest for the fullest OSD
// first, and by chains.
func (s *solver) mend() {
	held := s.held()
	stuck := make([]bool, len(s.osds))
	for range maxMends {
		at := slices.IndexFunc(s.over(), func(o int32) bool { return !stuck[o] })
		if at < 0 {
			return
		}
		o := s.over()[at]
		if out, back, to, ok := s.exchange(o, held); ok {
			s.transfer(held, out, to)
			if back.pg >= 0 {
				s.transfer(held, back, o)
			}
			continue
		}
		stuck[o] = !s.relay(o, held)
	}
}

// held lists each OSD's shards, smallest first.
func (s *solver) held() [][]shard {
	held := make([][]shard, len(s.osds))
	for _, p := range s.members {
		for i := p.first; i < p.end; i++ {
			if s.pgs[i].frozen {
				continue
			}
			for place, o := range s.places(&s.pgs[i]) {
				if s.isOSD(o) && s.in[o] {
					held[o] = append(held[o], shard{int32(i), int32(place)})
				}
			}
		}
	}
	for _, list := range held {
		slices.SortStableFunc(list, func(a, b shard) int { return cmp.Compare(s.size(a), s.size(b)) })
	}
	return held
}

// transfer moves a shard and keeps held in order.
func (s *solver) transfer(held [][]shard, x shard, to int32) {
	from := s.at(x)
	i := slices.Index(held[from], x)
	held[from] = slices.Delete(held[from], i, i+1)
	i, _ = slices.BinarySearchFunc(held[to], s.size(x), func(y shard, size int64) int { return cmp.Compare(s.size(y), size) })
	held[to] = slices.Insert(held[to], i, x)
	s.move(x, to)
}

// exchange finds the cheapest way to bring one OSD within its cap: a shard that leaves,
// and maybe one that comes back for it (pg -1: none).
func (s *solver) exchange(o int32, held [][]shard) (out, back shard, to int32, ok bool) {
	excess := -s.slack(o)
	var cheapest int64 = unlimited
	for _, a := range held[o] {
		if s.size(a) < excess || s.cost(a) >= cheapest {
			continue
		}
		for _, t := range s.ids {
			if t == o || !s.osds[t].takes || s.slack(t) < 0 {
				continue
			}
			if s.slack(t) >= s.size(a) {
				if s.cost(a) < cheapest && s.allowed(a, t) {
					out, back, to, ok, cheapest = a, shard{-1, 0}, t, true, s.cost(a)
				}
				continue
			}
			b, cost := s.counterpart(a, t, excess, held[t], cheapest)
			if cost < cheapest {
				out, back, to, ok, cheapest = a, b, t, true, cost
			}
		}
	}
	return out, back, to, ok
}

// counterpart finds what t can give for a, so that both stay within their caps.
func (s *solver) counterpart(a shard, t int32, excess int64, there []shard, cheapest int64) (shard, int64) {
	low, high := s.size(a)-s.slack(t), s.size(a)-excess
	i, _ := slices.BinarySearchFunc(there, low, func(y shard, size int64) int { return cmp.Compare(s.size(y), size) })
	o := s.at(a)
	for ; i < len(there) && s.size(there[i]) <= high; i++ {
		b := there[i]
		if b.pg == a.pg {
			continue
		}
		if cost := s.cost(a) + s.cost(b); cost < cheapest && s.allowed(a, t) && s.allowed(b, o) {
			return b, cost
		}
	}
	return shard{}, unlimited
}

// cost is how many bytes more are moved if a shard moves: none if it has moved before.
func (s *solver) cost(x shard) int64 {
	if s.at(x) != s.old[int(s.pgs[x.pg].at)+int(x.place)] {
		return 1
	}
	return s.size(x) + 1
}
