package rebalance

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
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

func TestAPlanIsMadeAnewForWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		r := adding()
		r.Changes = append(r.Changes, &coordinatorv1.OSDChange{Verb: coordinatorv1.OSDChange_VERB_DRAIN, Host: "h3"})
		p := planned(t, f, r)
		if why, err := planner(f).Stale(t.Context(), p); why != "" || err != nil {
			t.Fatalf("%q, %v", why, err)
		}
		stop := errors.New("stop")
		j := &journal{stop: func(r executor.Record) error {
			if r.Step == 2 {
				return stop
			}
			return nil
		}}
		if err := run(t, f, p, j, free); !errors.Is(err, stop) {
			t.Fatal(err)
		}
		f.outOSD(2)
		if why, err := planner(f).Stale(t.Context(), p); !strings.Contains(why, "osd.2") || err != nil {
			t.Fatalf("%q, %v", why, err)
		}
		next, state, err := planner(f).Again(t.Context(), p, j.Records(), 2)
		if err != nil || next == nil {
			t.Fatalf("%v, %v", next, err)
		}
		if hash, err := plan.Hash(state); err != nil || hash != next.Parent {
			t.Errorf("the state is not the one that the plan was made from: %v", err)
		}
		if err := run(t, f, *next, &journal{}, free); err != nil {
			t.Fatal(err)
		}
		reached(t, f, *next)
		for _, osd := range []crush.ItemID{4, 5} {
			if w := weightOf(f.crush, osd); w != 0 {
				t.Errorf("osd.%d, which was to be drained, weighs %d", osd, w)
			}
		}
		if w := weightOf(f.crush, 6); w != 2*crush.One {
			t.Errorf("osd.6 weighs %d", w)
		}
	})
}

// outOSD is an OSD that failed, and whose data was made anew elsewhere; monitors cancel upmaps that lead to it.
func (f *fakeCeph) outOSD(osd int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.weight[osd] = 0
	for pg, pairs := range f.upmaps {
		if slices.ContainsFunc(pairs, func(p osdmap.Pair) bool { return p.To == crush.ItemID(osd) }) {
			delete(f.upmaps, pg)
		}
	}
}

// changes reports whether a command changes the CRUSH map, upmaps or flags.
func changes(prefix string) bool {
	return strings.HasPrefix(prefix, "osd pg-upmap") || strings.HasPrefix(prefix, "osd set") || prefix == "osd unset"
}

// TestMovementIsLetGoWherePlansAreMadeAnew ends a plan at each of its commands in turn, and plans what is left anew as an OSD is out.
func TestMovementIsLetGoWherePlansAreMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := planned(t, newFake(t), adding())
		for n := 1; ; n++ {
			f, j, asked := newFake(t), &journal{}, 0
			ctx, cancel := context.WithCancel(t.Context())
			f.fail = func(prefix string) error {
				if changes(prefix) {
					asked++
				}
				if asked >= n {
					cancel()
					return ctx.Err()
				}
				return nil
			}
			e := executor.Executor{Registry: Steps(f, free), Now: time.Now}
			err := e.Run(ctx, p, j)
			cancel()
			if f.fail = nil; err == nil {
				break
			}
			f.outOSD(2)
			next, _, err := planner(f).Again(t.Context(), p, j.Records(), 2)
			if err != nil {
				t.Fatalf("ended at command %d: %v", n, err)
			}
			if len(f.flags) > 0 {
				t.Fatalf("ended at command %d: %v is left", n, f.flags)
			}
			if next == nil {
				continue
			}
			if err := run(t, f, *next, &journal{}, free); err != nil {
				t.Fatalf("ended at command %d: %v", n, err)
			}
			reached(t, f, *next)
		}
	})
}

func TestAChangeThatFailsLetsMovementGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := planned(t, f, adding())
		f.fail = func(prefix string) error {
			if prefix == "osd setcrushmap" {
				return fault.New(fault.Denied, "no")
			}
			return nil
		}
		if err := run(t, f, p, &journal{}, free); !errors.Is(err, fault.Denied) || len(f.flags) > 0 {
			t.Errorf("the map is the one before: %v, flags %v", err, f.flags)
		}
		f.fail = func(prefix string) error {
			if prefix == "osd pg-upmap-items" {
				return fault.New(fault.Denied, "no")
			}
			return nil
		}
		if err := run(t, f, p, &journal{}, free); !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), "norebalance is set") {
			t.Errorf("the map is another: %v, flags %v", err, f.flags)
		}
	})
}

func TestAWaveSaysThatNothingMayMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := planned(t, f, &coordinatorv1.PlanRebalanceRequest{})
		f.flags[holding] = true
		if _, _, err := planner(f).Rebalance(t.Context(), adding(), 2); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "norebalance") {
			t.Errorf("before a plan: %v", err)
		}
		if err := run(t, f, p, &journal{}, free); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "norebalance") || f.count("osd pg-upmap-items") > 0 {
			t.Errorf("before it: %v", err)
		}
		delete(f.flags, holding)
		f.fail = func(prefix string) error {
			if prefix == "osd pg-upmap-items" {
				f.flags[holding] = true
			}
			return nil
		}
		if err := run(t, f, p, &journal{}, free); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "norebalance") {
			t.Errorf("in it: %v", err)
		}
		delete(f.flags, holding)
		before := f.count("osd pg-upmap-items")
		if err := run(t, f, p, &journal{}, func() Throttle { return Throttle{Bytes: fakeBytes / 60} }); !errors.Is(err, fault.Precondition) || f.count("osd pg-upmap-items") > before+1 {
			t.Errorf("in one that is throttled: %v, after %d upmaps", err, f.count("osd pg-upmap-items")-before)
		}
		f.fail = nil
		delete(f.flags, holding)
		if err := run(t, f, p, &journal{}, free); err != nil {
			t.Fatal(err)
		}
		reached(t, f, p)
	})
}

// TestALeaderThatStoodStillPutsNothingBack lets another leader end the change, and the next wave, while the first one sets upmaps.
func TestALeaderThatStoodStillPutsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := planned(t, f, adding())
		n := 0
		f.fail = func(prefix string) error {
			if n++; prefix == "osd pg-upmap-items" {
				f.fail = nil
				f.mu.Unlock()
				defer f.mu.Lock()
				time.Sleep(time.Minute)
				if err := run(t, f, p, &journal{}, free); err != nil {
					t.Error(err)
				}
				return fault.New(fault.Unavailable, "an election")
			}
			return nil
		}
		if err := run(t, f, p, &journal{}, free); !errors.Is(err, fault.Precondition) {
			t.Errorf("the first leader: %v", err)
		}
		reached(t, f, p)
	})
}

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

func TestAPlanIsMadeAnewAsItWasAskedFor(t *testing.T) {
	f := newFake(t)
	p, _, err := planner(f).Rebalance(t.Context(), &coordinatorv1.PlanRebalanceRequest{PreferPairs: true, WaveBackfills: 1, WaveBytes: 3 * fakeBytes}, 1)
	if err != nil {
		t.Fatal(err)
	}
	f.outOSD(2)
	next, _, err := planner(f).Again(t.Context(), p, nil, 32)
	if err != nil || next == nil {
		t.Fatalf("%v, %v", next, err)
	}
	for _, step := range next.Steps {
		var w Wave
		if err := json.Unmarshal(step.Args, &w); err != nil || w.How != (How{placement.PreferPairs, 1, 3 * fakeBytes}) {
			t.Errorf("%v: %+v", err, w.How)
		}
		count := map[int32]int{}
		for _, u := range w.Upmaps {
			for _, osd := range touched(u) {
				if count[osd]++; count[osd] > 1 {
					t.Errorf("%s: %d PGs at osd.%d", step.What, count[osd], osd)
				}
			}
		}
	}
}

func TestTheBalanceIsLookedAtByTheLeaderNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := planner(f)
		ctx, cancel := context.WithCancel(t.Context())
		var leads atomic.Bool
		leads.Store(true)
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.Guard(ctx, leads.Load)
		}()
		time.Sleep(time.Hour)
		if _, bound, at := p.Balance(); at.IsZero() || bound == 0 || f.count("pg dump") > 10 {
			t.Errorf("looked at %d times in an hour: at best %v, at %v", f.count("pg dump"), bound, at)
		}
		leads.Store(false)
		time.Sleep(time.Minute)
		if _, _, at := p.Balance(); !at.IsZero() {
			t.Error("one that leads no more tells of it still")
		}
		cancel()
		<-done
	})
}

func TestAPlanSaysWhichClassItGivesToOSDsOfNone(t *testing.T) {
	f := newFake(t)
	m, err := crush.Parse([]byte(regexp.MustCompile(`device (\d) osd.\d`).ReplaceAllString(text, "$0 class hdd")))
	if err != nil {
		t.Fatal(err)
	}
	f.crush = m
	if what := planned(t, f, adding()).Steps[0].What; !strings.Contains(what, "put osd.6 below host h4 as one of class hdd") {
		t.Error(what)
	}
}
