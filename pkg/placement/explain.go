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
