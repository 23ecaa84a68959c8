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

// moveBundles moves bundles off OSDs above their caps, to outer buckets where each of
// its shards finds an OSD with room. With strict all shards of a bundle are on such OSDs,
// so that no move is spent in vain; else one is enough.
func (s *solver) moveBundles(strict bool) {
	if !slices.ContainsFunc(s.members, (*pool).bundled) {
		return
	}
	var room []int32
	for _, o := range s.receivers() {
		if !s.sender[o] {
			room = append(room, o)
		}
	}
	for _, o := range s.over() {
		for _, x := range s.own[o] {
			if s.slack(o) >= 0 {
				break
			}
			if s.at(x) == o && s.pgs[x.pg].pool.bundled() {
				s.moveBundle(x, room, strict)
			}
		}
	}
}

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
	for _, y := range all {
		if o := s.at(y); !s.in[o] || strict && s.slack(o) > -p.size {
			return false
		}
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
		targets = s.targets(places, all, first, room, targets[:0])
		if len(targets) == len(all) {
			s.moveAll(all, targets)
			return true
		}
	}
	return false
}

// targets finds OSDs with room for a bundle, the first of them given. Places are the
// PG's without the bundle, and are left so.
func (s *solver) targets(places []int32, bundle []shard, first int32, room []int32, found []int32) []int32 {
	p := &s.pgs[bundle[0].pg]
	for i, y := range bundle {
		if i == 0 {
			if s.slack(first) >= p.size && s.fitsPairs(y, first) && p.pool.rule.allows(places, int(y.place), first) {
				found = append(found, first)
				places[y.place] = first
			}
			continue
		}
		if len(found) < i {
			break
		}
		for _, o := range room {
			if s.slack(o) >= p.size && s.fitsPairs(y, o) && p.pool.rule.allows(places, int(y.place), o) {
				found = append(found, o)
				places[y.place] = o
				break
			}
		}
	}
	for _, y := range bundle {
		places[y.place] = none
	}
	return found
}

func (s *solver) moveAll(shards []shard, to []int32) {
	for i, x := range shards {
		s.move(x, to[i])
	}
}
