package placement_test

import (
	"syscall"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/placement"
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
