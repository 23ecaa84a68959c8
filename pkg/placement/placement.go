// Package placement says where data should be: how full the OSDs are, how full they could
// be at best, and which upmaps lead there with the least data moved. One thing holds
// throughout: a plan never leaves a placement group in a place that its pool's rule does
// not allow. The package is pure: it reads no file and asks no cluster, and it must not
// import os, net or any source of time or chance; the same input gives the same plan.
package placement

import (
	"runtime"
	"slices"
	"sync"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// Cluster is what a plan is made from.
type Cluster struct {
	OSDs  *osdmap.Map
	Crush *crush.Map
	// PGs are what the PGs hold; nil where that is not known: then every shard counts the
	// same.
	PGs map[osdmap.PG]PGStat
	// Disks are the OSDs' sizes by id; OSDs may be missing.
	Disks map[crush.ItemID]Disk
}

// PGStat is what one PG holds, in bytes before replication or coding.
type PGStat struct {
	Bytes   int64
	Objects int64
}

// Disk is one OSD's space in bytes, all metadata included.
type Disk struct{ Size, Used int64 }

// none is an empty place.
const none = int32(osdmap.None)

// world is a cluster made ready for planning: all PGs mapped, loads summed. A shard is
// one place of one PG. Places of all PGs lie in flat slices: PG i has those from
// pgs[i].at on, pgs[i].n of them.
type world struct {
	Cluster
	mapper *osdmap.Mapper
	table  *osdmap.Table
	byPool map[int64]*pool
	pools  []*pool
	pgs    []pg
	base   []int32 // what pairs of an upmap start from: CRUSH, or pg_upmap
	old    []int32 // where the shards are now
	cur    []int32 // where the plan has them
	osds   []osd
	counts bool // shards count the same: their bytes are not known
}

type pool struct {
	*osdmap.Pool
	rule       *rule
	number     int // in the map's order
	first, end int // its PGs
	positional bool
}

type pg struct {
	pool   *pool
	seed   uint32
	at     int32
	n      int16
	frozen bool  // not to be moved: the rule does not hold, or upmaps are ignored or cancelled
	size   int64 // of one shard: bytes, or 1
}

type osd struct {
	weight float64 // CRUSH weight times reweight; 0 for what takes no data
	takes  bool    // may be moved to: up and in
	load   int64   // the sum of the sizes of its shards
	most   int64   // what load may grow to before the OSD takes no backfill
	near   int64   // and before Ceph warns of it
}

func (p *pg) id() osdmap.PG { return osdmap.PG{Pool: p.pool.ID, Seed: p.seed} }

// places are the plan's places of a PG.
func (w *world) places(p *pg) []int32 { return w.cur[p.at : int(p.at)+int(p.n)] }

func (w *world) oldPlaces(p *pg) []int32 { return w.old[p.at : int(p.at)+int(p.n)] }

func (w *world) basePlaces(p *pg) []int32 { return w.base[p.at : int(p.at)+int(p.n)] }

// newWorld maps all PGs of a cluster.
func newWorld(c Cluster) (*world, error) {
	return makeWorld(c, func() (*osdmap.Table, error) { return osdmap.NewTable(c.OSDs, c.Crush, false) })
}

// newWorldToChange does, and remembers how mappings come about, for after.
func newWorldToChange(c Cluster) (*world, error) {
	return makeWorld(c, func() (*osdmap.Table, error) { return osdmap.NewTable(c.OSDs, c.Crush, true) })
}

// after maps the PGs of the cluster after a change: anew those that the change can touch.
func (w *world) after(c Cluster) (*world, error) {
	return makeWorld(c, func() (*osdmap.Table, error) { return w.table.After(c.OSDs, c.Crush) })
}

func makeWorld(c Cluster, tabulate func() (*osdmap.Table, error)) (*world, error) {
	if len(c.OSDs.Pools) == 0 {
		return nil, fault.New(fault.Precondition, "the OSD map has no pools: there is nothing to place")
	}
	table, err := tabulate()
	if err != nil {
		return nil, err
	}
	w := &world{Cluster: c, mapper: table.Mapper(), table: table, byPool: map[int64]*pool{}}
	w.weigh()
	w.counts = !slices.ContainsFunc(c.OSDs.Pools, func(p osdmap.Pool) bool {
		for seed := range p.PGs {
			if c.PGs[osdmap.PG{Pool: p.ID, Seed: seed}].Bytes > 0 {
				return true
			}
		}
		return false
	})
	at := int32(0)
	for i := range c.OSDs.Pools {
		p := &pool{Pool: &c.OSDs.Pools[i], number: i, first: len(w.pgs)}
		if p.rule, err = w.compile(p.Pool); err != nil {
			return nil, err
		}
		p.positional = p.Erasure() || len(p.rule.blocks) > 1
		shards := int64(c.OSDs.DataShards(p.Pool))
		for seed := range p.PGs {
			size := int64(1)
			if !w.counts {
				size = (c.PGs[osdmap.PG{Pool: p.ID, Seed: seed}].Bytes + shards - 1) / shards
			}
			w.pgs = append(w.pgs, pg{pool: p, seed: seed, at: at, n: int16(p.Size), size: size})
			at += int32(p.Size)
		}
		p.end = len(w.pgs)
		w.pools, w.byPool[p.ID] = append(w.pools, p), p
	}
	w.base, w.cur = make([]int32, at), make([]int32, at)
	w.mapAll()
	w.old = slices.Clone(w.cur)
	w.sum()
	w.limits()
	return w, nil
}

// limits notes how far each OSD may be filled from where the shards are now: to the
// backfillfull ratio of its disk, where that is known, and to the nearfull ratio. What an OSD
// has already may stay.
func (w *world) limits() {
	loads := w.loadsOf(w.old)
	for i := range w.osds {
		o := &w.osds[i]
		o.most, o.near = unlimited, unlimited
		disk, known := w.Disks[crush.ItemID(i)]
		if !known || disk.Size <= 0 || w.counts {
			continue
		}
		o.most = room(disk, w.OSDs.Ratios.BackfillFull, loads[i])
		o.near = min(o.most, room(disk, w.OSDs.Ratios.NearFull, loads[i]))
	}
}

// loadsOf adds up what OSDs hold, by id, where shards are at those places.
func (w *world) loadsOf(places []int32) []int64 {
	loads := make([]int64, len(w.osds))
	for i := range w.pgs {
		p := &w.pgs[i]
		for _, o := range places[p.at : int(p.at)+int(p.n)] {
			if w.isOSD(o) {
				loads[o] += p.size
			}
		}
	}
	return loads
}

// weigh gives each OSD its weight: that of the bucket that holds it, times its reweight.
func (w *world) weigh() {
	w.osds = make([]osd, max(len(w.OSDs.OSDs), w.Crush.MaxDevices()))
	for _, b := range w.Crush.Buckets {
		if b == nil || b.Class != "" {
			continue
		}
		for i, item := range b.Items {
			if item < 0 || int(item) >= len(w.OSDs.OSDs) || !w.OSDs.OSDs[item].Exists {
				continue
			}
			o := w.OSDs.OSDs[item]
			w.osds[item].weight = float64(b.Weights[i]) / float64(crush.One) * float64(o.Weight) / float64(crush.One)
			w.osds[item].takes = o.Up && w.osds[item].weight > 0
		}
	}
}

// mapAll fills base and cur.
func (w *world) mapAll() {
	parts := runtime.GOMAXPROCS(0)
	var wait sync.WaitGroup
	for part := range parts {
		wait.Go(func() {
			var scratch []crush.ItemID
			for i := part * len(w.pgs) / parts; i < (part+1)*len(w.pgs)/parts; i++ {
				p := &w.pgs[i]
				scratch = w.table.Raw(scratch[:0], p.pool.number, p.seed)
				w.mapOne(p, scratch)
			}
		})
	}
	wait.Wait()
}

// mapOne fills base and cur of a PG from what CRUSH says.
func (w *world) mapOne(p *pg, raw []crush.ItemID) {
	base, open := w.mapper.Base(raw, p.id())
	fill(w.basePlaces(p), base)
	if open {
		w.mapper.ApplyPairs(base, w.OSDs.UpmapItems[p.id()])
	}
	fill(w.places(p), base)
	if w.gapped(p) || !p.pool.rule.holds(w.places(p)) && p.pool.rule.holds(w.basePlaces(p)) {
		copy(w.places(p), w.basePlaces(p)) // monitors cancel such upmaps
	}
	p.frozen = !open || w.gapped(p) || p.pool.Merging(p.seed) || len(base) > int(p.n) || !p.pool.rule.holds(w.places(p))
}

// gapped says whether CRUSH leaves a place of an erasure-coded PG empty: monitors
// cancel all upmaps of such a PG, since the gap is below no bucket (verify_upmap,
// check_pg_upmaps). Replicated PGs close up.
func (w *world) gapped(p *pg) bool {
	return p.pool.Erasure() && slices.Contains(w.basePlaces(p), none)
}

// fill copies a mapping to its places, the missing ones empty.
func fill(to []int32, from []crush.ItemID) {
	for i := range to {
		to[i] = none
		if i < len(from) {
			to[i] = int32(from[i])
		}
	}
}

// sum adds up the loads of the plan's places.
func (w *world) sum() {
	for i, load := range w.loadsOf(w.cur) {
		w.osds[i].load = load
	}
}

// isOSD says whether a place has an OSD, and not a hole or nonsense of a pg_upmap.
func (w *world) isOSD(o int32) bool { return o >= 0 && int(o) < len(w.osds) }
