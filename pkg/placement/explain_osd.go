package placement

import (
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// ExplainOSD explains how full an OSD is.
func ExplainOSD(c Cluster, id crush.ItemID) (*Explanation, error) {
	w, err := newWorld(c)
	if err != nil {
		return nil, err
	}
	if id < 0 || int(id) >= len(w.OSDs.OSDs) || !w.OSDs.OSDs[id].Exists {
		return nil, fault.New(fault.NotFound, "the map has no osd.%d", id)
	}
	e := &Explanation{Subject: w.name(int32(id))}
	o, state := w.osds[id], w.OSDs.OSDs[id]
	if holder := c.Crush.Holder(id); holder != nil {
		e.fact("place", "%s", w.path(holder))
	}
	e.fact("weight", "%.3f (reweight %.3f)", o.weight, float64(state.Weight)/float64(crush.One))
	shards, primaries, came, left := w.countShards(int32(id))
	holds := w.amount(o.load)
	if !w.counts {
		holds += fmt.Sprintf(" in %d shards", shards)
	}
	e.fact("holds", "%s, primary of %d", holds, primaries)
	switch {
	case state.Weight == 0:
		e.decide("in", "no data", "it is out (reweight 0)")
	case !state.Up:
		e.decide("up", "no new data", "it is down")
	case o.weight == 0:
		e.decide("weight", "no data", "its CRUSH weight is 0, or it is in no bucket")
	default:
		e.decide("weight", "takes data", "CRUSH gives it a part by its weight, by chance a little more or less")
	}
	e.decide("pg_upmap_items", "moves", "%d shards to it, %d away from it", came, left)
	for _, g := range w.groups() {
		if g.in[id] && o.weight > 0 {
			g.decideFill(e, int32(id))
		}
	}
	w.judgeWorst(e, func(g *group) bool { return g.in[id] && o.weight > 0 })
	return e, nil
}

// decideFill compares an OSD with the mean, and with what the plan would leave it.
func (g *group) decideFill(e *Explanation, o int32) {
	fill := float64(g.osds[o].load) / g.osds[o].weight / g.mean()
	lowest := g.lowest(g.newBound())
	most := int64(lowest * g.osds[o].weight)
	switch {
	case fill == 0:
		e.decide("balance", "empty", "it holds nothing")
	case g.osds[o].load > most:
		e.decide("balance", "too full", "%s of the mean: %s have to leave for the bound", percent(fill), g.amount(g.osds[o].load-most))
	default:
		e.decide("balance", "has room", "%s of the mean: it could take %s more at the bound", percent(fill), g.amount(most-g.osds[o].load))
	}
}

// countShards counts an OSD's shards and primaries, and those that upmaps brought or took.
func (w *world) countShards(id int32) (shards, primaries, came, left int) {
	for i := range w.pgs {
		p := &w.pgs[i]
		here, crushed := slices.Contains(w.places(p), id), slices.Contains(w.basePlaces(p), id)
		if here {
			shards++
			if w.places(p)[0] == id {
				primaries++
			}
		}
		if here && !crushed {
			came++
		}
		if crushed && !here {
			left++
		}
	}
	return shards, primaries, came, left
}
