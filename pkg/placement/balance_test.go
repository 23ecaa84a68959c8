package placement_test

import (
	"slices"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
)

// read makes a cluster of what osdmaptool dumps.
func read(t testing.TB, im *placementtest.Image) placement.Cluster {
	t.Helper()
	m, err := osdmap.Parse(placementtest.Dump(t, im.Write(t)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := crush.Parse(im.Crush)
	if err != nil {
		t.Fatal(err)
	}
	return placement.Cluster{OSDs: m, Crush: c}
}

// apply puts a plan's upmaps into a map.
func apply(im *placementtest.Image, upmaps []placement.Upmap) *placementtest.Image {
	after := *im
	after.Items = map[osdmap.PG][]osdmap.Pair{}
	for pg, pairs := range im.Items {
		after.Items[pg] = pairs
	}
	for _, u := range upmaps {
		if len(u.Pairs) == 0 {
			delete(after.Items, u.PG)
			continue
		}
		after.Items[u.PG] = u.Pairs
	}
	return &after
}

// judge counts moves, and says how much is usable, from osdmaptool's mappings alone. It
// fails where two places of a PG share an OSD or a host.
func judge(t testing.TB, hosts []placementtest.Host, im *placementtest.Image, before, after map[osdmap.PG]osdmap.Mapping) (usable float64, moves int64) {
	t.Helper()
	var hostOf, weight []int
	for h, host := range hosts {
		for _, d := range host.Disks {
			hostOf, weight = append(hostOf, h), append(weight, d)
		}
	}
	load := make([]int, len(weight))
	for pg, m := range after {
		seen := map[int]bool{}
		for i, o := range m.Up {
			if o == osdmap.None {
				continue
			}
			if seen[hostOf[o]] {
				t.Fatalf("%s is twice on host %d: %v", pg, hostOf[o], m.Up)
			}
			seen[hostOf[o]] = true
			load[o]++
			if poolOf(im, pg).Type == crush.Erasure {
				if before[pg].Up[i] != o {
					moves++
				}
			} else if !slices.Contains(before[pg].Up, o) {
				moves++
			}
		}
	}
	var sum, size, fullest float64
	for o, l := range load {
		sum, size = sum+float64(l), size+float64(weight[o])
		fullest = max(fullest, float64(l)/float64(weight[o]))
	}
	return sum / size / fullest, moves
}

func poolOf(im *placementtest.Image, pg osdmap.PG) placementtest.Pool {
	return im.Pools[slices.IndexFunc(im.Pools, func(p placementtest.Pool) bool { return p.ID == pg.Pool })]
}

// check plans a case, lets osdmaptool judge, and returns the plan.
func check(t testing.TB, c placementtest.Case) *placement.Balance {
	t.Helper()
	im := c.Image(t)
	plan, err := placement.PlanBalance(read(t, im), placement.BalanceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before, after := placementtest.Mappings(t, im.Write(t)), placementtest.Mappings(t, apply(im, plan.Upmaps).Write(t))
	usable, moves := judge(t, c.Hosts, im, before, after)
	start, _ := judge(t, c.Hosts, im, before, before)
	t.Logf("%s: usable %.2f %% -> %.2f %% (bound %.2f %%), %d moves (at least %d), %d pairs; %s", c.Name, start*100, usable*100, plan.Bound*100, moves, plan.MovesLowerBound, plan.UpmapPairs, plan.LimitedBy)
	if moves != plan.Moves || !near(usable, plan.UsableAfter) || !near(start, plan.UsableBefore) {
		t.Errorf("%s: osdmaptool's mappings have %d moves, usable %f -> %f; the plan says %d, %f -> %f", c.Name, moves, start, usable, plan.Moves, plan.UsableBefore, plan.UsableAfter)
	}
	return plan
}

func near(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 }

func TestOnePoolReachesTheBoundWithTheFewestMoves(t *testing.T) {
	placementtest.NeedTools(t)
	for _, c := range placementtest.Cases() {
		if plan := check(t, c); !near(plan.UsableAfter, plan.Bound) || plan.Moves != plan.MovesLowerBound {
			t.Errorf("%s: %+v", c.Name, plan)
		}
	}
}
