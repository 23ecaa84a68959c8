package rebalance

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

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
