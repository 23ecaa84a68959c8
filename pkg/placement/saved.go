package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/crush"
)

// saved is a state of the plan to go back to: the places of the group's PGs.
type saved struct{ places []int32 }

func (g *group) save() *saved {
	var s saved
	for _, p := range g.members {
		s.places = append(s.places, g.poolPlaces(p)...)
	}
	return &s
}

func (g *group) load(s *saved) {
	at := 0
	for _, p := range g.members {
		at += copy(g.poolPlaces(p), s.places[at:])
	}
	g.sum()
}

// poolPlaces are the places of all PGs of a pool.
func (g *group) poolPlaces(p *pool) []int32 {
	if p.first == p.end {
		return nil
	}
	last := &g.pgs[p.end-1]
	return g.cur[g.pgs[p.first].at : int(last.at)+int(last.n)]
}

// change counts the shards that are not where they were saved, and their load.
func (g *group) change(s *saved) (shards, load int64) {
	at := 0
	for _, p := range g.members {
		for i := p.first; i < p.end; i++ {
			q := &g.pgs[i]
			n := q.differing(g.places(q), s.places[at:at+int(q.n)])
			shards, load, at = shards+n, load+n*q.size, at+int(q.n)
		}
	}
	return shards, load
}

// differing counts the OSDs that a PG has and did not have before. Places of replicated
// PGs have no meaning of their own, those of erasure-coded ones do.
func (p *pg) differing(now, before []int32) int64 {
	var n int64
	for i, o := range now {
		if o == none || o == before[i] || !p.pool.positional && slices.Contains(before, o) {
			continue
		}
		n++
	}
	return n
}

func (g *group) changed(s *saved) int64 {
	n, _ := g.change(s)
	return n
}

// name is what people call an OSD or bucket.
func (w *world) name(id int32) string {
	if id >= 0 {
		return fmt.Sprintf("osd.%d", id)
	}
	if b := w.Crush.Bucket(crush.ItemID(id)); b != nil {
		name, _, _ := strings.Cut(b.Name, "~")
		return name
	}
	return fmt.Sprintf("bucket %d", id)
}

// percent prints a part with two decimals.
func percent(part float64) string { return fmt.Sprintf("%.2f %%", part*100) }
