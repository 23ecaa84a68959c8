package placement

import (
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Prefer says what a plan for a change spares.
type Prefer string

// The preferences. PreferBytes keeps every shard where it is unless it has to leave, which
// takes an upmap for each that CRUSH would move. PreferPairs lets CRUSH move what it wants
// and evens out after it.
const (
	PreferBytes Prefer = "bytes"
	PreferPairs Prefer = "pairs"
)

// Change is a plan for a cluster that changes: OSDs come, go or change their size.
type Change struct {
	Prefer Prefer `json:"prefer"`
	// Raw capacities are sums of CRUSH weights, in bytes, a weight of 1.0 being a TiB.
	RawBefore int64 `json:"raw_bytes_before"`
	RawAfter  int64 `json:"raw_bytes_after"`
	// Parts of the raw capacity that can be filled: before, after if CRUSH alone decides,
	// after the plan, at best.
	UsableBefore float64 `json:"usable_before"`
	UsableCrush  float64 `json:"usable_crush_alone"`
	UsableAfter  float64 `json:"usable_after"`
	Bound        float64 `json:"bound"`
	// Moves counts shards that change their OSD.
	Moves           int64 `json:"moves"`
	MovesCrush      int64 `json:"moves_crush_alone"`
	MovesLowerBound int64 `json:"moves_lower_bound"`
	ShardsTotal     int64 `json:"shards"`
	// Bytes are 0 where the PGs' bytes are not known.
	BytesMoved      int64  `json:"bytes_moved"`
	BytesCrush      int64  `json:"bytes_moved_crush_alone"`
	BytesLowerBound int64  `json:"bytes_lower_bound"`
	BytesTotal      int64  `json:"bytes"`
	UpmapPairs      int    `json:"upmap_pairs"`
	LimitedBy       string `json:"limited_by"`

	Upmaps []Upmap `json:"-"`
	Known  bool    `json:"-"`
}

// PlanChange plans the way from one cluster to another of the same pools. The upmaps are
// for the second: they are to be set right after the change, while `norebalance` is set.
func PlanChange(before, after Cluster, prefer Prefer) (*Change, error) {
	if prefer != PreferBytes && prefer != PreferPairs {
		return nil, fault.New(fault.Invalid, "%q is no preference: bytes or pairs", prefer)
	}
	was, err := newWorld(before)
	if err != nil {
		return nil, err
	}
	w, err := newWorld(after)
	if err != nil {
		return nil, err
	}
	c := &Change{Prefer: prefer, RawBefore: was.raw(), RawAfter: w.raw(), UsableBefore: was.usable(), UsableCrush: w.usable(), Known: !w.counts}
	w.old = was.cur
	c.MovesCrush, c.BytesCrush = w.moved()
	crushed := slices.Clone(w.cur)
	w.keepOld()
	if prefer == PreferPairs {
		least, load := w.leastMoves()
		copy(w.cur, crushed)
		w.sum()
		c.apply(w.balance(BalanceOptions{}))
		c.MovesLowerBound, c.BytesLowerBound = least, load
	} else {
		c.apply(w.balance(BalanceOptions{}))
	}
	for i := range w.pgs {
		c.ShardsTotal += int64(w.pgs[i].n)
	}
	if w.counts {
		c.BytesCrush, c.BytesLowerBound = 0, 0
	}
	return c, nil
}

func (c *Change) apply(b *Balance) {
	c.UsableAfter, c.Bound, c.LimitedBy = b.UsableAfter, b.Bound, b.LimitedBy
	c.Moves, c.MovesLowerBound = b.Moves, b.MovesLowerBound
	c.BytesMoved, c.BytesLowerBound, c.BytesTotal = b.BytesMoved, b.BytesLowerBound, b.BytesTotal
	c.Upmaps, c.UpmapPairs = b.Upmaps, b.UpmapPairs
}

// raw is the sum of the weights in bytes.
func (w *world) raw() int64 {
	var sum float64
	for _, o := range w.osds {
		sum += o.weight
	}
	return int64(sum * (1 << 40))
}

// usable is that of the group with the least.
func (w *world) usable() float64 {
	least := 1.0
	for _, g := range w.groups() {
		least = min(least, g.usable())
	}
	return least
}

// leastMoves adds up what has to leave OSDs for the bound.
func (w *world) leastMoves() (shards, load int64) {
	for _, g := range w.groups() {
		l, n := g.excess(g.caps(g.lowest(g.newBound())))
		shards, load = shards+n, load+l
	}
	return shards, load
}

// keepOld puts every shard back to where it was before the change, also onto OSDs that
// are gone: from there it has to leave, as from any OSD above its cap. PGs that the rule
// does not allow there any more follow CRUSH, and so do those whose upmaps would be
// cancelled.
func (w *world) keepOld() {
	for i := range w.pgs {
		p := &w.pgs[i]
		if p.frozen || !p.pool.rule.holds(w.withoutGone(w.oldPlaces(p))) {
			continue
		}
		crushed := slices.Clone(w.places(p))
		copy(w.places(p), w.oldPlaces(p))
		w.fillHoles(p, crushed)
		w.trim(p, holes(crushed))
		switch {
		case holes(w.places(p)) > holes(crushed):
			copy(w.places(p), crushed)
		case p.pool.positional:
			w.keepInOrder(p, crushed)
		}
	}
	w.sum()
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
