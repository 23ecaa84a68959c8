package placement

import (
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

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
