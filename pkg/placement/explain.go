package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// Explanation says why something is where it is, how good that is, and what would make
// it better.
type Explanation struct {
	Subject   string     `json:"subject"`
	Facts     []Fact     `json:"facts"`
	Decisions []Decision `json:"decisions"`
	// Candidates are, for a PG, the OSDs that it is not on, and what speaks against each.
	Candidates []Candidate `json:"candidates,omitempty"`
	// Usable and Bound are those of the OSDs that share data with the subject.
	Usable    float64 `json:"usable"`
	Bound     float64 `json:"bound"`
	Gap       float64 `json:"gap"`
	LimitedBy string  `json:"limited_by"`
	Lift      string  `json:"what_would_lift_it"`
}

// Fact is a name and what there is of it.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Decision is what one decider decided, and why.
type Decision struct {
	Decider  string `json:"decider"`
	Decision string `json:"decision"`
	Reason   string `json:"reason"`
}

// Candidate is an OSD that a shard could be on.
type Candidate struct {
	OSD     int32  `json:"osd"`
	Allowed bool   `json:"allowed"`
	Decider string `json:"decider,omitempty"` // the first that said no
	Reason  string `json:"reason,omitempty"`
}

func (e *Explanation) fact(name, format string, args ...any) {
	e.Facts = append(e.Facts, Fact{name, fmt.Sprintf(format, args...)})
}

func (e *Explanation) decide(decider, decision, format string, args ...any) {
	e.Decisions = append(e.Decisions, Decision{decider, decision, fmt.Sprintf(format, args...)})
}

// ExplainPG explains where a PG is.
func ExplainPG(c Cluster, id osdmap.PG) (*Explanation, error) {
	w, err := newWorld(c)
	if err != nil {
		return nil, err
	}
	p := w.byPool[id.Pool]
	if p == nil || id.Seed >= p.PGs {
		return nil, fault.New(fault.NotFound, "the map has no placement group %s", id)
	}
	m, err := w.mapper.Map(id)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Subject: "pg " + id.String()}
	e.fact("pool", "%s, size %d, %s", p.Name, p.Size, w.ruleText(p))
	if s, ok := c.PGs[id]; ok {
		e.fact("holds", "%d bytes in %d objects", s.Bytes, s.Objects)
	}
	e.fact("is on", "%s, primary %s", w.list(m.Acting), w.name(int32(m.ActingPrimary)))
	w.decideCRUSH(e, p, m)
	w.decideUpmap(e, id, m)
	w.decideUp(e, m)
	w.decidePrimary(e, m)
	if !slices.Equal(m.Acting, m.Up) || m.ActingPrimary != m.UpPrimary {
		e.decide("pg_temp", "instead", "%s serve meanwhile; the PG moves back to %s when they have the data", w.list(m.Acting), w.list(m.Up))
	}
	q := &w.pgs[p.first+int(id.Seed)]
	e.Candidates = w.candidates(q)
	w.judge(e, p)
	return e, nil
}

func (w *world) decideCRUSH(e *Explanation, p *pool, m osdmap.Mapping) {
	missing := p.Size - len(m.Raw)
	for _, o := range m.Raw {
		if o == osdmap.None {
			missing++
		}
	}
	if missing > 0 {
		e.decide("crush", "short", "the rule found %d of %d OSDs: %s", p.Size-missing, p.Size, w.list(m.Raw))
		return
	}
	e.decide("crush", "chose", "%s, by the rule %s", w.list(m.Raw), w.Crush.Rules[p.rule.id].Name)
}

func (w *world) decideUpmap(e *Explanation, id osdmap.PG, m osdmap.Mapping) {
	if full, ok := w.OSDs.Upmap[id]; ok {
		e.decide("pg_upmap", "overrides", "%s, whatever CRUSH says", w.list(full))
	}
	for _, pair := range w.OSDs.UpmapItems[id] {
		from, to := w.name(int32(pair.From)), w.name(int32(pair.To))
		switch {
		case !slices.Contains(m.Raw, pair.From):
			e.decide("pg_upmap_items", "ignored", "%s -> %s: CRUSH does not choose %s any more", from, to, from)
		case slices.Contains(m.Target, pair.To):
			e.decide("pg_upmap_items", "moves", "%s -> %s", from, to)
		default:
			e.decide("pg_upmap_items", "ignored", "%s -> %s: %s is out", from, to, to)
		}
	}
	if len(w.OSDs.UpmapItems[id]) == 0 && len(w.OSDs.Upmap[id]) == 0 {
		e.decide("pg_upmap_items", "nothing", "no exception is set")
	}
}

func (w *world) decideUp(e *Explanation, m osdmap.Mapping) {
	for _, o := range m.Target {
		if o != osdmap.None && !slices.Contains(m.Up, o) {
			e.decide("up", "left out", "%s is down", w.name(int32(o)))
		}
	}
}

func (w *world) decidePrimary(e *Explanation, m osdmap.Mapping) {
	if m.UpPrimary == osdmap.NoPrimary {
		e.decide("primary", "none", "no OSD is up")
		return
	}
	for _, o := range m.Up {
		if o != osdmap.None && w.OSDs.OSDs[o].Affinity != osdmap.FullAffinity {
			e.decide("primary_affinity", "weighs", "%s has %.2f; the primary is %s", w.name(int32(o)), float64(w.OSDs.OSDs[o].Affinity)/osdmap.FullAffinity, w.name(int32(m.UpPrimary)))
			return
		}
	}
	e.decide("primary", "first", "%s, the first that is up", w.name(int32(m.UpPrimary)))
}

// candidates says for each OSD of weight that a PG is not on whether a shard could go
// there, and which decider says no.
func (w *world) candidates(p *pg) []Candidate {
	var all []Candidate
	for o := range w.osds {
		id := int32(o)
		if w.osds[o].weight == 0 || slices.Contains(w.places(p), id) {
			continue
		}
		all = append(all, w.candidate(p, id))
	}
	return all
}

func (w *world) candidate(p *pg, o int32) Candidate {
	rule := p.pool.rule
	if !slices.ContainsFunc(rule.blocks, func(b block) bool { return b.in[o] }) {
		return Candidate{o, false, "rule", "is not below what the rule takes: another root or device class"}
	}
	if !w.osds[o].takes {
		return Candidate{o, false, "up", "is down"}
	}
	if p.frozen {
		return Candidate{o, false, "pg", "the PG's places are not as the rule wants them, CRUSH leaves one of an erasure-coded PG empty, or it is about to be merged: upmaps would be cancelled"}
	}
	for place := range w.places(p) {
		if rule.allows(w.places(p), place, o) {
			return Candidate{OSD: o, Allowed: true}
		}
	}
	return Candidate{o, false, "failure_domain", w.whyDomain(p, o)}
}

// whyDomain names the bucket that has all of the PG's places that it may have. An OSD in
// it can take the place of one in the same bucket alone, so this is reached where that is
// not possible either.
func (w *world) whyDomain(p *pg, o int32) string {
	for _, b := range p.pool.rule.blocks {
		for _, l := range b.levels {
			if l.parent[o] == noParent {
				return "is below no bucket of the type that the rule chooses"
			}
			n := 0
			for _, other := range w.places(p) {
				if w.isOSD(other) && l.parent[other] == l.parent[o] {
					n++
				}
			}
			if n >= l.each {
				return fmt.Sprintf("%s has %d of the PG's places already, as many as the rule lets it", w.name(l.parent[o]), n)
			}
		}
	}
	return "the rule chooses no more buckets than the PG is in"
}

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
			g.explain(e)
			return e, nil
		}
	}
	e.Usable, e.Bound, e.LimitedBy, e.Lift = 1, 1, "no pool reaches it", "a pool whose rule takes the root or the device class that it is in"
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

// ExplainPool explains how well a pool's data can be spread.
func ExplainPool(c Cluster, id int64) (*Explanation, error) {
	w, err := newWorld(c)
	if err != nil {
		return nil, err
	}
	p := w.byPool[id]
	if p == nil {
		return nil, fault.New(fault.NotFound, "the map has no pool %d", id)
	}
	e := &Explanation{Subject: "pool " + p.Name}
	e.fact("rule", "%s", w.ruleText(p))
	e.fact("size", "%d, min_size %d, %d PGs", p.Size, p.MinSize, p.PGs)
	short, frozen, upmapped := 0, 0, 0
	for i := p.first; i < p.end; i++ {
		q := &w.pgs[i]
		if slices.Contains(w.places(q), none) {
			short++
		}
		if q.frozen {
			frozen++
		}
		if !slices.Equal(w.places(q), w.basePlaces(q)) {
			upmapped++
		}
	}
	if short > 0 {
		e.decide("crush", "short", "%d PGs have fewer places than the size asks for: too few buckets of the failure domain, or too few tries", short)
	} else {
		e.decide("crush", "complete", "all PGs have all their places")
	}
	e.decide("pg_upmap_items", "moves", "%d PGs are elsewhere than CRUSH has them", upmapped)
	if frozen > 0 {
		e.decide("balance", "cannot move", "%d PGs: their places are not as the rule wants them, CRUSH leaves one of an erasure-coded PG empty, or they are about to be merged", frozen)
	}
	w.judge(e, p)
	return e, nil
}

// judge adds how even the OSDs of a pool are.
func (w *world) judge(e *Explanation, p *pool) {
	for _, g := range w.groups() {
		if slices.Contains(g.members, p) {
			g.explain(e)
		}
	}
}

// explain adds usable space, bound and gap of a group, and what would lift the bound.
func (g *group) explain(e *Explanation) {
	b := g.newBound()
	lowest := g.lowest(b)
	e.Usable, e.Bound = g.usable(), min(1, g.mean()/lowest)
	e.Gap = max(0, e.Bound-e.Usable)
	tight := g.tight(b, lowest)
	switch {
	case tight != "":
		e.LimitedBy, e.Lift = tight, "more space in the other buckets of that type, as much as it has, or a smaller size or failure domain"
	case e.Bound > 0.9999:
		e.LimitedBy, e.Lift = "nothing but the gap, which a balance plan closes", "nothing has to"
	default:
		e.LimitedBy, e.Lift = "placement groups are placed whole", fmt.Sprintf("twice the PGs: %d now for %d OSDs", g.pgCount(), len(g.ids))
	}
}

func (g *group) pgCount() (n int) {
	for _, p := range g.members {
		n += p.end - p.first
	}
	return n
}

// ruleText says what a pool's rule demands.
func (w *world) ruleText(p *pool) string {
	var parts []string
	for _, b := range p.rule.blocks {
		text := "take " + w.name(int32(b.root))
		if bucket := w.Crush.Bucket(b.root); bucket != nil && bucket.Class != "" {
			text += " class " + bucket.Class
		}
		for _, l := range b.levels {
			text += fmt.Sprintf(", at most %d a %s", l.each, w.typeName(l.kind))
		}
		parts = append(parts, text)
	}
	return "rule " + w.Crush.Rules[p.rule.id].Name + " (" + strings.Join(parts, "; ") + ")"
}

func (w *world) typeName(kind int) string {
	for _, t := range w.Crush.Types {
		if t.ID == kind {
			return t.Name
		}
	}
	return fmt.Sprintf("bucket of type %d", kind)
}

// path names a bucket and those above it.
func (w *world) path(b *crush.Bucket) string {
	names := []string{}
	for ; b != nil; b = w.Crush.Holder(b.ID) {
		names = append(names, b.Name)
	}
	slices.Reverse(names)
	return strings.Join(names, " > ")
}

func (w *world) list(osds []crush.ItemID) string {
	names := make([]string, len(osds))
	for i, o := range osds {
		if names[i] = "nothing"; o != osdmap.None {
			names[i] = w.name(int32(o))
			if h := w.Crush.Holder(o); h != nil {
				names[i] += " (" + h.Name + ")"
			}
		}
	}
	return "[" + strings.Join(names, " ") + "]"
}

// amount is a load for people.
func (w *world) amount(load int64) string {
	if w.counts {
		return fmt.Sprintf("%d shards", load)
	}
	return fmt.Sprintf("%.1f GiB", float64(load)/(1<<30))
}
