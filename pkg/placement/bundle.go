package placement

import "slices"

// A rule that chooses a few buckets first and several OSDs in each (two racks, two hosts
// in each) lets no single shard change the outer bucket: all shards of a PG in it have to
// go together, a bundle.

// bundled says whether the pool's rule is of that kind.
func (p *pool) bundled() bool {
	return slices.ContainsFunc(p.rule.blocks, func(b block) bool {
		return len(b.levels) > 0 && b.levels[0].each > 1 && !b.levels[0].distinct
	})
}

// moveBundles moves bundles off OSDs above their caps, to outer buckets where their shards
// find OSDs with room. With strict all shards of a bundle are on such OSDs and all find
// room, so that no move is spent in vain; else more OSDs have to be relieved than get
// too much.
func (s *solver) moveBundles(strict bool) {
	if !slices.ContainsFunc(s.members, (*pool).bundled) {
		return
	}
	for range maxBundleRounds {
		moved := false
		room := s.receivers()
		for _, o := range s.over() {
			for _, x := range s.own[o] {
				if s.slack(o) >= 0 {
					break
				}
				if s.at(x) == o && s.pgs[x.pg].pool.bundled() && s.moveBundle(x, room, strict) {
					moved = true
				}
			}
		}
		if strict || !moved {
			return
		}
	}
}

// maxBundleRounds bounds how often OSDs above their caps are gone through.
const maxBundleRounds = 4

// bundle lists the shards that are in one outer bucket with x.
func (s *solver) bundle(x shard) []shard {
	p := &s.pgs[x.pg]
	b := p.pool.rule.blockOf(int(x.place))
	parent := b.levels[0].parent
	var all []shard
	places := s.places(p)
	for i := b.from; i < min(b.to, len(places)); i++ {
		if o := places[i]; s.isOSD(o) && parent[o] == parent[places[x.place]] {
			all = append(all, shard{x.pg, int32(i)})
		}
	}
	return all
}

// moveBundle moves the bundle of a shard, if it can.
func (s *solver) moveBundle(x shard, room []int32, strict bool) bool {
	p := &s.pgs[x.pg]
	all := s.bundle(x)
	relieved := 0
	for _, y := range all {
		switch o := s.at(y); {
		case !s.in[o]:
			return false
		case s.slack(o) <= -p.size:
			relieved++
		case strict:
			return false
		}
	}
	if strict {
		relieved = 1
	}
	places := slices.Clone(s.places(p))
	for _, y := range all {
		places[y.place] = none
	}
	targets := make([]int32, 0, len(all))
	outer := p.pool.rule.blockOf(int(x.place)).levels[0].parent
	from := outer[s.at(x)]
	for _, first := range room {
		if outer[first] == from {
			continue
		}
		targets = s.targets(places, all, first, room, targets[:0], relieved-1)
		if len(targets) == len(all) {
			s.moveAll(all, targets)
			return true
		}
	}
	return false
}

// targets finds OSDs for a bundle, the first of them given; all but as many as may be
// crowded have room. Places are the PG's without the bundle, and are left so.
func (s *solver) targets(places []int32, bundle []shard, first int32, room, found []int32, crowded int) []int32 {
	p := &s.pgs[bundle[0].pg]
	for i, y := range bundle {
		fits := func(o int32, most int64) bool {
			return s.slack(o) >= most && s.fitsPairs(y, o) && s.osds[o].takes && p.pool.rule.allows(places, int(y.place), o)
		}
		to := none
		if i == 0 {
			if fits(first, p.size) {
				to = first
			}
		} else if at := slices.IndexFunc(room, func(o int32) bool { return fits(o, p.size) }); at >= 0 {
			to = room[at]
		} else if crowded > 0 {
			to, crowded = s.leastCrowded(fits), crowded-1
		}
		if to == none {
			break
		}
		found = append(found, to)
		places[y.place] = to
	}
	for _, y := range bundle {
		places[y.place] = none
	}
	return found
}

// leastCrowded is the OSD with the most room, or the least too much, that fits, or none.
func (s *solver) leastCrowded(fits func(int32, int64) bool) int32 {
	best := none
	for _, o := range s.ids {
		if (best == none || s.slack(o) > s.slack(best)) && fits(o, -unlimited) {
			best = o
		}
	}
	return best
}

func (s *solver) moveAll(shards []shard, to []int32) {
	for i, x := range shards {
		s.move(x, to[i])
	}
}
