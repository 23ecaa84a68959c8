package rebalance

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// waveOf is the first step of a plan that balances, and its bytes by the number of upmaps that are set.
func waveOf(t *testing.T, f *fakeCeph) (step plan.Step, bytes []storage.Bytes) {
	t.Helper()
	p, _, err := planner(f).Rebalance(t.Context(), &coordinatorv1.PlanRebalanceRequest{}, 8)
	if err != nil {
		t.Fatal(err)
	}
	var w Wave
	if err := json.Unmarshal(p.Steps[0].Args, &w); err != nil || len(w.Upmaps) < 3 {
		t.Fatalf("%v: %+v", err, w)
	}
	bytes = []storage.Bytes{0}
	for _, u := range w.Upmaps {
		bytes = append(bytes, bytes[len(bytes)-1]+u.Bytes)
	}
	return p.Steps[0], bytes
}

// TestOneBackfillAtATimeHoldsForTheNextLeader ends a wave once its first PG moves, which takes long.
func TestOneBackfillAtATimeHoldsForTheNextLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.slow = 20
		step, _ := waveOf(t, f)
		do := func(ctx context.Context) error {
			made, err := Steps(f, func() Throttle { return Throttle{Backfills: 1} })[KindWave](step, func(executor.Progress) {})
			if err != nil {
				return err
			}
			return made.Do(ctx)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err := do(t.Context()); err != nil || f.crowd > 1 {
			t.Errorf("%v: %d PGs moved to or from an OSD at a time", err, f.crowd)
		}
	})
}

func TestNoMoreIsLetMoveOnceThereIsTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		step, bytes := waveOf(t, f)
		made, err := Steps(f, func() Throttle { return Throttle{Bytes: bytes[1] / 60} })[KindWave](step, func(executor.Progress) {})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- made.Do(t.Context()) }()
		tell := func(status string) (set int) {
			f.mu.Lock()
			f.status = status
			f.mu.Unlock()
			return f.count("osd pg-upmap-items")
		}
		time.Sleep(30 * time.Second)
		set := tell("HEALTH_ERR")
		time.Sleep(24 * time.Hour)
		if now := tell("HEALTH_OK"); set == 0 || now != set {
			t.Errorf("%d upmaps were set, and %d after a day of trouble", set, now)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestProgressTellsOfWhatWasLetMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		step, bytes := waveOf(t, f)
		var last executor.Progress
		made, err := Steps(f, func() Throttle { return Throttle{Bytes: bytes[1] / 60} })[KindWave](step, func(p executor.Progress) {
			if set := f.count("osd pg-upmap-items"); p.Done < last.Done || p.Done > bytes[set] {
				t.Errorf("%s is told, %s before, and %d upmaps of %s are set", p.Done, last.Done, set, bytes[set])
			}
			last = p
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := made.Do(t.Context()); err != nil || last.Done != step.Sync || last.Total != step.Sync {
			t.Errorf("%v: %+v at the end", err, last)
		}
	})
}

// TestStepsReportWhileTheyWork: who hears nothing for a minute takes the work away.
func TestStepsReportWhileTheyWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := planned(t, f, adding())
		last, start, longest := time.Now(), time.Now(), time.Duration(0)
		f.fail = func(prefix string) error {
			switch {
			case prefix == "osd pg-upmap-items" && len(f.upmaps) == 5 && start.IsZero():
				start = time.Now()
			case prefix == "osd pg-upmap-items":
				time.Sleep(5 * time.Second) // paxos is slow
			}
			if !start.IsZero() && time.Since(start) < 90*time.Second {
				return fault.New(fault.Unavailable, "an election")
			}
			return nil
		}
		start = time.Time{}
		j := &journal{stop: func(executor.Record) error {
			longest = max(longest, time.Since(last))
			last = time.Now()
			return nil
		}}
		if err := run(t, f, p, j, free); err != nil {
			t.Fatal(err)
		}
		if longest > 30*time.Second {
			t.Errorf("nothing was told for %v", longest)
		}
	})
}

func TestAWaveEndsWhereSomebodyElseChangedTheWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := planned(t, f, &coordinatorv1.PlanRebalanceRequest{})
		change := func(how func() error) {
			if err := errors.Join(how(), f.crush.Rebuild()); err != nil {
				t.Fatal(err)
			}
		}
		change(func() error { // OSDs without weight come by themselves
			f.crush.AddDevice(crush.Device{ID: 6, Name: "osd.6"}, f.crush.BucketNamed("h1"), 0)
			return nil
		})
		if why, err := planner(f).Stale(t.Context(), p); why != "" || err != nil {
			t.Errorf("an OSD without weight: %q, %v", why, err)
		}
		delete(f.weight, 7) // it is in no bucket
		if why, err := planner(f).Stale(t.Context(), p); why != "" || err != nil {
			t.Errorf("an OSD that was released is purged: %q, %v", why, err)
		}
		change(func() error { return f.crush.SetItemWeight(3, 5<<16) })
		if why, err := planner(f).Stale(t.Context(), p); !strings.Contains(why, "CRUSH map") || err != nil {
			t.Errorf("another weight: %q, %v", why, err)
		}
		if err := run(t, f, p, &journal{}, free); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "plan again") || f.count("osd pg-upmap-items") > 0 {
			t.Errorf("another weight: %v", err)
		}
	})
}
