package placement_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// filled gives a cluster's PGs bytes, and its OSDs disks by their weights of which the fullest
// is full to that part.
func filled(c placement.Cluster, im *placementtest.Image, where map[osdmap.PG]osdmap.Mapping, fullest float64) placement.Cluster {
	random := rand.New(rand.NewPCG(9, 9))
	c.PGs, c.Disks = map[osdmap.PG]placement.PGStat{}, map[crush.ItemID]placement.Disk{}
	used := map[crush.ItemID]int64{}
	for _, p := range im.Pools {
		for seed := range p.PGs {
			pg := osdmap.PG{Pool: p.ID, Seed: seed}
			c.PGs[pg] = placement.PGStat{Bytes: 1<<30 + random.Int64N(1<<28)}
			for _, o := range where[pg].Up {
				used[o] += shardSize(c, pg)
			}
		}
	}
	var most float64
	weights := map[crush.ItemID]float64{}
	for _, b := range c.Crush.Buckets {
		if b == nil {
			continue
		}
		for i := range len(b.Items) {
			if b.Items[i] >= 0 {
				weights[b.Items[i]] = float64(b.Weights[i])
				most = max(most, float64(used[b.Items[i]])/float64(b.Weights[i]))
			}
		}
	}
	for o, w := range weights {
		c.Disks[o] = placement.Disk{Size: int64(w * most / fullest), Used: used[o]}
	}
	c.OSDs.Ratios = osdmap.Ratios{NearFull: 0.85, BackfillFull: 0.90, Full: 0.95}
	return c
}

func shardSize(c placement.Cluster, pg osdmap.PG) int64 {
	k := int64(c.OSDs.DataShards(c.OSDs.Pool(pg.Pool)))
	return (c.PGs[pg].Bytes + k - 1) / k
}

// racked is hosts of unequal disks in four racks.
func racked(t *testing.T) (*placementtest.Image, []placementtest.Host) {
	t.Helper()
	hosts := placementtest.Hosts(4, 12, 4, placementtest.Sizes...)
	for i := range hosts {
		hosts[i].Rack = i % 4
	}
	osds := 0
	for _, h := range hosts {
		osds += len(h.Disks)
	}
	im := placementtest.New(t, osds, placementtest.Compile(t, placementtest.Text(hosts, 4)))
	im.Pools = []placementtest.Pool{
		{ID: 1, Type: crush.Replicated, Size: 3, Rule: 0, PGs: 512, PGPs: 512},
		{ID: 2, Type: crush.Erasure, Size: 4, Rule: 1, PGs: 256, PGPs: 256},
	}
	return im, hosts
}

// TestWavesLeadToThePlanAndKeepEveryBoundOnTheWay carries out plans in waves, and has
// osdmaptool say after each step where PGs are: none breaks its rule, no OSD goes above its
// ratio while data is under way, and at the end all is where the plan has it.
func TestWavesLeadToThePlanAndKeepEveryBoundOnTheWay(t *testing.T) {
	placementtest.NeedTools(t)
	tb := storage.TiB
	for name, change := range map[string]func(*placement.Editor) error{
		"a host more":  func(e *placement.Editor) error { return e.AddHost("new", []storage.Bytes{8 * tb, 12 * tb, 20 * tb}) },
		"a host less":  func(e *placement.Editor) error { return e.RemoveHost("h2") },
		"an OSD less":  func(e *placement.Editor) error { return e.RemoveOSD(5) },
		"larger disks": func(e *placement.Editor) error { _ = e.Replace(3, 30*tb); return e.Replace(9, 30*tb) },
		"a host for a host": func(e *placement.Editor) error {
			_ = e.AddHost("new", []storage.Bytes{12 * tb, 12 * tb, 20 * tb, 20 * tb})
			return e.RemoveHost("h1")
		},
		"over racks": func(e *placement.Editor) error {
			_ = e.SetFailureDomain("pool1", "rack")
			return e.SetFailureDomain("pool2", "rack")
		},
		"over OSDs": func(e *placement.Editor) error { return e.SetFailureDomain("pool1", "osd") },
	} {
		for i, prefer := range []placement.Prefer{placement.PreferBytes, placement.PreferPairs} {
			if !thorough() && (i == len(name)%2 || racing && name != "a host for a host" && name != "over OSDs") {
				continue
			}
			t.Run(name+", sparing "+string(prefer), func(t *testing.T) { carryWaves(t, change, prefer) })
		}
	}
}

func carryWaves(t *testing.T, change func(*placement.Editor) error, prefer placement.Prefer) {
	im, _ := racked(t)
	file := im.Write(t)
	where := placementtest.Mappings(t, file)
	before := filled(read(t, im), im, where, 0.88)
	edit := before.Edit("")
	if err := change(edit); err != nil {
		t.Fatal(err)
	}
	path, err := edit.Path()
	if err != nil {
		t.Fatal(err)
	}
	c, err := placement.PlanChange(path.Before, path.After, prefer)
	if err != nil {
		t.Fatal(err)
	}
	options := placement.WaveOptions{Backfills: 6, Bytes: 8 << 30}
	plan, err := placement.PlanWaves(path, c, options)
	if err != nil {
		t.Fatal(err)
	}
	var moves int64
	for i, step := range plan.Steps {
		now := after(t, im, step.After)
		now.Items = step.After.OSDs.UpmapItems
		file := withRules(now, step.After).Write(t)
		next := placementtest.Mappings(t, file)
		if cancelled := placementtest.Cleanup(t, file); len(cancelled) > 0 {
			t.Fatalf("step %d: osdmaptool cancels %d upmaps: %s", i+1, len(cancelled), cancelled[0])
		}
		moves += checkStep(t, i+1, step, path.During, where, next, options)
		where = next
	}
	t.Logf("usable %.2f %% -> %.2f %% (bound %.2f %%), %d moves (at least %d), %.4f of the least bytes, in %d steps, %d held back", c.UsableBefore*100, c.UsableAfter*100, c.Bound*100, moves, c.MovesLowerBound, float64(c.BytesMoved)/float64(c.BytesLowerBound), len(plan.Steps), plan.HeldBack)
	if plan.HeldBack > 0 || moves != c.Moves {
		t.Errorf("%d PGs are held back, %d moves instead of %d", plan.HeldBack, moves, c.Moves)
	}
	final := placementtest.Mappings(t, withRules(apply(after(t, im, path.After), c.Upmaps), path.After).Write(t))
	for pg, m := range final {
		if !sameOSDs(pool(path.After, pg), m.Up, where[pg].Up) {
			t.Fatalf("%s is on %v in the end, the plan has %v", pg, where[pg].Up, m.Up)
		}
	}
}

// withRules gives a map's pools the rules that a cluster's have.
func withRules(im *placementtest.Image, c placement.Cluster) *placementtest.Image {
	im.Pools = slices.Clone(im.Pools)
	for i := range im.Pools {
		im.Pools[i].Rule = uint8(c.OSDs.Pools[i].Rule)
	}
	return im
}

func pool(c placement.Cluster, pg osdmap.PG) *osdmap.Pool { return c.OSDs.Pool(pg.Pool) }

func sameOSDs(p *osdmap.Pool, a, b []crush.ItemID) bool {
	if p.Erasure() {
		return slices.Equal(a, b)
	}
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// checkStep holds one step against the bounds, and returns how many shards moved.
func checkStep(t *testing.T, number int, step placement.Step, c placement.Cluster, from, to map[osdmap.PG]osdmap.Mapping, o placement.WaveOptions) (moves int64) {
	t.Helper()
	come, bytes, leave, has := map[crush.ItemID]int{}, map[crush.ItemID]int64{}, map[crush.ItemID]int{}, map[crush.ItemID]int64{}
	start := placement.Cluster{PGs: c.PGs, OSDs: c.OSDs}
	for pg, m := range to {
		size := shardSize(start, pg)
		if len(m.Up) != len(from[pg].Up) || slices.Contains(m.Up, osdmap.None) {
			t.Fatalf("step %d: %s is on %v", number, pg, m.Up)
		}
		for i, osd := range m.Up {
			if old := from[pg].Up; pool(c, pg).Erasure() && old[i] != osd || !pool(c, pg).Erasure() && !slices.Contains(old, osd) {
				come[osd]++
				bytes[osd] += size
				moves++
			}
		}
		for i, osd := range from[pg].Up {
			has[osd] += size
			if pool(c, pg).Erasure() && m.Up[i] != osd || !pool(c, pg).Erasure() && !slices.Contains(m.Up, osd) {
				leave[osd]++
			}
		}
	}
	if moves != step.Moves {
		t.Errorf("step %d: %d shards move, the plan says %d", number, moves, step.Moves)
	}
	if step.Kind != placement.Wave {
		if moves > 0 {
			t.Errorf("step %d, %s, moves %d shards", number, step.Kind, moves)
		}
		return moves
	}
	for osd, n := range come {
		// A PG that leaves one place of an OSD and comes to another may be the one too many.
		// Disks hold nothing else here, so what an OSD has is what it uses.
		full := float64(has[osd]+bytes[osd]) / float64(c.Disks[osd].Size)
		if most := map[bool]float64{false: 0.85, true: 0.90}[step.Crowded]; full > most {
			t.Errorf("step %d: osd.%d is %.1f %% full meanwhile", number, osd, full*100)
		}
		if n+leave[osd] > o.Backfills+1 || bytes[osd] > o.Bytes && n > 1 {
			t.Errorf("step %d: %d shards come to osd.%d (%d bytes), %d leave", number, n, osd, bytes[osd], leave[osd])
		}
	}
	return moves
}
