package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// Upmap is a change of one PG's pg_upmap_items; no pairs: they are removed.
type Upmap struct {
	PG    osdmap.PG
	Pairs []osdmap.Pair
}

// Command is the command that makes the change.
func (u Upmap) Command() string {
	if len(u.Pairs) == 0 {
		return "ceph osd rm-pg-upmap-items " + u.PG.String()
	}
	var s strings.Builder
	fmt.Fprintf(&s, "ceph osd pg-upmap-items %s", u.PG)
	for _, p := range u.Pairs {
		fmt.Fprintf(&s, " %d %d", p.From, p.To)
	}
	return s.String()
}

// upmaps lists what has to be changed for the plan's places, by rising PG, and how many
// pairs the whole table has then.
func (w *world) upmaps() (changes []Upmap, pairs int) {
	for i := range w.pgs {
		p := &w.pgs[i]
		have := w.OSDs.UpmapItems[p.id()]
		if w.gapped(p) && len(have) > 0 {
			changes = append(changes, Upmap{PG: p.id()})
			continue
		}
		if slices.Equal(w.places(p), w.mapped(p)) && (p.frozen || w.effective(p, have)) {
			pairs += len(have)
			continue
		}
		want := w.pairs(p)
		pairs += len(want)
		if !p.frozen && slices.Equal(want, have) {
			continue // the same OSDs in another order
		}
		changes = append(changes, Upmap{p.id(), want})
	}
	return changes, pairs
}

// effective says whether all pairs of a PG have something to replace, and an OSD with
// weight to replace it by: monitors cancel others.
func (w *world) effective(p *pg, pairs []osdmap.Pair) bool {
	return !slices.ContainsFunc(pairs, func(pair osdmap.Pair) bool {
		to := int32(pair.To)
		return !slices.Contains(w.basePlaces(p), int32(pair.From)) || !w.isOSD(to) || w.osds[to].weight == 0
	})
}

// mapped is where the map has a PG without any change.
func (w *world) mapped(p *pg) []int32 {
	if p.frozen {
		return w.places(p)
	}
	places := make([]crush.ItemID, p.n)
	for i, o := range w.basePlaces(p) {
		places[i] = crush.ItemID(o)
	}
	w.mapper.ApplyPairs(places, w.OSDs.UpmapItems[p.id()])
	out := make([]int32, p.n)
	fill(out, places)
	return out
}

// pairs are the exceptions that turn a PG's base into the plan's places. Where places
// have no meaning of their own, OSDs that are in both are left out, wherever they stand;
// a pair that there is already is kept.
func (w *world) pairs(p *pg) []osdmap.Pair {
	base, want := w.basePlaces(p), w.places(p)
	if p.pool.positional {
		return ordered(base, want)
	}
	from, to := minus(base, want), minus(want, base)
	var pairs []osdmap.Pair
	for _, have := range w.OSDs.UpmapItems[p.id()] {
		i, j := slices.Index(from, int32(have.From)), slices.Index(to, int32(have.To))
		if i >= 0 && j >= 0 {
			pairs = append(pairs, have)
			from, to = slices.Delete(from, i, i+1), slices.Delete(to, j, j+1)
		}
	}
	for i := range min(len(from), len(to)) {
		pairs = append(pairs, osdmap.Pair{From: crush.ItemID(from[i]), To: crush.ItemID(to[i])})
	}
	return pairs
}

// minus lists what is in a and not in b, holes left out.
func minus(a, b []int32) []int32 {
	var left []int32
	for _, o := range a {
		if o != none && !slices.Contains(b, o) {
			left = append(left, o)
		}
	}
	return left
}

// ordered lists pairs place by place, each after the one that frees its target.
func ordered(base, want []int32) []osdmap.Pair {
	pairs, _ := order(base, want)
	return pairs
}

// order lists pairs, and says what they make of base: not all of want, where OSDs would have
// to swap places.
func order(base, want []int32) (pairs []osdmap.Pair, at []int32) {
	at = slices.Clone(base)
	for progress := true; progress; {
		progress = false
		for i := range at {
			if at[i] == want[i] || at[i] == none || want[i] == none || slices.Contains(at, want[i]) {
				continue
			}
			pairs = append(pairs, osdmap.Pair{From: crush.ItemID(at[i]), To: crush.ItemID(want[i])})
			at[i], progress = want[i], true
		}
	}
	return pairs, at
}
