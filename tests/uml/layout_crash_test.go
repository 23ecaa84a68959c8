package uml_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

// seed is what a test draws by: HOLDFAST_LAYOUT_SEED, or another one each time. It is printed, so a run can be repeated.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := uint64(time.Now().UnixNano()) % 1e6
	if text := os.Getenv("HOLDFAST_LAYOUT_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("HOLDFAST_LAYOUT_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// all reports whether everything is to be tried (make test-layouts), not only a few draws.
func all() bool { return os.Getenv("HOLDFAST_LAYOUTS") == "all" }

// slow skips a test unless everything is to be tried.
func slow(t *testing.T) {
	t.Helper()
	if !all() {
		t.Skip("it takes minutes: make test-layouts runs it")
	}
}

// mirrorThenFour is a mirror of two disks that two more join: the plan with every kind of step but a replacement.
func mirrorThenFour(b *bench) {
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(256), b.disk(256))
	b.grow(layout.Change{Add: []layout.Disk{b.disk(320), b.disk(320)}})
}

// step finds the first step of a kind in a plan.
func (b *bench) step(plan int, kind string) layoutrun.Kill {
	b.t.Helper()
	for i, s := range b.plans[plan].Steps {
		if string(s.Kind) == kind {
			return layoutrun.Kill{Plan: string(b.plans[plan].ID), Step: i}
		}
	}
	b.t.Fatalf("plan %d has no step %s", plan, kind)
	return layoutrun.Kill{}
}

// TestAReshapeIsCrashedAndGoesOn kills the machine at points drawn uniformly over a reshape.
func TestAReshapeIsCrashedAndGoesOn(t *testing.T) {
	random := seed(t)
	b := newBench(t)
	mirrorThenFour(b)
	b.job.Limit = 12 * storage.MiB // so that there is time to be killed in
	kill := b.step(1, string(stack.KindReshape))
	kills := 1
	if all() {
		kills = 20
	}
	for n := range kills {
		// Draws over what the draws before have left.
		left := 1 - kill.Fraction
		kill.Fraction += left * random.Float64() / float64(kills-n) * 1.5
		if kill.Fraction >= 0.97 {
			break
		}
		// md tells of its progress in sixteenths: the rest is drawn as time.
		b.delay = time.Duration(random.IntN(700)) * time.Millisecond
		if died := b.boot(kill); died != "" {
			t.Logf("killed: %s and %s later (asked for %.3f)", died, b.delay, kill.Fraction)
		} else {
			t.Logf("md was through before %.3f", kill.Fraction)
			break
		}
	}
	b.job.Limit, b.delay = 0, 0
	b.boot(layoutrun.Kill{})
	b.holds()
}

// TestEveryJournalWriteMayBeTheLast kills the machine before or after writes to the journal, drawn at random; when
// everything is to be tried, at each of them in turn.
func TestEveryJournalWriteMayBeTheLast(t *testing.T) {
	random := seed(t)
	b := newBench(t)
	mirrorThenFour(b)
	kills, verified, stuck := 0, 0, 0
	for boots := 3; all() || boots > 0; boots-- {
		kill := layoutrun.Kill{Append: 1 + random.IntN(24), Before: random.IntN(2) == 0}
		if all() {
			// A boot that dies before its first write gets no further: it dies before the second, and after the first.
			// Nor does one whose first write says again that a step begins, as while md syncs after the crash: such a boot may write more and more.
			kill.Append, kill.Before = 1+stuck/4, false
			if random.IntN(2) == 0 {
				kill.Append, kill.Before = 2+stuck/4, true
			}
		}
		died := b.boot(kill)
		if died == "" {
			break
		}
		kills++
		if now := b.verified(); now > verified {
			verified, stuck = now, 0
		} else {
			stuck++
		}
		t.Logf("killed: %s, before it: %t", died, kill.Before)
	}
	b.boot(layoutrun.Kill{})
	b.holds()
	t.Logf("%d kills", kills)
}

// verified is how many steps the journals say are done for good.
func (b *bench) verified() (n int) {
	b.t.Helper()
	entries, err := journal.List(filepath.Join(b.dir, "journals"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		steps, _ := executor.Reached(e.Records)
		n += steps
	}
	return n
}
