package placement

import (
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// ExplainHost explains how full a host is, what the pools' rules let it have, and what its
// loss would take along. It explains any other bucket of the CRUSH map that holds OSDs, too.
func ExplainHost(c Cluster, name string) (*Explanation, error) {
	w, err := newWorld(c)
	if err != nil {
		return nil, err
	}
	b := c.Crush.BucketNamed(name)
	if b == nil || b.Class != "" {
		return nil, fault.New(fault.NotFound, "the CRUSH map has no bucket %s; `ceph osd tree` lists them", name)
	}
	h := host{world: w, bucket: b, in: make([]bool, len(w.osds))}
	h.gather(b)
	h.countShards()
	e := &Explanation{Subject: w.typeName(b.Type) + " " + name}
	h.facts(e)
	h.decideOSDs(e)
	e.decide("pg_upmap_items", "moves", "%d shards to it, %d away from it", h.came, h.left)
	for _, p := range w.pools {
		h.decideDomain(e, p)
	}
	h.decideLoss(e)
	for _, g := range w.groups() {
		if slices.ContainsFunc(h.osds, func(o int32) bool { return g.in[o] && w.osds[o].weight > 0 }) {
			h.decideFill(e, g)
		}
	}
	w.judgeWorst(e, func(g *group) bool { return slices.ContainsFunc(h.osds, func(o int32) bool { return g.in[o] }) })
	return e, nil
}

// host is a bucket, the OSDs below it, and what they hold.
type host struct {
	*world
	bucket             *crush.Bucket
	osds               []int32
	in                 []bool // by OSD
	weight             float64
	load               int64
	shards, came, left int
}

// gather collects the OSDs below a bucket.
func (h *host) gather(b *crush.Bucket) {
	for _, item := range b.Items {
		if child := h.Crush.Bucket(item); child != nil {
			h.gather(child)
			continue
		}
		if o := int32(item); h.isOSD(o) {
			h.osds, h.in[o] = append(h.osds, o), true
			h.weight, h.load = h.weight+h.world.osds[o].weight, h.load+h.world.osds[o].load
		}
	}
}

// countShards counts what the bucket's OSDs have, and what upmaps brought or took.
func (h *host) countShards() {
	for i := range h.pgs {
		p := &h.pgs[i]
		h.shards += h.inside(h.places(p))
		h.came += h.inside(minus(h.places(p), h.basePlaces(p)))
		h.left += h.inside(minus(h.basePlaces(p), h.places(p)))
	}
}

// inside counts the places that are on the bucket's OSDs.
func (h *host) inside(places []int32) (n int) {
	for _, o := range places {
		if h.isOSD(o) && h.in[o] {
			n++
		}
	}
	return n
}

func (h *host) facts(e *Explanation) {
	e.fact("place", "%s", h.path(h.bucket))
	e.fact("weight", "%.3f in %s", h.weight, times(len(h.osds), "OSD"))
	holds := h.amount(h.load)
	if !h.counts {
		holds += fmt.Sprintf(" in %d shards", h.shards)
	}
	e.fact("holds", "%s", holds)
}

// decideOSDs says which of the OSDs take no data, and why.
func (h *host) decideOSDs(e *Explanation) {
	taking := 0
	for _, o := range h.osds {
		exists := int(o) < len(h.OSDs.OSDs) && h.OSDs.OSDs[o].Exists
		switch {
		case !exists:
			e.decide("osd", "no data", "%s is in the CRUSH map alone: it does not exist", h.name(o))
		case h.OSDs.OSDs[o].Weight == 0:
			e.decide("in", "no data", "%s is out (reweight 0)", h.name(o))
		case !h.OSDs.OSDs[o].Up:
			e.decide("up", "no new data", "%s is down", h.name(o))
		case h.world.osds[o].weight == 0:
			e.decide("weight", "no data", "the CRUSH weight of %s is 0", h.name(o))
		default:
			taking++
		}
	}
	e.decide("weight", "takes data", "%d of its %s do, each a part by its weight", taking, times(len(h.osds), "OSD"))
}

// decideDomain says how many places of a PG a pool's rule lets the bucket have, and how many
// its weight asks for.
func (h *host) decideDomain(e *Explanation, p *pool) {
	var below, all float64
	for o := range h.world.osds {
		if p.reaches(h.world, o) {
			all += h.world.osds[o].weight
			if h.in[o] {
				below += h.world.osds[o].weight
			}
		}
	}
	if below == 0 {
		e.decide("rule", "no data", "pool %s takes another root or device class", p.Name)
		return
	}
	most := h.mostPlaces(p)
	asks := float64(p.Size) * below / all
	text := fmt.Sprintf("at most %d of %d places of every PG of pool %s; its weight asks for %.2f, and it has %.2f on average", most, p.Size, p.Name, asks, h.average(p))
	if asks > float64(most) {
		e.decide("failure_domain", "caps", "%s", text)
		return
	}
	e.decide("failure_domain", "allows", "%s", text)
}

// mostPlaces is how many places of one PG a rule lets a bucket have.
func (h *host) mostPlaces(p *pool) int {
	most := 0
	for _, b := range p.rule.blocks {
		part := b.to - b.from
		for _, l := range b.levels {
			buckets := map[int32]bool{}
			for _, o := range h.osds {
				if b.in[o] && l.parent[o] != noParent {
					buckets[l.parent[o]] = true
				}
			}
			part = min(part, l.each*len(buckets))
		}
		most += part
	}
	return min(most, p.Size, len(h.osds))
}

// average is how many places of a pool's PG the bucket has, on average.
func (h *host) average(p *pool) float64 {
	n := 0
	for i := p.first; i < p.end; i++ {
		n += h.inside(h.places(&h.pgs[i]))
	}
	return float64(n) / float64(max(1, p.end-p.first))
}

// decideLoss says what the loss of the bucket would do to the PGs.
func (h *host) decideLoss(e *Explanation) {
	degraded, inactive, lost := 0, 0, 0
	for i := range h.pgs {
		p := &h.pgs[i]
		gone := h.inside(h.places(p))
		left := int(p.n) - holes(h.places(p)) - gone
		switch {
		case gone == 0:
		case left < h.OSDs.DataShards(p.pool.Pool):
			lost++
		case left < p.pool.MinSize:
			inactive++
		default:
			degraded++
		}
	}
	switch {
	case lost > 0:
		e.decide("redundancy", "not safe", "without it %d PGs would lose data, %d more could not be written", lost, inactive)
	case inactive > 0:
		e.decide("redundancy", "writes stop", "without it %d PGs would be below min_size until they are rebuilt; no data would be lost", inactive)
	default:
		e.decide("redundancy", "survives", "without it %d PGs would have a place less, all of them written on", degraded)
	}
}

// decideFill compares the OSDs of the bucket in one group with the group's mean, and with
// what they could have at the bound.
func (h *host) decideFill(e *Explanation, g *group) {
	var load, room, over int64
	var weight float64
	lowest := g.lowest(g.newBound())
	for _, o := range h.osds {
		if !g.in[o] {
			continue
		}
		load, weight = load+g.osds[o].load, weight+g.osds[o].weight
		most := int64(lowest * g.osds[o].weight)
		room, over = room+max(0, most-g.osds[o].load), over+max(0, g.osds[o].load-most)
	}
	fill := percent(float64(load) / weight / g.mean())
	if over > 0 {
		e.decide("balance", "uneven", "%s of the mean: %s have to leave some of its OSDs for the bound, others could take %s", fill, g.amount(over), g.amount(room))
		return
	}
	e.decide("balance", "has room", "%s of the mean: its OSDs could take %s more at the bound", fill, g.amount(room))
}

// judgeWorst adds how even the OSDs of the chosen group with the lowest bound are.
func (w *world) judgeWorst(e *Explanation, chosen func(*group) bool) {
	e.Usable, e.Bound, e.LimitedBy, e.Lift = 1, 1, "no pool reaches it", "a pool whose rule takes the root or the device class that it is in"
	first := true
	for _, g := range w.groups() {
		if !chosen(g) {
			continue
		}
		var one Explanation
		g.explain(&one)
		if first || one.Usable < e.Usable {
			e.Usable, e.Bound, e.Gap, e.LimitedBy, e.Lift = one.Usable, one.Bound, one.Gap, one.LimitedBy, one.Lift
		}
		first = false
	}
}
