package uml_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

// TestMixesOfDisks makes stacks of random disks, grows them in random ways and reads their capacities back from md and LVM.
func TestMixesOfDisks(t *testing.T) {
	mixes := 1
	if all() {
		mixes = 50
	}
	random := seed(t)
	for n := range mixes {
		drawn := random.Uint64()
		t.Run(fmt.Sprintf("%d", n), func(t *testing.T) {
			b := newBench(t)
			b.job.Rate = 20
			b.mix(rand.New(rand.NewPCG(drawn, 0)))
			b.boot(layoutrun.Kill{})
			b.holds()
		})
	}
}

// most is how many disks a guest has.
const most = 8

// mix plans a stack and one or two changes, whatever the draws allow.
func (b *bench) mix(random *rand.Rand) {
	b.t.Helper()
	p := []layout.Policy{{Tolerance: 1}, {Tolerance: 1}, {Tolerance: 2}, {Tolerance: 2, ThreeWayMirror: true}}[random.IntN(4)]
	some := func(n int) []layout.Disk {
		var list []layout.Disk
		for range n {
			d := b.disk(192 + 64*random.IntN(6))
			d.Zeroed = random.IntN(3) > 0 // new files are
			list = append(list, d)
		}
		return list
	}
	first := 1 + random.IntN(4)
	if p.Tolerance == 2 {
		first = 4
	}
	b.create(p, "ext4", some(first)...)
	for range 2 {
		left := most - len(b.machine.Disks)
		if left < 1 {
			break
		}
		before := len(b.machine.Disks)
		change := layout.Change{Add: some(1 + random.IntN(min(left, 2)))}
		if random.IntN(2) == 0 {
			old := b.stack.Layout.Disks[random.IntN(len(b.stack.Layout.Disks))]
			change = layout.Change{Replace: []layout.Replacement{{Old: old.ID, New: change.Add[0]}}}
		}
		s, made, err := b.stack.Grow(change, rate)
		switch {
		case errors.Is(err, fault.Precondition) || errors.Is(err, fault.Invalid):
			b.t.Logf("refused: %v", err)
			b.machine.Disks = b.machine.Disks[:before]
		case err != nil:
			b.t.Fatal(err)
		default:
			b.take(s, made)
		}
	}
	for _, made := range b.plans {
		b.t.Logf("%s: %d steps, %d passes", made.What, len(made.Steps), made.Passes)
	}
}

// TestOneReshapeAgainstDiskByDisk says how long two disks take together and one after the other.
func TestOneReshapeAgainstDiskByDisk(t *testing.T) {
	slow(t)
	took := func(changes ...int) float64 {
		b := loneBench(t)
		b.job.Rate = 0 // measure md alone
		b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(1024), b.disk(1024))
		for _, n := range changes {
			var list []layout.Disk
			for range n {
				list = append(list, b.disk(1024))
			}
			b.grow(layout.Change{Add: list})
		}
		b.boot(layoutrun.Kill{})
		var sum float64
		for _, seconds := range b.holds().Took[1:] {
			sum += seconds
		}
		return sum
	}
	together, apart := took(2), took(1, 1)
	t.Logf("two disks in one reshape %.1f s, one after the other %.1f s: %.2f of the time", together, apart, together/apart)
}

// TestTwoDisksMayBeLost takes a stack for two losses from four disks to six, one of them larger.
func TestTwoDisksMayBeLost(t *testing.T) {
	slow(t)
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 2, ThreeWayMirror: true}, "xfs", b.disk(320), b.disk(320), b.disk(448), b.disk(448))
	old := b.stack.Layout.Disks[0].ID
	b.grow(layout.Change{Add: []layout.Disk{b.disk(448), b.disk(448)}})
	b.grow(layout.Change{Replace: []layout.Replacement{{Old: old, New: b.disk(448)}}})
	if b.stack.Layout.Survives() != 2 || b.plans[2].Redundancy != 2 {
		t.Fatalf("it survives %d, during the replacement %d", b.stack.Layout.Survives(), b.plans[2].Redundancy)
	}
	if b.step(1, string(stack.KindReshape)).Plan == "" {
		t.Fatal("nothing is reshaped")
	}
	b.boot(layoutrun.Kill{})
	b.holds()
}
