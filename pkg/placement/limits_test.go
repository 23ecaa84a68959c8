package placement_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
)

func TestMaxMovesIsKeptAndEachMoveCounts(t *testing.T) {
	placementtest.NeedTools(t)
	cluster := read(t, placementtest.Cases()[2].Image(t))
	var usable float64
	for _, most := range []int{1, 10, 100, 500, 900, 2000} {
		plan, err := placement.PlanBalance(cluster, placement.BalanceOptions{MaxMoves: most})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("at most %d: %d moves, usable %.2f %%; %s", most, plan.Moves, plan.UsableAfter*100, plan.LimitedBy)
		if plan.Moves > int64(most) || plan.UsableAfter < usable || most < 900 && !strings.Contains(plan.LimitedBy, "moves allowed") {
			t.Errorf("%d: %+v", most, plan.LimitedBy)
		}
		usable = plan.UsableAfter
	}
}

func TestPlansAreTheSameEachTimeAndLeaveNothingToPlan(t *testing.T) {
	placementtest.NeedTools(t)
	for _, c := range placementtest.Cases() {
		im := c.Image(t)
		cluster := read(t, im)
		plan, err := placement.PlanBalance(cluster, placement.BalanceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := placement.PlanBalance(cluster, placement.BalanceOptions{}); err != nil || !reflect.DeepEqual(plan, again) {
			t.Errorf("%s: another plan the second time, %v", c.Name, err)
		}
		next, err := placement.PlanBalance(read(t, apply(im, plan.Upmaps)), placement.BalanceOptions{})
		if err != nil || next.Moves != 0 || len(next.Upmaps) != 0 {
			t.Errorf("%s: %v, %d moves left after the plan", c.Name, err, next.Moves)
		}
	}
}

func TestNoOSDIsFilledBeyondTheBackfillfullRatio(t *testing.T) {
	placementtest.NeedTools(t)
	im := placementtest.Cases()[2].Image(t)
	cluster := read(t, im)
	cluster.OSDs.Ratios.BackfillFull = 0.9
	cluster.PGs = map[osdmap.PG]placement.PGStat{}
	for seed := range uint32(8192) {
		cluster.PGs[osdmap.PG{Pool: 1, Seed: seed}] = placement.PGStat{Bytes: 1 << 30}
	}
	// An OSD that has room for 5 GiB more, and one that is too full already.
	cluster.Disks = map[crush.ItemID]placement.Disk{3: {Size: 100 << 30, Used: 85 << 30}, 8: {Size: 100 << 30, Used: 95 << 30}}
	plan, err := placement.PlanBalance(cluster, placement.BalanceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	was, is := placementtest.Mappings(t, im.Write(t)), placementtest.Mappings(t, apply(im, plan.Upmaps).Write(t))
	for osd, most := range map[crush.ItemID]int{3: 5, 8: 0} {
		grown := 0
		for pg := range is {
			if slices.Contains(is[pg].Up, osd) {
				grown++
			}
			if slices.Contains(was[pg].Up, osd) {
				grown--
			}
		}
		if grown > most {
			t.Errorf("osd.%d gets %d GiB, and has room for %d", osd, grown, most)
		}
	}
}

func TestPrimariesAreSpreadNoWorseThanBefore(t *testing.T) {
	placementtest.NeedTools(t)
	c := placementtest.Cases()[2]
	im := c.Image(t)
	plan, err := placement.PlanBalance(read(t, im), placement.BalanceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var weight []int
	for _, h := range c.Hosts {
		weight = append(weight, h.Disks...)
	}
	spread := func(mappings map[osdmap.PG]osdmap.Mapping) (most float64) {
		count := map[crush.ItemID]int{}
		for _, m := range mappings {
			count[m.UpPrimary]++
		}
		for osd, n := range count {
			most = max(most, float64(n)/float64(weight[osd]))
		}
		return most
	}
	before, after := spread(placementtest.Mappings(t, im.Write(t))), spread(placementtest.Mappings(t, apply(im, plan.Upmaps).Write(t)))
	t.Logf("primaries a unit of weight of the OSD that has the most: %.2f -> %.2f", before, after)
	if after > before {
		t.Error("worse")
	}
}
