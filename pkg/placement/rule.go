package placement

import (
	"math"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// rule is what a CRUSH rule demands of the OSDs of a PG: the same that Ceph demands of
// upmaps (CrushWrapper::verify_upmap cancels others), and where a rule counts the places
// in each bucket, that count, too.
type rule struct {
	id     int
	blocks []block
}

// block is one `take ... emit` of a rule; it fills the places [from, to).
type block struct {
	from, to int
	in       []bool // by OSD: below the root that is taken
	root     crush.ItemID
	levels   []level // outermost first
}

// level is one choose step above OSDs.
type level struct {
	kind     int
	parent   []int32 // by OSD: the bucket of that type above it, or noParent
	most     int     // how many such buckets a PG's places may be in
	each     int     // how many places one such bucket may have
	distinct bool    // chooseleaf: no two places of the whole PG in one bucket
}

const noParent = int32(math.MaxInt32)

// compile reads the steps of the rule that serves a pool.
func (w *world) compile(p *osdmap.Pool) (*rule, error) {
	id := osdmap.RuleOf(w.Crush, p)
	if id < 0 {
		return nil, fault.New(fault.Precondition, "pool %s (%d): the CRUSH map has no rule %d for its type and size: its PGs are nowhere", p.Name, p.ID, p.Rule)
	}
	r := &rule{id: id}
	var open *block
	for _, step := range w.Crush.Rules[id].Steps {
		switch step.Op {
		case crush.OpTake:
			open = &block{root: crush.ItemID(step.Arg1)}
		case crush.OpChooseFirstN, crush.OpChooseIndep, crush.OpChooseleafFirstN, crush.OpChooseleafIndep:
			if open == nil {
				continue
			}
			n := int(step.Arg1)
			if n <= 0 {
				n += p.Size
			}
			leaf := step.Op == crush.OpChooseleafFirstN || step.Op == crush.OpChooseleafIndep
			open.levels = append(open.levels, level{kind: int(step.Arg2), most: n, distinct: leaf})
		case crush.OpEmit:
			if open != nil {
				w.finish(r, open, p.Size)
			}
			open = nil
		}
	}
	return r, nil
}

// finish turns the counts of a block's steps into what each bucket may have.
func (w *world) finish(r *rule, b *block, size int) {
	if len(r.blocks) > 0 {
		b.from = r.blocks[len(r.blocks)-1].to
	}
	each := 1
	for i := len(b.levels) - 1; i >= 0; i-- {
		b.levels[i].each = each
		each *= max(1, b.levels[i].most)
	}
	b.to = min(size, b.from+each)
	b.in = make([]bool, len(w.osds))
	kinds := make([]level, 0, len(b.levels))
	for _, l := range b.levels {
		if l.kind == 0 {
			continue
		}
		l.parent = make([]int32, len(w.osds))
		for i := range l.parent {
			l.parent[i] = noParent
		}
		kinds = append(kinds, l)
	}
	b.levels = kinds
	w.descend(b, b.root, nil)
	r.blocks = append(r.blocks, *b)
}

// descend notes for each OSD below item which buckets are above it.
func (w *world) descend(b *block, item crush.ItemID, above []*crush.Bucket) {
	if item >= 0 {
		b.in[item] = true
		for i := range b.levels {
			for _, bucket := range above {
				if bucket.Type == b.levels[i].kind {
					b.levels[i].parent[item] = int32(bucket.ID)
				}
			}
		}
		return
	}
	bucket := w.Crush.Bucket(item)
	above = append(above[:len(above):len(above)], bucket)
	for _, child := range bucket.Items {
		w.descend(b, child, above)
	}
}

// blockOf returns the block that fills a place, or nil.
func (r *rule) blockOf(place int) *block {
	for i := range r.blocks {
		if b := &r.blocks[i]; place >= b.from && place < b.to {
			return b
		}
	}
	return nil
}

// allows says whether OSD to may take one place of a PG, the others staying.
func (r *rule) allows(places []int32, place int, to int32) bool {
	b := r.blockOf(place)
	if b == nil || !b.in[to] {
		return false
	}
	for _, o := range places {
		if o == to {
			return false
		}
	}
	for i := range b.levels {
		if !b.levels[i].allows(b, places, place, to) {
			return false
		}
	}
	return true
}

// allows says whether one level does.
func (l *level) allows(b *block, places []int32, place int, to int32) bool {
	mine := l.parent[to]
	if mine == noParent {
		return false
	}
	from, end := b.from, min(b.to, len(places))
	if l.distinct {
		from, end = 0, len(places)
	}
	same, others := 0, 0
	for i := from; i < end; i++ {
		o := places[i]
		if i == place || o < 0 || int(o) >= len(l.parent) || l.parent[o] == noParent {
			continue // OSDs outside of the tree are about to leave
		}
		if l.parent[o] == mine {
			same++
			continue
		}
		if l.most > 0 && firstOf(l, places, from, i, place) {
			others++
		}
	}
	return same < l.each && (l.distinct || others < l.most)
}

// firstOf says whether no earlier place but the one left out has the parent of place i.
func firstOf(l *level, places []int32, from, i, without int) bool {
	for j := from; j < i; j++ {
		if o := places[j]; j != without && o >= 0 && int(o) < len(l.parent) && l.parent[o] == l.parent[places[i]] {
			return false
		}
	}
	return true
}

// holds says whether the places are as the rule demands. Holes are.
func (r *rule) holds(places []int32) bool {
	for i, o := range places {
		if o == none {
			continue
		}
		if o < 0 {
			return false
		}
		if b := r.blockOf(i); b == nil || int(o) >= len(b.in) || !r.allows(places[:i], i, o) {
			return false
		}
	}
	return true
}

// equal says whether two rules demand the same.
func (r *rule) equal(other *rule) bool {
	return slices.EqualFunc(r.blocks, other.blocks, func(a, b block) bool {
		return a.from == b.from && a.to == b.to && slices.Equal(a.in, b.in) && slices.EqualFunc(a.levels, b.levels, func(a, b level) bool {
			return a.most == b.most && a.each == b.each && a.distinct == b.distinct && slices.Equal(a.parent, b.parent)
		})
	})
}
