package rebalance

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// journal keeps records in memory.
type journal struct {
	mu   sync.Mutex
	list []executor.Record
	stop func(executor.Record) error
}

func (j *journal) Append(r executor.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stop != nil {
		if err := j.stop(r); err != nil {
			return err
		}
	}
	j.list = append(j.list, r)
	return nil
}

func (j *journal) Records() []executor.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.list)
}

func osd(n int32) *int32 { return &n }

// adding is the request for a fourth host of osd.6 and osd.7.
func adding() *coordinatorv1.PlanRebalanceRequest {
	place := coordinatorv1.OSDChange_VERB_PLACE
	return &coordinatorv1.PlanRebalanceRequest{Changes: []*coordinatorv1.OSDChange{
		{Verb: place, Osd: osd(6), Host: "h4", Bytes: 2 << 40}, {Verb: place, Osd: osd(7), Host: "h4", Bytes: 1 << 40},
	}}
}

func planner(f *fakeCeph) *Planner {
	p := &Planner{}
	p.Connected(f)
	return p
}

func planned(t *testing.T, f *fakeCeph, r *coordinatorv1.PlanRebalanceRequest) plan.Plan {
	t.Helper()
	p, _, err := planner(f).Rebalance(t.Context(), r, 2)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func free() Throttle { return Throttle{} }

func run(t *testing.T, f *fakeCeph, p plan.Plan, j *journal, bounds func() Throttle) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*24*time.Hour)
	defer cancel()
	e := executor.Executor{Registry: Steps(f, bounds), Now: time.Now}
	return e.Run(ctx, p, j)
}

// reached fails unless the cluster is in the state that a plan leads to.
func reached(t *testing.T, f *fakeCeph, p plan.Plan) {
	t.Helper()
	_, now, err := Read(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	var want State
	if err := json.Unmarshal(p.State, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, now); diff != "" {
		t.Errorf("the cluster is not as the plan said (-plan +cluster):\n%s", diff)
	}
	if len(f.flags) > 0 {
		t.Errorf("flags are left: %v", f.flags)
	}
}

func TestAHostIsAddedAndAnotherDrainedAndRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		for i, r := range []*coordinatorv1.PlanRebalanceRequest{
			adding(),
			{Changes: []*coordinatorv1.OSDChange{{Verb: coordinatorv1.OSDChange_VERB_PLACE, Osd: osd(0), Bytes: 3 << 40}}},
			{Changes: []*coordinatorv1.OSDChange{{Verb: coordinatorv1.OSDChange_VERB_DRAIN, Host: "h3"}}},
			{Changes: []*coordinatorv1.OSDChange{{Verb: coordinatorv1.OSDChange_VERB_REMOVE, Host: "h3"}}},
		} {
			p := planned(t, f, r)
			if err := run(t, f, p, &journal{}, free); err != nil {
				t.Fatalf("change %d: %v", i, err)
			}
			reached(t, f, p)
		}
		if f.crush.BucketNamed("h3") != nil || f.crush.BucketNamed("h4") == nil || f.balancer {
			t.Errorf("h3 is there: %v, h4: %v, the balancer: %v", f.crush.BucketNamed("h3"), f.crush.BucketNamed("h4"), f.balancer)
		}
		if _, _, err := planner(f).Rebalance(t.Context(), &coordinatorv1.PlanRebalanceRequest{}, 2); !errors.Is(err, ErrNothing) {
			t.Errorf("after all changes: %v", err)
		}
	})
}

// TestAPlanGoesOnFromWhereverItWasEnded ends a run at each of its records in turn, and at each command for the cluster.
func TestAPlanGoesOnFromWhereverItWasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := planned(t, newFake(t), adding())
		gone := errors.New("the process is gone")
		for n := 0; ; n++ {
			f, j, records := newFake(t), &journal{}, 0
			j.stop = func(executor.Record) error {
				if records++; records > n {
					return gone
				}
				return nil
			}
			if err := run(t, f, p, j, free); err == nil {
				break
			}
			j.stop = nil
			if err := run(t, f, p, j, free); err != nil {
				t.Fatalf("ended at record %d: %v", n+1, err)
			}
			reached(t, f, p)
		}
		for n := 1; ; n++ {
			f, j, asked := newFake(t), &journal{}, 0
			f.fail = func(prefix string) error {
				if !changes(prefix) {
					return nil
				}
				if asked++; asked == n {
					return gone
				}
				return nil
			}
			err := run(t, f, p, j, free)
			if err == nil {
				break
			}
			if err := run(t, f, p, j, free); err != nil {
				t.Fatalf("ended at command %d: %v", n, err)
			}
			reached(t, f, p)
		}
	})
}

func TestAnElectionIsSatOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, n := newFake(t), 0
		p := planned(t, f, adding())
		f.fail = func(prefix string) error {
			if n++; n%4 == 0 && prefix != "pg stat" {
				return fault.New(fault.Unavailable, "an election")
			}
			return nil
		}
		if err := run(t, f, p, &journal{}, free); err != nil {
			t.Fatal(err)
		}
		f.fail = nil
		reached(t, f, p)
	})
}

func TestAStepStopsWhereSomebodyElseChangedTheMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := planned(t, f, adding())
		if err := f.crush.SetItemWeight(3, 5<<16); err != nil {
			t.Fatal(err)
		}
		if err := f.crush.Rebuild(); err != nil {
			t.Fatal(err)
		}
		if err := run(t, f, p, &journal{}, free); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "plan again") {
			t.Errorf("another CRUSH map: %v", err)
		}
		if f.count("osd setcrushmap")+f.count("osd pg-upmap-items") > 0 {
			t.Error("something was changed all the same")
		}
		f = newFake(t)
		p = planned(t, f, &coordinatorv1.PlanRebalanceRequest{})
		var w Wave
		if err := json.Unmarshal(p.Steps[0].Args, &w); err != nil {
			t.Fatal(err)
		}
		ids := []int32{w.Upmaps[0].To[0][0], 6}
		if _, err := f.Mon(t.Context(), map[string]any{"prefix": "osd pg-upmap-items", "pgid": w.Upmaps[0].PG, "id": ids}, nil); err != nil {
			t.Fatal(err)
		}
		if err := run(t, f, p, &journal{}, free); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "somebody else") {
			t.Errorf("another upmap: %v", err)
		}
	})
}

func TestWhatCannotBeChanged(t *testing.T) {
	f := newFake(t)
	drain := coordinatorv1.OSDChange_VERB_DRAIN
	for text, change := range map[string]*coordinatorv1.OSDChange{
		"there is no osd.9":    {Verb: drain, Osd: osd(9)},
		`no host "h9"`:         {Verb: drain, Host: "h9"},
		"which OSD":            {Verb: coordinatorv1.OSDChange_VERB_PLACE, Host: "h1"},
		"is none":              {Host: "h1"},
		"below no host yet":    {Verb: coordinatorv1.OSDChange_VERB_PLACE, Osd: osd(6)},
		"drain it before":      {Verb: coordinatorv1.OSDChange_VERB_PLACE, Osd: osd(0), Host: "h2"},
		"holds other buckets":  {Verb: drain, Host: "default"},
		"is no host in the CR": {Verb: coordinatorv1.OSDChange_VERB_PLACE, Osd: osd(6), Host: "default"},
	} {
		_, _, err := planner(f).Rebalance(t.Context(), &coordinatorv1.PlanRebalanceRequest{Changes: []*coordinatorv1.OSDChange{change}}, 2)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v, want %q", change, err, text)
		}
	}
}

func TestTroubleIsTold(t *testing.T) {
	f := newFake(t)
	for want, set := range map[string]func(){
		"":                       func() {},
		"HEALTH_ERR: PG_DAMAGED": func() { f.status, f.checks = "HEALTH_ERR", map[string]any{"PG_DAMAGED": 1} },
		"OSD_NEARFULL":           func() { f.status, f.checks = "HEALTH_WARN", map[string]any{"OSD_NEARFULL": 1, "MON_CLOCK_SKEW": 1} },
		"40 objects lack copies": func() { f.degraded, f.lacking = 40, 0.02 },
	} {
		f.status, f.checks, f.degraded = "HEALTH_OK", map[string]any{}, 0
		set()
		if why, err := Trouble(t.Context(), f, 0); err != nil || why != want {
			t.Errorf("got %q, %v, want %q", why, err, want)
		}
	}
	f.status, f.checks, f.degraded, f.lacking = "HEALTH_WARN", map[string]any{}, 40, 0.02
	if why, err := Trouble(t.Context(), f, 0.03); err != nil || why != "" {
		t.Errorf("within policy: %q, %v", why, err)
	}
}

func TestTheThrottleIsKept(t *testing.T) {
	for name, each := range map[string]struct {
		bounds Throttle
		least  func(p plan.Plan) time.Duration
	}{
		"bytes":                  {Throttle{Bytes: 64 << 10}, func(p plan.Plan) time.Duration { return time.Duration(p.Sync/(64<<10)) * time.Second }},
		"one backfill at a time": {Throttle{Backfills: 1}, func(plan.Plan) time.Duration { return 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				p := planned(t, f, &coordinatorv1.PlanRebalanceRequest{})
				start := time.Now()
				if err := run(t, f, p, &journal{}, func() Throttle { return each.bounds }); err != nil {
					t.Fatal(err)
				}
				reached(t, f, p)
				if took := time.Since(start); took < each.least(p) {
					t.Errorf("%v for %s in %d steps: at least %v were to be", took, p.Sync, len(p.Steps), each.least(p))
				}
				if most := each.bounds.Backfills; most > 0 && f.crowd > most {
					t.Errorf("%d PGs moved to or from an OSD at a time, and %d were to", f.crowd, most)
				}
			})
		})
	}
}

func TestNothingMovesWhileCommitsAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.latency = 80
		p := planned(t, f, &coordinatorv1.PlanRebalanceRequest{})
		done := make(chan error)
		go func() {
			done <- run(t, f, p, &journal{}, func() Throttle { return Throttle{Latency: 30 * time.Millisecond} })
		}()
		time.Sleep(time.Hour)
		if n := f.count("osd pg-upmap-items"); n > 0 {
			t.Errorf("%d upmaps were set", n)
		}
		f.mu.Lock()
		f.latency = 10
		f.mu.Unlock()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		reached(t, f, p)
	})
}
