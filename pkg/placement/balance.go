package placement

import (
	"fmt"
	"slices"
)

// Balance is a plan that evens out how full OSDs are.
type Balance struct {
	// UsableBefore, UsableAfter and Bound are parts of the raw capacity, 0 to 1: what can
	// be filled before the fullest OSD is full, now, after the plan, and at best.
	UsableBefore float64 `json:"usable_before"`
	UsableAfter  float64 `json:"usable_after"`
	Bound        float64 `json:"bound"`
	// Moves counts shards that change their OSD, MovesLowerBound what no plan that
	// reaches the bound can do without.
	Moves           int64 `json:"moves"`
	MovesLowerBound int64 `json:"moves_lower_bound"`
	// BytesMoved is 0 where the PGs' bytes are not known.
	BytesMoved int64 `json:"bytes_moved"`
	// UpmapPairs is how many pairs pg_upmap_items has in all after the plan.
	UpmapPairs int `json:"upmap_pairs"`
	// LimitedBy says what keeps usable_after from being more.
	LimitedBy string `json:"limited_by"`

	Upmaps []Upmap `json:"-"`
	// Known says whether the PGs' bytes were known: else all shards counted the same.
	Known bool `json:"-"`
	// BytesLowerBound is to BytesMoved what MovesLowerBound is to Moves.
	BytesLowerBound int64 `json:"-"`
	BytesTotal      int64 `json:"-"`
}

// BalanceOptions bound a plan.
type BalanceOptions struct {
	MaxMoves int // shards that may move; 0: as many as it takes
}

// PlanBalance plans upmaps for the whole cluster.
func PlanBalance(c Cluster, o BalanceOptions) (*Balance, error) {
	w, err := newWorld(c)
	if err != nil {
		return nil, err
	}
	return w.balance(o), nil
}

// balance plans, group by group.
func (w *world) balance(o BalanceOptions) *Balance {
	r := &Balance{UsableBefore: 1, UsableAfter: 1, Bound: 1, Known: !w.counts}
	left := int64(o.MaxMoves)
	for _, g := range w.groups() {
		res := g.balance(o.MaxMoves > 0, left)
		left -= res.moves
		if res.bound < r.Bound || r.LimitedBy == "" {
			r.LimitedBy = res.limitedBy
		}
		r.UsableBefore, r.UsableAfter, r.Bound = min(r.UsableBefore, res.before), min(r.UsableAfter, res.after), min(r.Bound, res.bound)
		r.MovesLowerBound += res.leastMoves
		r.BytesLowerBound += res.leastLoad
		r.BytesTotal += g.total
	}
	r.Moves, r.BytesMoved = w.moved()
	if w.counts {
		r.BytesMoved, r.BytesLowerBound, r.BytesTotal = 0, 0, 0
	}
	r.Upmaps, r.UpmapPairs = w.upmaps()
	return r
}

// moved compares the plan's places with the old ones.
func (w *world) moved() (shards, load int64) {
	for i := range w.pgs {
		p := &w.pgs[i]
		n := p.differing(w.places(p), w.oldPlaces(p))
		shards, load = shards+n, load+n*p.size
	}
	return shards, load
}

// groupResult is a group's part of a Balance.
type groupResult struct {
	before, after, bound  float64
	leastMoves, leastLoad int64
	moves                 int64
	limitedBy             string
}

// relaxed are the levels that are tried, as factors of the lowest one, until one works
// out: where shards differ in size, the lowest is hardly ever within reach, and the last
// thousandths cost the most moves.
var relaxed = []float64{1, 1.0005, 1.001, 1.0015, 1.002, 1.0025, 1.003, 1.0035, 1.004, 1.0045, 1.005, 1.006, 1.008, 1.01, 1.015, 1.02, 1.03, 1.05, 1.1}

// thrifty is how much more than the least a plan may move, as a factor, before a
// slightly less even one is preferred; only shards of several sizes make it matter.
const thrifty = 1.06

func (g *group) balance(limited bool, most int64) groupResult {
	b := g.newBound()
	lowest := g.lowest(b)
	r := groupResult{before: g.usable(), bound: min(1, g.mean()/lowest)}
	r.leastLoad, r.leastMoves = g.excess(g.caps(lowest))
	if g.settled(lowest) {
		r.after = r.before
		r.limitedBy = fmt.Sprintf("nothing that is worth a move: it is as near to the bound of %s as plans come", percent(r.bound))
		r.leastMoves, r.leastLoad = 0, 0
		return r
	}
	start := g.save()
	level := lowest
	if limited && r.leastMoves > most {
		level = g.affordable(lowest, most)
	}
	if g.searchOn(start, level, r.leastLoad, r.leastMoves) && level == lowest {
		r.leastMoves = g.changed(start)
		r.leastLoad = r.leastMoves * g.unit
	}
	if !limited {
		g.tune(start, lowest, r.leastLoad)
	}
	for limited && g.changed(start) > most {
		level *= 1.002
		g.load(start)
		g.newSolver(g.caps(level)).solve()
		if level > 2*g.fullest() {
			g.load(start)
			break
		}
	}
	g.evict()
	r.after, r.moves = g.usable(), g.changed(start)
	r.limitedBy = g.limit(b, r, lowest, limited && level > lowest)
	return r
}

// settled says whether all OSDs are near to the lowest level, where shards are of several sizes, or
// several move at once: a little further than tune aims for, so that plans leave nothing to plan.
func (g *group) settled(lowest float64) bool {
	if g.even && !slices.ContainsFunc(g.members, (*pool).bundled) {
		return false
	}
	return !slices.ContainsFunc(g.ids, func(o int32) bool {
		return float64(g.osds[o].load) > lowest*near*1.0005*g.osds[o].weight
	})
}

// near is how near to the lowest level is near enough, as a factor.
const near = 1.002

// maxSearches bounds how often a search starts from where the last one ended.
const maxSearches = 6

// searchOn searches until that makes nothing better, so that a plan that was carried out
// leaves nothing to plan.
func (g *group) searchOn(start *saved, lowest float64, leastLoad, leastMoves int64) (proven bool) {
	from := start
	for range maxSearches {
		was := g.usable()
		proven = g.search(start, from, lowest, leastLoad, leastMoves)
		if g.even || g.usable() < was+1e-6 {
			return proven
		}
		from = g.save()
	}
	return proven
}

// search tries levels from the lowest on and keeps the first plan that works out and is
// thrifty, or else the one that ends most even; polish evens that out further. It says
// whether that plan is at the lowest level and proven to have the fewest moves. Moves count from start, the search
// sets out from where it is told.
func (g *group) search(start, from *saved, lowest float64, leastLoad, leastMoves int64) (proven bool) {
	best, bestUsable := from, g.usable()
	for _, factor := range relaxed {
		g.load(from)
		s := g.newSolver(g.caps(lowest * factor))
		ok := s.solve()
		shards, load := g.change(start)
		if ok && g.even {
			return shards > leastMoves && s.refine() && factor == 1
		}
		if u := g.usable(); u > bestUsable {
			best, bestUsable = g.save(), u
		}
		if ok && float64(load) <= thrifty*float64(leastLoad) {
			best = g.save()
			break
		}
	}
	g.load(best)
	if !g.even {
		_, load := g.change(start)
		g.polish(start, lowest, max(load, int64(thrifty*float64(leastLoad))))
	}
	return false
}

// affordable is the lowest level that at least does not need more moves than allowed.
func (g *group) affordable(lowest float64, most int64) float64 {
	high := g.fullest()
	low := lowest
	for range 40 {
		mid := (low + high) / 2
		if _, n := g.excess(g.caps(mid)); n <= most {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

// limit says what keeps the group from more.
func (g *group) limit(b *bound, r groupResult, lowest float64, cut bool) string {
	switch {
	case cut:
		return fmt.Sprintf("the number of moves allowed; %d moves would reach %s", r.leastMoves, percent(r.bound))
	case r.after < r.bound*0.9999 && g.even:
		return fmt.Sprintf("rules that move several shards at once: no plan was found that comes closer to the bound of %s", percent(r.bound))
	case r.after < r.bound*0.9999:
		return fmt.Sprintf("shards of different sizes that do not fit any better: the bound of %s is not quite within reach", percent(r.bound))
	}
	if text := g.full(lowest); text != "" {
		return text
	}
	if text := g.tight(b, lowest); text != "" {
		return text
	}
	if r.bound > 0.99999 {
		return "nothing: the OSDs are as even as can be"
	}
	return "placement groups are placed whole: more of them would even out further"
}

// full names an OSD that the nearfull or backfillfull ratio keeps from its part.
func (g *group) full(lowest float64) string {
	for _, o := range g.ids {
		if float64(g.mostOf(o)) < lowest*g.osds[o].weight*0.999 {
			ratio := "nearfull"
			if g.crowded {
				ratio = "backfillfull"
			}
			return fmt.Sprintf("the %s ratio: %s may not be filled to its part", ratio, g.name(o))
		}
	}
	return ""
}

// tight names a bucket that holds all that a rule lets it, while there is room below it.
func (g *group) tight(b *bound, lowest float64) string {
	caps := g.caps(lowest)
	if !b.feasible(caps) {
		return ""
	}
	for _, in := range b.inner {
		if b.arcs[in.arc].left > 0 {
			continue
		}
		var below, held float64
		for i, o := range g.ids {
			if in.pool.rule.below(in.bucket, o) {
				below += lowest * g.osds[o].weight
				held += float64(caps[i] - b.arcs[b.sinks[i]].left)
			}
		}
		if held < below*0.999-float64(g.unit) {
			return fmt.Sprintf("%s caps at %d of %d places of every PG of pool %s, which is %s of what its size asks for",
				g.name(in.bucket), in.each, in.pool.Size, in.pool.Name, percent(held/below))
		}
	}
	return ""
}

// below says whether an OSD is in a bucket that the rule counts.
func (r *rule) below(bucket, o int32) bool {
	for _, b := range r.blocks {
		for _, l := range b.levels {
			if l.parent[o] == bucket {
				return true
			}
		}
	}
	return false
}
