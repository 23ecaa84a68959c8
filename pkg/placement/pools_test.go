package placement_test

import (
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
)

func TestTwelvePoolsOfUnequalPGsAreEvenInBytes(t *testing.T) {
	placementtest.NeedTools(t)
	if racing && !thorough() {
		t.Skip("SKIPPED: too slow with the race detector; make test-fuzz runs it without")
	}
	seeds := uint64(1)
	if thorough() {
		seeds = 4
	}
	for seed := range seeds {
		c, bytes := placementtest.Twelve(seed)
		im := c.Image(t)
		cluster := read(t, im)
		cluster.PGs = map[osdmap.PG]placement.PGStat{}
		for pg, n := range bytes {
			cluster.PGs[pg] = placement.PGStat{Bytes: n}
		}
		pool := cluster.OSDs.Pool(12)
		pool.Profile, cluster.OSDs.Profiles = "p", map[string]map[string]string{"p": {"k": "4", "m": "2"}}
		plan, err := placement.PlanBalance(cluster, placement.BalanceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		moved, least := float64(plan.BytesMoved)/float64(plan.BytesTotal), float64(plan.BytesLowerBound)/float64(plan.BytesTotal)
		t.Logf("seed %d: usable %.2f %% -> %.2f %% (bound %.2f %%), %.2f %% of bytes moved (at least %.2f %%), %d moves (at least %d), %d pairs; %s",
			seed, plan.UsableBefore*100, plan.UsableAfter*100, plan.Bound*100, moved*100, least*100, plan.Moves, plan.MovesLowerBound, plan.UpmapPairs, plan.LimitedBy)
		if plan.UsableAfter < 0.995 || moved > least*1.03 {
			t.Errorf("seed %d: %+v", seed, plan.LimitedBy)
		}
		next := cluster
		next.OSDs = read(t, apply(im, plan.Upmaps)).OSDs
		next.OSDs.Pool(12).Profile, next.OSDs.Profiles = "p", cluster.OSDs.Profiles
		if again, err := placement.PlanBalance(next, placement.BalanceOptions{}); err != nil || again.Moves > 0 {
			t.Errorf("seed %d: %v, %d moves left after the plan", seed, err, again.Moves)
		}
	}
}
