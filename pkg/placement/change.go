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

	target []int32 // the plan's places, as those of a world
}

// PlanChange plans the way from one cluster to another of the same pools. The upmaps are
// for the second: they are to be set right after the change, while `norebalance` is set.
func PlanChange(before, after Cluster, prefer Prefer) (*Change, error) {
	if prefer != PreferBytes && prefer != PreferPairs {
		return nil, fault.New(fault.Invalid, "%q is no preference: bytes or pairs", prefer)
	}
	was, err := newWorldToChange(before)
	if err != nil {
		return nil, err
	}
	w, err := was.after(after)
	if err != nil {
		return nil, err
	}
	if len(was.cur) != len(w.cur) {
		return nil, fault.New(fault.Invalid, "the pools before and after the change are not the same")
	}
	c := &Change{Prefer: prefer, RawBefore: was.raw(), RawAfter: w.raw(), UsableBefore: was.usable(), UsableCrush: w.usable(), Known: !w.counts}
	w.old = was.cur
	w.limits()
	c.MovesCrush, c.BytesCrush = w.moved()
	crushed := slices.Clone(w.cur)
	forced := w.keepOld()
	if prefer == PreferPairs {
		least, load := w.leastMoves()
		copy(w.cur, crushed)
		w.sum()
		c.apply(w.balance(BalanceOptions{}))
		c.MovesLowerBound, c.BytesLowerBound = least, load
	} else {
		c.apply(w.balance(BalanceOptions{}))
	}
	c.MovesLowerBound, c.BytesLowerBound = max(c.MovesLowerBound, forced.shards), max(c.BytesLowerBound, forced.load)
	c.target = w.cur
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
