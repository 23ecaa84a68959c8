package osdmap

import (
	"runtime"
	"sync"

	"github.com/holdfast-storage/holdfast/pkg/crush"
)

// Table is what CRUSH says of all PGs of a map, pool by pool. It is made by all cores, and read
// only after that.
type Table struct {
	m      *Map
	mapper *Mapper
	pgs    []tablePG
	first  []int // by pool, in the map's order: its first PG
	parts  []tablePart
	// Mapped is how many PGs CRUSH was asked for: all, or those that a change can touch.
	Mapped int
}

// tablePG is a PG's part of the arenas of its part.
type tablePG struct {
	part, pool    int32
	seed          uint32
	raw, trace    int32
	places, draws int32
}

// tablePart is what one goroutine maps.
type tablePart struct {
	from, end int
	raw       []crush.ItemID
	trace     []crush.Draw
	mapped    int
	err       error
}

// NewTable maps all PGs. With traced it keeps how each mapping came about, some 100 bytes a PG,
// which After needs.
func NewTable(m *Map, c *crush.Map, traced bool) (*Table, error) {
	return newTable(m, c, nil, traced)
}

// After maps all PGs of a map that was changed: anew those that the change can touch, and as
// they were the others. The table must have been traced, and is so again.
func (t *Table) After(m *Map, c *crush.Map) (*Table, error) { return newTable(m, c, t, true) }

// Mapper maps the table's PGs one by one, with what the map adds to CRUSH.
func (t *Table) Mapper() *Mapper { return t.mapper }

// Raw appends what CRUSH says of a PG, by the number of its pool in the map's order and its
// seed, without OSDs that do not exist. It is what Mapper.Raw says, and safe to call from
// several goroutines.
func (t *Table) Raw(out []crush.ItemID, pool int, seed uint32) []crush.ItemID {
	p := &t.pgs[t.first[pool]+int(seed)]
	start := len(out)
	out = append(out, t.osds(p)...)
	return t.mapper.keep(out, start, &t.m.Pools[pool], func(o OSD) bool { return o.Exists })
}

func (t *Table) osds(p *tablePG) []crush.ItemID {
	return t.parts[p.part].raw[p.raw : int(p.raw)+int(p.places)]
}

func (t *Table) draws(p *tablePG) []crush.Draw {
	return t.parts[p.part].trace[p.trace : int(p.trace)+int(p.draws)]
}

func newTable(m *Map, c *crush.Map, before *Table, traced bool) (*Table, error) {
	mapper, err := NewMapper(m, c)
	if err != nil {
		return nil, err
	}
	t := &Table{m: m, mapper: mapper}
	for i := range m.Pools {
		t.first = append(t.first, len(t.pgs))
		for seed := range m.Pools[i].PGs {
			t.pgs = append(t.pgs, tablePG{pool: int32(i), seed: seed})
		}
	}
	var deltas map[int64]*crush.Delta
	if before != nil {
		deltas = before.deltas(mapper)
	}
	t.parts = make([]tablePart, runtime.GOMAXPROCS(0))
	var wait sync.WaitGroup
	for i := range t.parts {
		t.parts[i].from, t.parts[i].end = i*len(t.pgs)/len(t.parts), (i+1)*len(t.pgs)/len(t.parts)
		w := tableWorker{Table: t, before: before, mapper: mapper.Fork(), part: int32(i), traced: traced, deltas: map[int64]*crush.Delta{}}
		for index, d := range deltas {
			w.deltas[index] = d.Fork()
		}
		wait.Go(w.run)
	}
	wait.Wait()
	for i := range t.parts {
		if t.Mapped += t.parts[i].mapped; t.parts[i].err != nil {
			return nil, t.parts[i].err
		}
	}
	return t, nil
}

// deltas are the differences between what the table's mapper draws with and what another one
// does, by index of choose_args.
func (t *Table) deltas(after *Mapper) map[int64]*crush.Delta {
	deltas := map[int64]*crush.Delta{}
	for index, a := range t.mapper.crush {
		if b := after.crush[index]; b != nil {
			deltas[index] = crush.NewDelta(a, b)
		}
	}
	return deltas
}

// tableWorker maps one part.
type tableWorker struct {
	*Table
	before *Table
	mapper *Mapper
	part   int32
	traced bool
	deltas map[int64]*crush.Delta
}

func (w *tableWorker) run() {
	part := &w.parts[w.part]
	for i := part.from; i < part.end && part.err == nil; i++ {
		p := &w.pgs[i]
		p.part, p.raw, p.trace = w.part, int32(len(part.raw)), int32(len(part.trace))
		if !w.keep(part, p) {
			part.err = w.ask(part, p)
		}
		p.places, p.draws = int32(len(part.raw)-int(p.raw)), int32(len(part.trace)-int(p.trace))
	}
}

// ask asks CRUSH for a PG.
func (w *tableWorker) ask(part *tablePart, p *tablePG) (err error) {
	pool := &w.m.Pools[p.pool]
	rule := w.mapper.rules[pool.ID]
	if rule < 0 {
		return nil
	}
	part.mapped++
	cm, x := w.mapper.crush[w.mapper.args[pool.ID]], int32(pool.placementSeed(p.seed))
	if w.traced {
		part.raw, part.trace, err = cm.DoTraced(part.raw, part.trace, rule, x, pool.Size)
	} else {
		part.raw, err = cm.Do(part.raw, rule, x, pool.Size)
	}
	return err
}

// keep takes a PG's mapping from before the change, if that cannot have touched it.
func (w *tableWorker) keep(part *tablePart, p *tablePG) bool {
	if w.before == nil || int(p.pool) >= len(w.before.m.Pools) {
		return false
	}
	was, is := &w.before.m.Pools[p.pool], &w.m.Pools[p.pool]
	if was.ID != is.ID || was.Size != is.Size || was.PGs != is.PGs || was.PGPs != is.PGPs || was.Flags != is.Flags {
		return false
	}
	rule, args := w.mapper.rules[is.ID], w.mapper.args[is.ID]
	old := &w.before.pgs[w.before.first[p.pool]+int(p.seed)]
	if rule < 0 || w.before.mapper.rules[is.ID] != rule || w.before.mapper.args[is.ID] != args {
		return false
	}
	trace := w.before.draws(old)
	if d := w.deltas[args]; d == nil || !d.Keeps(rule, int32(is.placementSeed(p.seed)), trace) {
		return false
	}
	part.raw, part.trace = append(part.raw, w.before.osds(old)...), append(part.trace, trace...)
	return true
}
