package placement_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// balanced is case B with its upmaps in place.
func balanced(t testing.TB) (*placementtest.Image, placement.Cluster) {
	t.Helper()
	im := placementtest.Cases()[2].Image(t)
	plan, err := placement.PlanBalance(read(t, im), placement.BalanceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	im = apply(im, plan.Upmaps)
	return im, read(t, im)
}

// after is the map that Ceph would have after a change: its tools read the CRUSH map that
// was edited here.
func after(t testing.TB, im *placementtest.Image, c placement.Cluster) *placementtest.Image {
	t.Helper()
	binary, err := c.Crush.Binary()
	if err != nil {
		t.Fatal(err)
	}
	next := placementtest.New(t, len(c.OSDs.OSDs), binary)
	next.Pools, next.Items = im.Pools, im.Items
	copy(next.OSDs, c.OSDs.OSDs)
	return next
}

// changesOfB are changes of case B.
var changesOfB = map[string]func(*placement.Editor) error{
	"one more host": func(e *placement.Editor) error {
		var sizes []storage.Bytes
		for _, tb := range []storage.Bytes{4, 6, 8, 10, 12, 12, 12, 14, 14, 16, 18, 20} {
			sizes = append(sizes, tb*storage.TiB)
		}
		return e.AddHost("new", sizes)
	},
	"fourteen disks replaced": func(e *placement.Editor) error {
		for osd := range crush.ItemID(14) {
			if err := e.Replace(osd*17, 20*storage.TiB); err != nil {
				return err
			}
		}
		return nil
	},
	"a host less":   func(e *placement.Editor) error { return e.RemoveHost("h3") },
	"two OSDs less": func(e *placement.Editor) error { _ = e.RemoveOSD(7); return e.RemoveOSD(100) },
	"one more OSD":  func(e *placement.Editor) error { return e.AddOSD("h5", 20*storage.TiB) },
}

func TestChangesMoveLittle(t *testing.T) {
	placementtest.NeedTools(t)
	im, before := balanced(t)
	for _, name := range slices.Sorted(maps.Keys(changesOfB)) {
		change := changesOfB[name]
		if !thorough() && name == "one more OSD" {
			continue
		}
		for _, prefer := range []placement.Prefer{placement.PreferBytes, placement.PreferPairs} {
			edit := before.Edit("")
			if err := change(edit); err != nil {
				t.Fatal(err)
			}
			cluster, err := edit.Cluster()
			if err != nil {
				t.Fatal(err)
			}
			c, err := placement.PlanChange(before, cluster, prefer)
			if err != nil {
				t.Fatal(err)
			}
			judgeChange(t, name, im, cluster, c)
		}
	}
}

// judgeChange counts moves from osdmaptool's mappings of both maps.
func judgeChange(t *testing.T, name string, im *placementtest.Image, cluster placement.Cluster, c *placement.Change) {
	t.Helper()
	file := apply(after(t, im, cluster), c.Upmaps).Write(t)
	was, is := placementtest.Mappings(t, im.Write(t)), placementtest.Mappings(t, file)
	var moves int64
	hosts := map[osdmap.PG]bool{}
	for pg, m := range is {
		seen := map[crush.ItemID]bool{}
		for _, o := range was[pg].Up {
			seen[o] = true
		}
		on := map[crush.ItemID]bool{}
		for _, o := range m.Up {
			if !seen[o] {
				moves++
			}
			on[cluster.Crush.Holder(o).ID] = true
		}
		if len(m.Up) != 3 || len(on) != 3 {
			hosts[pg] = true
		}
	}
	t.Logf("%s, sparing %s: usable %.2f %% -> %.2f %% (CRUSH alone %.2f %%, bound %.2f %%), %d moves, %.2f %% (CRUSH alone %d; at least %d, %.2f %%), %d pairs; %s", name, c.Prefer,
		c.UsableBefore*100, c.UsableAfter*100, c.UsableCrush*100, c.Bound*100, moves, float64(moves)*100/float64(c.ShardsTotal), c.MovesCrush, c.MovesLowerBound, float64(c.MovesLowerBound)*100/float64(c.ShardsTotal), c.UpmapPairs, c.LimitedBy)
	if moves != c.Moves || len(hosts) > 0 {
		t.Errorf("%s: osdmaptool's mappings have %d moves, the plan %d; %d PGs are not on 3 hosts", name, moves, c.Moves, len(hosts))
	}
	if c.UsableAfter < c.Bound-0.002 || c.Prefer == placement.PreferBytes && float64(moves) > 1.01*float64(c.MovesLowerBound) {
		t.Errorf("%s, sparing %s: not good enough", name, c.Prefer)
	}
	if cancelled := placementtest.Cleanup(t, file); len(cancelled) > 0 {
		t.Errorf("%s: osdmaptool cancels %d upmaps: %s", name, len(cancelled), cancelled[0])
	}
}

// TestChangesOfUnseenClusters changes made-up clusters at random, as they are and with a
// plan carried out before: osdmaptool must cancel no upmap of the plan, and count its
// moves, and no PG may break its rule.
func TestChangesOfUnseenClusters(t *testing.T) {
	placementtest.NeedTools(t)
	for seed := range clusters(t) {
		changeUnseen(t, seed, seed/4%2 == 1)
	}
}

// TestChangesThatLeavePGsShort takes away what PGs need: CRUSH finds no fifth host for
// some of an erasure-coded pool (53), no second one in a rack for some of a replicated (84).
func TestChangesThatLeavePGsShort(t *testing.T) {
	placementtest.NeedTools(t)
	for _, seed := range []uint64{53, 84} {
		if racing && seed == 84 && !thorough() {
			continue
		}
		changeUnseen(t, seed, false)
		if thorough() {
			changeUnseen(t, seed, true)
		}
	}
}

// changeUnseen changes one made-up cluster, balanced before or not, with both preferences.
func changeUnseen(t *testing.T, seed uint64, balanced bool) {
	t.Helper()
	r := placementtest.NewRandom(seed + 500)
	im := r.Image(t)
	before := read(t, im)
	if balanced {
		plan, err := placement.PlanBalance(before, placement.BalanceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		im = apply(im, plan.Upmaps)
		before = read(t, im)
	}
	edit := before.Edit("hdd")
	var err error
	switch seed % 4 {
	case 0:
		err = edit.RemoveOSD(crush.ItemID(seed) % crush.ItemID(len(r.OSDs)))
	case 1:
		err = edit.RemoveHost("h1")
	case 2:
		err = edit.AddHost("new", []storage.Bytes{4 * storage.TiB, 8 * storage.TiB})
	default:
		err = edit.Replace(2, 20*storage.TiB)
	}
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := edit.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	for _, prefer := range []placement.Prefer{placement.PreferBytes, placement.PreferPairs} {
		c, err := placement.PlanChange(before, cluster, prefer)
		if err != nil {
			t.Fatal(err)
		}
		checkChange(t, seed, r, im, cluster, c)
	}
}

func checkChange(t *testing.T, seed uint64, r *placementtest.Random, im *placementtest.Image, cluster placement.Cluster, c *placement.Change) {
	t.Helper()
	changed := after(t, im, cluster)
	file := apply(changed, c.Upmaps).Write(t)
	crushed, was, is := placementtest.Mappings(t, changed.Write(t)), placementtest.Mappings(t, im.Write(t)), placementtest.Mappings(t, file)
	known := *r
	for id := len(r.OSDs); id < len(cluster.OSDs.OSDs); id++ { // the new host's are in a host and a rack of their own
		rack := -1
		if holder := cluster.Crush.Holder(cluster.Crush.BucketNamed("new").ID); r.Racks > 0 {
			rack = int(holder.Name[1] - '0')
		}
		known.OSDs = append(known.OSDs, placementtest.RandomOSD{Host: 1000, Rack: rack, Class: "hdd"})
	}
	var moves int64
	for _, p := range r.Pools {
		for pgSeed := range p.PGs {
			pg := osdmap.PG{Pool: p.ID, Seed: pgSeed}
			if obeys(&known, p, crushed[pg].Up) && !obeys(&known, p, is[pg].Up) {
				t.Fatalf("seed %d: %s is at %v, domain %d class %q", seed, pg, is[pg].Up, p.Domain, p.Class)
			}
			for i, o := range is[pg].Up {
				if o == osdmap.None || p.Type == crush.Erasure && i < len(was[pg].Up) && was[pg].Up[i] == o || p.Type != crush.Erasure && slices.Contains(was[pg].Up, o) {
					continue
				}
				moves++
			}
		}
	}
	if moves != c.Moves {
		t.Errorf("seed %d, sparing %s: osdmaptool's mappings have %d moves, the plan %d", seed, c.Prefer, moves, c.Moves)
	}
	if cancelled := placementtest.Cleanup(t, file); len(cancelled) > 0 {
		t.Errorf("seed %d, sparing %s: osdmaptool cancels %d upmaps: %s", seed, c.Prefer, len(cancelled), cancelled[0])
	}
}
