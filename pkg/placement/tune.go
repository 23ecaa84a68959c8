package placement

import (
	"math"
	"slices"
)

const (
	// tuned is how near to the lowest level tune tries to come, as a factor, and frugal how
	// near to the least bytes; spending where that leads nowhere.
	tuned            = 1.0017
	frugal, spending = 1.008, 1.028
	// looked is how many shards are looked at for coming back.
	looked = 6
	// maxTune bounds the proposals of one search: some two seconds.
	maxTune = 2_500_000
	// maxBundleTune bounds those that move bundles, each of which takes longer.
	maxBundleTune = 600_000
	// manyShards is how many shards make a second search too dear.
	manyShards = 100_000
)

// tries are what is tried in turn: temperatures to begin and end with, as parts of a shard,
// and what may move, as a factor of the least.
var tries = []attempt{
	{0.2, 0.002, frugal, 1}, {0.05, 0.002, frugal, 1}, {0.2, 0.002, spending, 1}, {0.5, 0.005, spending, 1},
	{0.2, 0.002, frugal, 4}, {0.3, 0.002, frugal, 6}, {0.2, 0.002, spending, 8},
}

// bundledTries are those for rules whose places move together: what they have to move is not known.
var bundledTries = []attempt{{1, 0.02, 1.5, 1}, {1, 0.02, 3, 1}, {2, 0.02, 6, 1}}

// halvings is how often tune looks for a level within reach between the lowest and the one it got
// to, where places move together: their bound may be far out of reach.
const halvings = 5

type attempt struct {
	hot, cold, budget float64
	patience          int // how many times longer than the shortest
}

// tuner searches on where moves one by one have come to an end: shards of several sizes, and
// rules whose places move together. It takes proposals in a fixed order that looks like chance
// (a generator with a fixed seed), and at first also such as make things a little worse:
// simulated annealing (Kirkpatrick 1983). What is wrong with a plan is measured in bytes: what
// OSDs hold above the level, and what moves beyond the least.
type tuner struct {
	*solver
	attempt
	held   [][]int32 // by OSD: its shards, by their index in cur
	at     []int32   // by shard: where it is in held
	owner  []int32   // by shard: its PG
	all    []int32   // shards that may move
	moved  []int32   // shards that are not where they were
	atMove []int32   // by shard: where it is in moved, or -1
	state  uint64    // of the generator
	bytes  int64     // what moves
	most   int64     // and may move
	over   float64   // what OSDs hold above the level, in all, that of an OSD of little weight more
	scale  []float64
	heat   float64 // in bytes
}

// tune improves a plan as far as proposals go. Moves count from start.
func (g *group) tune(start *saved, lowest float64, least int64) {
	bundled := slices.ContainsFunc(g.members, (*pool).bundled)
	if g.even && !bundled {
		return // chains of moves have done all that can be
	}
	list := tries
	if bundled {
		list = bundledTries
	}
	g.anneal(list, start, lowest, least, bundled)
	if !bundled {
		return
	}
	low, high := lowest, g.fullest()
	for range halvings {
		if high <= low*near {
			return
		}
		mid, was := (low+high)/2, g.save()
		g.anneal(list[1:], start, mid, least, bundled)
		if now := g.fullest(); now < high {
			high = now
		} else {
			g.load(was)
		}
		if g.fullest() > mid*near {
			low = mid
		}
	}
}

// anneal searches on for a plan at a level, and keeps what it finds if that is better.
func (g *group) anneal(list []attempt, start *saved, lowest float64, least int64, bundled bool) {
	best, was := g.save(), g.wrong(start, lowest, least, bundled)
	for i, try := range list {
		if was == 0 || bundled && g.fullest() <= lowest*near {
			return
		}
		t := g.newTuner(lowest)
		if i > 0 && len(t.all) > manyShards {
			return
		}
		_, t.bytes = g.change(start)
		t.state += uint64(i)
		t.attempt, t.most = try, int64(try.budget*float64(least))
		g.load(t.search())
		if now := g.wrong(start, lowest, least, bundled); now < was {
			best, was = g.save(), now
		} else {
			g.load(best)
		}
	}
}

// wrong says how far a plan is from within 0.2 % of the lowest level and 1 % of the least bytes:
// 0 where it is. More than 3 % of the least bytes count much more than more than 1 %, and
// little where places move together.
func (g *group) wrong(start *saved, lowest float64, least int64, bundled bool) float64 {
	_, load := g.change(start)
	moved := float64(load) / float64(max(1, least))
	above := max(0, g.fullest()/lowest-near) * 20
	if bundled {
		return above + max(0, moved-1.01)/200
	}
	return above + max(0, moved-1.01)/5 + max(0, moved-1.03)*5
}

func (g *group) newTuner(lowest float64) *tuner {
	level := lowest
	if !g.even {
		level *= tuned
	}
	t := &tuner{solver: g.newSolver(g.caps(level)), held: make([][]int32, len(g.osds)), state: 0x9e3779b97f4a7c15}
	t.at, t.owner, t.atMove = make([]int32, len(g.cur)), make([]int32, len(g.cur)), make([]int32, len(g.cur))
	for _, p := range g.members {
		for i := p.first; i < p.end; i++ {
			q := &g.pgs[i]
			for place, o := range g.places(q) {
				s := q.at + int32(place)
				t.owner[s], t.atMove[s] = int32(i), -1
				if q.frozen || q.size == 0 || !g.isOSD(o) || !g.in[o] {
					continue
				}
				t.all = append(t.all, s)
				t.hold(s, o)
			}
		}
	}
	t.scale = make([]float64, len(g.osds))
	for _, o := range g.ids {
		t.scale[o] = 1
		if w := g.osds[o].weight; w > 0 {
			t.scale[o] = g.weight / float64(len(g.ids)) / w
		}
		t.over += float64(max(0, -t.slack(o))) * t.scale[o]
	}
	return t
}

// hold adds a shard to an OSD's list, and to those that have moved.
func (t *tuner) hold(s, o int32) {
	t.at[s] = int32(len(t.held[o]))
	t.held[o] = append(t.held[o], s)
	if t.foreign(t.shard(s), o) > 0 {
		t.atMove[s] = int32(len(t.moved))
		t.moved = append(t.moved, s)
	}
}

// drop takes it off again.
func (t *tuner) drop(s, o int32) {
	list := t.held[o]
	last := list[len(list)-1]
	list[t.at[s]], t.at[last] = last, t.at[s]
	t.held[o] = list[:len(list)-1]
	if i := t.atMove[s]; i >= 0 {
		last := t.moved[len(t.moved)-1]
		t.moved[i], t.atMove[last] = last, i
		t.moved, t.atMove[s] = t.moved[:len(t.moved)-1], -1
	}
}

func (t *tuner) shard(s int32) shard {
	return shard{t.owner[s], s - t.pgs[t.owner[s]].at}
}

// next is the generator (xorshift64*, Vigna 2016).
func (t *tuner) next() uint64 {
	t.state ^= t.state >> 12
	t.state ^= t.state << 25
	t.state ^= t.state >> 27
	return t.state * 0x2545f4914f6cdd1d
}

// below is a number from 0 to n-1.
func (t *tuner) below(n int) int { return int((t.next() >> 33) * uint64(n) >> 31) }

// search makes proposals until nothing is wrong, or all are made, and returns the best state.
func (t *tuner) search() *saved {
	best, least := t.save(), t.energy(t.over, t.bytes)
	var mean float64
	for _, s := range t.all {
		mean += float64(t.pgs[t.owner[s]].size)
	}
	mean /= float64(max(1, len(t.all)))
	rounds := min(maxTune, 2000*len(t.all)) * t.patience
	if slices.ContainsFunc(t.members, (*pool).bundled) {
		rounds = min(rounds, maxBundleTune)
	}
	next := rounds / 2
	for i := 0; i < rounds && least > 0; i++ {
		t.heat = mean * t.hot * math.Pow(t.cold/t.hot, float64(i)/float64(rounds))
		if !t.propose() {
			continue
		}
		// Copying a state costs, and those of the first half are passed by anyway.
		if e := t.energy(t.over, t.bytes); e < least && (e == 0 || i >= next) {
			best, least, next = t.save(), e, i+rounds/500
		}
	}
	if t.energy(t.over, t.bytes) < least {
		return t.save()
	}
	return best
}

// energy is what is wrong.
func (t *tuner) energy(over float64, bytes int64) float64 {
	if over < 1e-3 {
		over = 0 // sums of many roundings
	}
	return over + float64(max(0, bytes-t.most))
}

// relocation is one shard's part of a proposal.
type relocation struct{ shard, to int32 }

// propose makes one proposal, and carries it out if it is taken.
func (t *tuner) propose() bool {
	kind := t.below(8)
	s := t.pick(kind)
	if s == none {
		return false
	}
	x := t.shard(s)
	if p := t.pgs[x.pg].pool; p.bundled() && t.below(2) == 0 {
		return t.proposeBundle(x)
	}
	to := t.target(s, kind)
	if to == none || to == t.cur[s] || !t.osds[to].takes || !t.in[to] {
		return false
	}
	if kind%2 == 0 {
		return t.try([]relocation{{s, to}})
	}
	list := t.held[to]
	if len(list) == 0 {
		return false
	}
	// Of a few shards that may come back, that which fits best.
	best, least := none, math.Inf(1)
	looks := min(looked, len(list))
	first := t.below(len(list))
	for i := range looks {
		y := list[(first+i)%len(list)]
		if t.owner[y] == t.owner[s] {
			continue
		}
		if e := t.after([]relocation{{s, to}, {y, t.cur[s]}}); e < least {
			best, least = y, e
		}
	}
	if best == none {
		return false
	}
	return t.try([]relocation{{s, to}, {best, t.cur[s]}})
}

// pick chooses a shard: one that moves, one of a crowded OSD, or any.
func (t *tuner) pick(kind int) int32 {
	switch {
	case kind < 3 && len(t.moved) > 0:
		return t.moved[t.below(len(t.moved))]
	case kind < 6:
		held := t.held[t.crowded()]
		if len(held) == 0 {
			return none
		}
		return held[t.below(len(held))]
	default:
		return t.all[t.below(len(t.all))]
	}
}

// crowded is an OSD: one above the level, if a few looks find one.
func (t *tuner) crowded() int32 {
	o := t.ids[t.below(len(t.ids))]
	for range 8 {
		if t.slack(o) < 0 {
			break
		}
		o = t.ids[t.below(len(t.ids))]
	}
	return o
}

// target is where a shard could go: home, if it is not there, or anywhere.
func (t *tuner) target(s int32, kind int) int32 {
	if kind == 0 && t.atMove[s] >= 0 {
		p := &t.pgs[t.owner[s]]
		old := t.oldPlaces(p)
		if p.pool.positional {
			return t.osdOr(old[s-p.at])
		}
		return t.osdOr(old[t.below(len(old))])
	}
	return t.ids[t.below(len(t.ids))]
}

func (t *tuner) osdOr(o int32) int32 {
	if !t.isOSD(o) {
		return none
	}
	return o
}

// after is the energy after a proposal of at most two OSDs that give to each other.
func (t *tuner) after(list []relocation) float64 {
	over, bytes := t.over, t.bytes
	from, to := t.cur[list[0].shard], list[0].to
	var gone int64
	for i, r := range list {
		x := t.shard(r.shard)
		size := t.size(x)
		bytes += size * int64(t.foreign(x, r.to)-t.foreign(x, t.cur[r.shard]))
		if i == 0 {
			gone = size
		} else {
			gone -= size
		}
	}
	over += t.overWith(from, -gone) + t.overWith(to, gone)
	return t.energy(over, bytes)
}

// overWith is how much more an OSD is above the level with so much more.
func (t *tuner) overWith(o int32, more int64) float64 {
	slack := t.slack(o)
	return float64(max(0, more-slack)-max(0, -slack)) * t.scale[o]
}

// takes says whether a proposal of that energy is taken.
func (t *tuner) takes(energy float64) bool {
	return t.bears(energy - t.energy(t.over, t.bytes))
}

// bears says whether something may get worse by that, at the heat that there is.
func (t *tuner) bears(worse float64) bool {
	return worse <= 0 || float64(t.next()>>11)/(1<<53) < math.Exp(-worse/t.heat)
}

// try carries out a proposal of one shard, or of two that change OSDs, if it is taken and the
// rules allow it.
func (t *tuner) try(list []relocation) bool {
	if !t.takes(t.after(list)) {
		return false
	}
	for _, r := range list {
		if !t.allowed(t.shard(r.shard), r.to) {
			return false
		}
	}
	for _, r := range list {
		t.relocate(r)
	}
	return true
}

// relocate moves a shard and keeps the sums.
func (t *tuner) relocate(r relocation) {
	from, x := t.cur[r.shard], t.shard(r.shard)
	size := t.size(x)
	t.over += t.overWith(from, -size)
	t.osds[from].load -= size
	t.over += t.overWith(r.to, size)
	t.osds[r.to].load += size
	t.bytes += size * int64(t.foreign(x, r.to)-t.foreign(x, from))
	t.drop(r.shard, from)
	t.cur[r.shard] = r.to
	t.hold(r.shard, r.to)
}

// proposeBundle moves all of a PG's places in one outer bucket to another: see bundle. What
// is not taken is taken back.
func (t *tuner) proposeBundle(x shard) bool {
	p := &t.pgs[x.pg]
	all := t.bundle(x)
	outer := p.pool.rule.blockOf(int(x.place)).levels[0].parent
	first := t.ids[t.below(len(t.ids))]
	if outer[first] == noParent || outer[first] == outer[t.solver.at(x)] {
		return false
	}
	energy := t.energy(t.over, t.bytes)
	was := make([]int32, len(all))
	for i, y := range all {
		was[i] = t.solver.at(y)
		if !t.in[was[i]] {
			return false
		}
	}
	to, ok := t.bundleTo(all, first)
	if !ok {
		return false
	}
	for i, y := range all {
		t.relocate(relocation{p.at + y.place, to[i]})
	}
	if t.bears(t.energy(t.over, t.bytes) - energy) {
		return true
	}
	for i, y := range all {
		t.relocate(relocation{p.at + y.place, was[i]})
	}
	return false
}

// bundleTo chooses OSDs for a bundle in the outer bucket of the first one.
func (t *tuner) bundleTo(all []shard, first int32) (to []int32, ok bool) {
	p := &t.pgs[all[0].pg]
	places := slices.Clone(t.places(p))
	for _, y := range all {
		places[y.place] = none
	}
	for i, y := range all {
		found := none
		for try := range 40 {
			o := first
			if i > 0 || try > 0 {
				o = t.ids[t.below(len(t.ids))]
			}
			if t.osds[o].takes && t.fitsPairs(y, o) && p.pool.rule.allows(places, int(y.place), o) && (found == none || t.slack(o) > t.slack(found)) {
				found = o
				if i == 0 || try > 20 {
					break
				}
			}
		}
		if found == none {
			return nil, false
		}
		to = append(to, found)
		places[y.place] = found
	}
	return to, true
}
