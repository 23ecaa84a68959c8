package osdmap

import (
	"math/bits"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Mapper maps PGs. It serves one goroutine at a time: Fork makes one for another.
type Mapper struct {
	m     *Map
	crush map[int64]*crush.Mapper // by index of choose_args
	rules map[int64]int           // by pool: the rule that serves it, or -1
	args  map[int64]int64         // by pool: the index of choose_args
}

// Mapping is where a PG belongs. Raw is what CRUSH says, without OSDs that do not exist;
// Target is Raw with upmaps applied, whether the OSDs are up or not; Up are those of them
// that are up; Acting is what serves now: Up, or pg_temp. Erasure-coded PGs keep None in
// the places that have no OSD; replicated ones close up.
type Mapping struct {
	Raw, Target, Up, Acting              []crush.ItemID
	RawPrimary, UpPrimary, ActingPrimary crush.ItemID
}

// NewMapper prepares the two maps. A pool whose rule is not there maps to nothing, as in
// Ceph.
func NewMapper(m *Map, c *crush.Map) (*Mapper, error) {
	mapper := &Mapper{m: m, crush: map[int64]*crush.Mapper{}, rules: map[int64]int{}, args: map[int64]int64{}}
	for i := range m.Pools {
		pool := &m.Pools[i]
		index := crush.DefaultChooseArgs
		if slices.ContainsFunc(c.ChooseArgs, func(a crush.ChooseArgs) bool { return a.Index == pool.ID }) {
			index = pool.ID
		}
		mapper.args[pool.ID] = index
		mapper.rules[pool.ID] = RuleOf(c, pool)
		if mapper.crush[index] != nil {
			continue
		}
		cm, err := crush.NewMapper(c, index)
		if err != nil {
			return nil, err
		}
		for osd := range c.MaxDevices() {
			var w crush.Weight
			if osd < len(m.OSDs) {
				w = m.OSDs[osd].Weight
			}
			cm.SetWeight(crush.ItemID(osd), w)
		}
		mapper.crush[index] = cm
	}
	return mapper, nil
}

// RuleOf returns the id of the rule that serves a pool, or -1: that with the pool's
// number, type and a range that has its size (crush_find_rule in mapper.c).
func RuleOf(c *crush.Map, pool *Pool) int {
	return slices.IndexFunc(c.Rules, func(r *crush.Rule) bool {
		return r != nil && int(r.Ruleset) == pool.Rule && r.Type == pool.Type && int(r.MinSize) <= pool.Size && pool.Size <= int(r.MaxSize)
	})
}

// Fork returns a mapper of the same maps for another goroutine.
func (mp *Mapper) Fork() *Mapper {
	f := &Mapper{m: mp.m, crush: map[int64]*crush.Mapper{}, rules: mp.rules, args: mp.args}
	for index, cm := range mp.crush {
		f.crush[index] = cm.Fork()
	}
	return f
}

// stableMod folds a seed onto n PGs, so that doubling n splits each PG (ceph_stable_mod).
func stableMod(seed, n uint32) uint32 {
	mask := uint32(1)<<bits.Len32(n-1) - 1
	if seed&mask < n {
		return seed & mask
	}
	return seed & (mask >> 1)
}

// placementSeed is the input of the rule (pg_pool_t::raw_pg_to_pps).
func (p *Pool) placementSeed(seed uint32) uint32 {
	folded := stableMod(seed, p.PGPs)
	if p.Flags&flagHashPSPool != 0 {
		return crush.Hash2(folded, uint32(p.ID))
	}
	return folded + uint32(p.ID)
}

// Raw appends to out what CRUSH says (OSDMap::_pg_to_raw_osds).
func (mp *Mapper) Raw(out []crush.ItemID, pool *Pool, seed uint32) ([]crush.ItemID, error) {
	rule := mp.rules[pool.ID]
	if rule < 0 {
		return out, nil
	}
	start := len(out)
	out, err := mp.crush[mp.args[pool.ID]].Do(out, rule, int32(pool.placementSeed(seed)), pool.Size)
	if err != nil {
		return out, err
	}
	return mp.keep(out, start, pool, func(o OSD) bool { return o.Exists }), nil
}

// keep removes from out[start:] the OSDs that are not wanted, or empties their places.
func (mp *Mapper) keep(out []crush.ItemID, start int, pool *Pool, wanted func(OSD) bool) []crush.ItemID {
	to := start
	for _, id := range out[start:] {
		switch {
		case id >= 0 && int(id) < len(mp.m.OSDs) && wanted(mp.m.OSDs[id]):
		case pool.Erasure():
			id = None
		default:
			continue
		}
		out[to] = id
		to++
	}
	return out[:to]
}

// out says whether an upmap to the OSD is ignored: it is out (weight 0). What is no OSD
// at all is not.
func (mp *Mapper) out(id crush.ItemID) bool {
	return id != None && id >= 0 && int(id) < len(mp.m.OSDs) && mp.m.OSDs[id].Weight == 0
}

// Base replaces a raw mapping by the PG's pg_upmap: what pg_upmap_items start from. One
// that names an OSD which is out is ignored, and pg_upmap_items with it: then it is false.
func (mp *Mapper) Base(raw []crush.ItemID, pg PG) ([]crush.ItemID, bool) {
	full, ok := mp.m.Upmap[pg]
	if !ok {
		return raw, true
	}
	if slices.ContainsFunc(full, mp.out) {
		return raw, false
	}
	return append(raw[:0], full...), true
}

// ApplyPairs replaces in place, pair by pair: a pair whose To is there already, or is out,
// does nothing (OSDMap::_apply_upmap). So no two OSDs can be swapped.
func (mp *Mapper) ApplyPairs(osds []crush.ItemID, pairs []Pair) {
	for _, pair := range pairs {
		at := slices.Index(osds, pair.From)
		if at < 0 || mp.out(pair.To) || slices.Contains(osds, pair.To) {
			continue
		}
		osds[at] = pair.To
	}
}

// Map maps one PG (OSDMap::_pg_to_up_acting_osds).
func (mp *Mapper) Map(pg PG) (Mapping, error) {
	pool := mp.m.Pool(pg.Pool)
	none := Mapping{RawPrimary: NoPrimary, UpPrimary: NoPrimary, ActingPrimary: NoPrimary}
	if pool == nil || pg.Seed >= pool.PGs {
		return none, fault.New(fault.NotFound, "the map has no placement group %s", pg)
	}
	raw, err := mp.Raw(nil, pool, pg.Seed)
	if err != nil {
		return none, err
	}
	r := Mapping{Raw: raw, RawPrimary: first(raw)}
	var open bool
	if r.Target, open = mp.Base(slices.Clone(raw), pg); open {
		mp.ApplyPairs(r.Target, mp.m.UpmapItems[pg])
	}
	r.Up = mp.keep(slices.Clone(r.Target), 0, pool, func(o OSD) bool { return o.Exists && o.Up })
	r.UpPrimary = mp.primary(r.Up, pool, pg.Seed)
	r.Acting, r.ActingPrimary = mp.acting(pg, pool, r.Up, r.UpPrimary)
	return r, nil
}

// first is the first place that has an OSD (OSDMap::_pick_primary).
func first(osds []crush.ItemID) crush.ItemID {
	for _, id := range osds {
		if id != None {
			return id
		}
	}
	return NoPrimary
}

// primary picks the primary by affinity, and in replicated pools puts it first
// (OSDMap::_apply_primary_affinity).
func (mp *Mapper) primary(up []crush.ItemID, pool *Pool, pgSeed uint32) crush.ItemID {
	if !slices.ContainsFunc(up, func(id crush.ItemID) bool { return id != None && mp.m.OSDs[id].Affinity != FullAffinity }) {
		return first(up)
	}
	seed, at := pool.placementSeed(pgSeed), -1
	for i, id := range up {
		if id == None {
			continue
		}
		affinity := mp.m.OSDs[id].Affinity
		if affinity < FullAffinity && crush.Hash2(seed, uint32(id))>>16 >= affinity {
			if at < 0 {
				at = i // the fallback, if nobody wants
			}
			continue
		}
		at = i
		break
	}
	if at < 0 {
		return first(up)
	}
	chosen := up[at]
	if !pool.Erasure() {
		copy(up[1:at+1], up[:at])
		up[0] = chosen
	}
	return chosen
}

// acting is what serves the PG: pg_temp and primary_temp, or what is up
// (OSDMap::_get_temp_osds).
func (mp *Mapper) acting(pg PG, pool *Pool, up []crush.ItemID, upPrimary crush.ItemID) ([]crush.ItemID, crush.ItemID) {
	acting := mp.keep(slices.Clone(mp.m.Temp[pg]), 0, pool, func(o OSD) bool { return o.Exists && o.Up })
	primary, ok := mp.m.PrimaryTemp[pg]
	if !ok {
		primary = first(acting)
	}
	if len(acting) == 0 {
		acting = up
		if primary == NoPrimary {
			primary = upPrimary
		}
	}
	return acting, primary
}
