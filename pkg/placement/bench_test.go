package placement_test

import (
	"maps"
	"slices"
	"syscall"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
)

// cpu is the CPU time that this process has taken, in seconds.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// BenchmarkBalance plans the cases that balancers are compared on, in turn with osdmaptool,
// which the large ones would take for hours. What is usable, and how many shards move, is
// read from osdmaptool's own mappings in both.
func BenchmarkBalance(b *testing.B) {
	placementtest.NeedTools(b)
	for _, c := range placementtest.Cases() {
		b.Run(c.Name, func(b *testing.B) { benchmark(b, c, true) })
	}
	for _, c := range placementtest.LargeCases() {
		b.Run(c.Name, func(b *testing.B) { benchmark(b, c, false) })
	}
}

func benchmark(b *testing.B, c placementtest.Case, peer bool) {
	im := c.Image(b)
	cluster := read(b, im)
	file := im.Write(b)
	var plan *placement.Balance
	var own, its float64
	var commands []string
	for b.Loop() {
		start := cpu()
		var err error
		if plan, err = placement.PlanBalance(cluster, placement.BalanceOptions{}); err != nil {
			b.Fatal(err)
		}
		own = cpu() - start
		if peer {
			commands, its = placementtest.Balance(b, file)
		}
	}
	before := placementtest.Mappings(b, file)
	usable, moves := judge(b, c.Hosts, im, before, placementtest.Mappings(b, apply(im, plan.Upmaps).Write(b)))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(own, "CPU-s")
	b.ReportMetric(usable*100, "usable-%")
	b.ReportMetric(plan.Bound*100, "bound-%")
	b.ReportMetric(float64(moves), "moves")
	b.ReportMetric(float64(plan.MovesLowerBound), "least-moves")
	if !peer {
		return
	}
	usable, moves = judge(b, c.Hosts, im, before, placementtest.Mappings(b, im.Carry(b, commands).Write(b)))
	b.ReportMetric(its, "osdmaptool-CPU-s")
	b.ReportMetric(usable*100, "osdmaptool-usable-%")
	b.ReportMetric(float64(moves), "osdmaptool-moves")
}

// BenchmarkChange plans changes of the balanced case B, in turn with what people do without:
// CRUSH moves what it wants, and osdmaptool evens out. Moves are read from osdmaptool's own
// mappings in both, pairs counted in the upmaps of both.
func BenchmarkChange(b *testing.B) {
	placementtest.NeedTools(b)
	im, before := balanced(b)
	was := placementtest.Mappings(b, im.Write(b))
	for _, name := range slices.Sorted(maps.Keys(changesOfB)) {
		edit := before.Edit("")
		if err := changesOfB[name](edit); err != nil {
			b.Fatal(err)
		}
		cluster, err := edit.Cluster()
		if err != nil {
			b.Fatal(err)
		}
		changed := after(b, im, cluster)
		// Monitors cancel upmaps that have lost their OSDs before anyone balances.
		changed = changed.Carry(b, placementtest.Cleanup(b, changed.Write(b)))
		commands, _ := placementtest.Balance(b, changed.Write(b))
		peer := changed.Carry(b, commands)
		pairs := 0
		for _, items := range peer.Items {
			pairs += len(items)
		}
		moves := movesBetween(was, placementtest.Mappings(b, peer.Write(b)))
		for _, prefer := range []placement.Prefer{placement.PreferBytes, placement.PreferPairs} {
			b.Run(name+", sparing "+string(prefer), func(b *testing.B) {
				var c *placement.Change
				for b.Loop() {
					if c, err = placement.PlanChange(before, cluster, prefer); err != nil {
						b.Fatal(err)
					}
				}
				own := movesBetween(was, placementtest.Mappings(b, apply(after(b, im, cluster), c.Upmaps).Write(b)))
				b.ReportMetric(0, "ns/op")
				for unit, value := range map[string]float64{
					"moves": float64(own), "least-moves": float64(c.MovesLowerBound), "pairs": float64(c.UpmapPairs), "usable-%": c.UsableAfter * 100, "bound-%": c.Bound * 100,
					"osdmaptool-moves": float64(moves), "osdmaptool-pairs": float64(pairs), "pairs-to-osdmaptool's": float64(c.UpmapPairs) / float64(pairs),
				} {
					b.ReportMetric(value, unit)
				}
				if prefer == placement.PreferPairs && float64(c.UpmapPairs) > 1.25*float64(pairs) || prefer == placement.PreferBytes && float64(own) > 1.01*float64(c.MovesLowerBound) {
					b.Errorf("%s, sparing %s: %d pairs against %d of osdmaptool, %d moves of at least %d", name, prefer, c.UpmapPairs, pairs, own, c.MovesLowerBound)
				}
			})
		}
	}
}

// movesBetween counts shards of replicated PGs that are on another OSD.
func movesBetween(was, is map[osdmap.PG]osdmap.Mapping) (moves int) {
	for pg, m := range is {
		for _, o := range m.Up {
			if !slices.Contains(was[pg].Up, o) {
				moves++
			}
		}
	}
	return moves
}
