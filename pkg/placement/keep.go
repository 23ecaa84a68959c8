package placement

import "slices"

// keepOld puts every shard back to where it was before the change, also onto OSDs that
// are gone: from there it has to leave, as from any OSD above its cap. PGs that the rule does
// not allow there any more keep what it allows; those whose upmaps would be cancelled follow
// CRUSH. It returns what of that the rules alone make move.
func (w *world) keepOld() (forced amountMoved) {
	for i := range w.pgs {
		p := &w.pgs[i]
		if p.frozen {
			continue
		}
		crushed := slices.Clone(w.places(p))
		if p.pool.rule.holds(w.withoutGone(w.oldPlaces(p))) {
			copy(w.places(p), w.oldPlaces(p))
		} else {
			n := w.keepAllowed(p)
			forced.shards, forced.load = forced.shards+n, forced.load+n*p.size
		}
		w.fillHoles(p, crushed)
		if holes(w.places(p)) > holes(crushed) {
			w.fillEmptiest(p, holes(crushed))
		}
		w.trim(p, holes(crushed))
		switch {
		case holes(w.places(p)) > holes(crushed):
			copy(w.places(p), crushed)
		case p.pool.positional:
			w.keepInOrder(p, crushed)
		}
	}
	w.sum()
	return forced
}

// amountMoved is a number of shards, and what they hold.
type amountMoved struct{ shards, load int64 }

// keepAllowed gives a PG of its old places those that the rule allows together, the first
// ones first, and empties the others; it returns how many. Where a rule has one level of
// one place a bucket, no choice keeps more.
func (w *world) keepAllowed(p *pg) (lost int64) {
	places := w.places(p)
	for i := range places {
		places[i] = none
	}
	for i, o := range w.oldPlaces(p) {
		switch {
		case o == none || w.isGone(o):
		case w.isOSD(o) && p.pool.rule.allows(places, i, o):
			places[i] = o
		default:
			lost++
		}
	}
	return lost
}

// withoutGone copies places, those on OSDs that take no data any more empty.
func (w *world) withoutGone(places []int32) []int32 {
	left := slices.Clone(places)
	for i, o := range left {
		if w.isGone(o) {
			left[i] = none
		}
	}
	return left
}

// isGone says whether a place is on an OSD that takes no data any more.
func (w *world) isGone(o int32) bool { return w.isOSD(o) && w.osds[o].weight == 0 }

// fillHoles gives empty places what CRUSH has for the PG.
func (w *world) fillHoles(p *pg, crushed []int32) {
	places := w.places(p)
	for place, o := range places {
		for i, c := range crushed {
			if o == none && c != none && (!p.pool.positional || i == place) && p.pool.rule.allows(places, place, c) {
				places[place] = c
				break
			}
		}
	}
}

// fillEmptiest gives empty places the OSDs that are the least full by what CRUSH gave them,
// until there are no more holes than wanted.
func (w *world) fillEmptiest(p *pg, want int) {
	places := w.places(p)
	for place, o := range places {
		if o != none || holes(places) <= want {
			continue
		}
		best := none
		for id := range w.osds {
			to := int32(id)
			if !w.osds[to].takes || best != none && w.levelWith(to, 0) >= w.levelWith(best, 0) || !p.pool.rule.allows(places, place, to) {
				continue
			}
			best = to
		}
		if best != none {
			places[place] = best
			w.osds[best].load += p.size // to spread what follows; all is summed up anew after it
		}
	}
}

// trim empties places until there are as many holes as CRUSH leaves in the PG, since pairs
// only replace what CRUSH has chosen: first those on OSDs that are gone, then the last
// ones that CRUSH has not chosen. PGs whose places count do not come here with more.
func (w *world) trim(p *pg, want int) {
	places := w.places(p)
	spare := []func(int32) bool{
		w.isGone,
		func(o int32) bool { return !slices.Contains(w.basePlaces(p), o) },
	}
	for _, dispensable := range spare {
		for i := len(places) - 1; i >= 0 && holes(places) < want; i-- {
			if places[i] != none && dispensable(places[i]) {
				places[i] = none
			}
		}
	}
}

// holes counts empty places.
func holes(places []int32) (n int) {
	for _, o := range places {
		if o == none {
			n++
		}
	}
	return n
}

// keepInOrder keeps of the old places what pairs can say: OSDs that CRUSH has in other
// places now cannot swap them.
func (w *world) keepInOrder(p *pg, crushed []int32) {
	_, at := order(w.basePlaces(p), w.places(p))
	if slices.Equal(at, w.places(p)) {
		return
	}
	if !p.pool.rule.holds(w.withoutGone(at)) {
		at = crushed
	}
	copy(w.places(p), at)
}

// evict makes sure that no shard stays on an OSD that is gone: what found no place within
// the caps goes to the emptiest OSD that may have it, or where CRUSH wants it.
func (g *group) evict() {
	for _, p := range g.members {
		for i := p.first; i < p.end; i++ {
			q := &g.pgs[i]
			for place, o := range g.places(q) {
				if g.isOSD(o) && g.osds[o].weight == 0 {
					g.evictShard(q, place)
				}
			}
		}
	}
}

func (g *group) evictShard(p *pg, place int) {
	from, best := g.places(p)[place], none
	s := solver{group: g}
	for _, o := range g.ids {
		if !s.allowed(shard{g.index(p), int32(place)}, o) {
			continue
		}
		if best == none || float64(g.osds[o].load+p.size)/g.osds[o].weight < float64(g.osds[best].load+p.size)/g.osds[best].weight {
			best = o
		}
	}
	g.osds[from].load -= p.size
	g.places(p)[place] = best
	if best != none {
		g.osds[best].load += p.size
		return
	}
	copy(g.places(p), g.basePlaces(p))
	g.sum()
}

// index is the number of a PG.
func (w *world) index(p *pg) int32 {
	return int32(p.pool.first) + int32(p.seed)
}
