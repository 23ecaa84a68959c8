package executor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// errKilled ends a run as a crash would: nothing is written after it.
var errKilled = errors.New("killed")

// world is what the fake steps work on: each has two halves, which are done one after the other.
type world struct {
	halves  []int // of each step: 0 to 2
	did     []int // how often a half of the step was done
	budget  int   // actions before the next kill
	endless bool
}

// act is one thing that may be the last.
func (w *world) act() error {
	if w.endless {
		return nil
	}
	if w.budget == 0 {
		return errKilled
	}
	w.budget--
	return nil
}

// memory is a journal that outlives its run.
type memory struct {
	*world
	records []executor.Record
}

// Append dies before the write or after it.
func (m *memory) Append(r executor.Record) error {
	if err := m.act(); err != nil {
		return err
	}
	m.records = append(m.records, r)
	return m.act()
}

func (m *memory) Records() []executor.Record { return append([]executor.Record(nil), m.records...) }

// half is a fake step: index i of the world.
type half struct {
	*world
	i      int
	report func(executor.Progress)
}

func (h half) Check(context.Context) (executor.State, error) {
	for before := range h.i {
		if h.halves[before] != 2 {
			return executor.Todo, fault.New(fault.Precondition, "step %d begins before step %d is done", h.i, before)
		}
	}
	return []executor.State{executor.Todo, executor.Begun, executor.Done}[h.halves[h.i]], h.act()
}

func (h half) Do(context.Context) error {
	for h.halves[h.i] < 2 {
		if err := h.act(); err != nil {
			return err
		}
		h.halves[h.i]++
		h.did[h.i]++
		h.report(executor.Progress{Done: storage.Bytes(h.halves[h.i]), Total: 2})
	}
	return h.act()
}

func (h half) Verify(context.Context) error {
	if h.halves[h.i] != 2 {
		return fault.New(fault.Precondition, "step %d is not done", h.i)
	}
	return h.act()
}

const steps = 4

func fakePlan(t *testing.T) plan.Plan {
	t.Helper()
	var p plan.Plan
	for i := range steps {
		p.Steps = append(p.Steps, plan.Step{Kind: plan.Kind(fmt.Sprint(i)), What: "half", Sync: 100, Passes: 1, Forecast: 10})
	}
	p, err := p.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) executor() *executor.Executor {
	registry := executor.Registry{}
	for i := range steps {
		registry[plan.Kind(fmt.Sprint(i))] = func(_ plan.Step, report func(executor.Progress)) (executor.Step, error) {
			return half{w, i, report}, nil
		}
	}
	now := time.Unix(1e9, 0)
	return &executor.Executor{Registry: registry, Now: func() time.Time { now = now.Add(time.Second); return now }}
}

func newWorld() *world {
	return &world{halves: make([]int, steps), did: make([]int, steps), endless: true}
}

func TestAPlanIsNotBegunWhoseEndNobodyKnowsToDo(t *testing.T) {
	w := newWorld()
	e := w.executor()
	delete(e.Registry, plan.Kind(fmt.Sprint(steps-1)))
	j := &memory{world: w}
	if err := e.Run(t.Context(), fakePlan(t), j); !errors.Is(err, fault.Unsupported) || w.did[0] != 0 || len(j.records) != 0 {
		t.Errorf("%v; done: %v, journal: %v", err, w.did, j.records)
	}
}

func TestARunRestsBeforeAStepOfAnother(t *testing.T) {
	w := newWorld()
	e := w.executor()
	delete(e.Registry, "2")
	p := fakePlan(t)
	p.Steps[2].Executor = "another"
	p, err := p.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	j := &memory{world: w}
	if err := e.Run(t.Context(), p, j); !errors.Is(err, executor.ErrPaused) || !slices.Equal(w.halves, []int{2, 2, 0, 0}) {
		t.Fatalf("%v; done: %v", err, w.halves)
	}
	if s := executor.StatusOf(p, j.records); s.Phase != executor.Held || s.Step != 2 {
		t.Errorf("%+v", s)
	}
}

func TestARunMayBeKilledAtEveryPoint(t *testing.T) {
	p := fakePlan(t)
	for first := range 200 {
		w := newWorld()
		j := &memory{world: w}
		w.endless, w.budget = false, first
		err := w.executor().Run(t.Context(), p, j)
		if err == nil {
			t.Logf("a whole run has %d points", first)
			return
		}
		if !errors.Is(err, errKilled) {
			t.Fatalf("killed at %d: %v", first, err)
		}
		w.endless = true
		if err := w.executor().Run(t.Context(), p, j); err != nil {
			t.Fatalf("killed at %d, then: %v", first, err)
		}
		for i := range steps {
			if w.halves[i] != 2 || w.did[i] != 2 {
				t.Fatalf("killed at %d: step %d is at %d after %d halves", first, i, w.halves[i], w.did[i])
			}
		}
	}
	t.Fatal("it never came to an end")
}

func TestARunThatIsKilledAgainAndAgainComesToItsEnd(t *testing.T) {
	p := fakePlan(t)
	for budget := 4; budget < 12; budget++ { // fewer than four points do not take a run past its first record
		w := newWorld()
		j := &memory{world: w}
		w.endless = false
		for runs := 0; ; runs++ {
			if runs > 100 {
				t.Fatalf("%d points a run: it never comes to its end", budget)
			}
			w.budget = budget
			if err := w.executor().Run(t.Context(), p, j); err == nil {
				break
			}
		}
	}
}

func TestItStopsWhereThePreconditionDoesNotHold(t *testing.T) {
	w := newWorld()
	j := &memory{world: w}
	e := w.executor()
	e.Registry["2"] = func(plan.Step, func(executor.Progress)) (executor.Step, error) {
		return refusing{}, nil
	}
	p := fakePlan(t)
	err := e.Run(t.Context(), p, j)
	if !errors.Is(err, fault.Precondition) || w.halves[3] != 0 {
		t.Fatalf("%v, %v", err, w.halves)
	}
	s := executor.StatusOf(p, j.records)
	if s.Phase != executor.Failed || s.Step != 2 || !strings.Contains(s.Error, "another disk") {
		t.Fatalf("%+v", s)
	}
	if err := w.executor().Run(t.Context(), p, j); err != nil { // the world was put right
		t.Fatal(err)
	}
	if s := executor.StatusOf(p, j.records); s.Phase != executor.Succeeded || s.Forecast != 0 || s.Error != "" {
		t.Fatalf("%+v", s)
	}
}

type refusing struct{}

func (refusing) Check(context.Context) (executor.State, error) {
	return executor.Todo, fault.New(fault.Precondition, "another disk is there")
}
func (refusing) Do(context.Context) error     { panic("done although it was refused") }
func (refusing) Verify(context.Context) error { panic("verified although it was refused") }

func TestACancelledPlanEndsBetweenStepsAndMayGoOn(t *testing.T) {
	w := newWorld()
	j := &memory{world: w}
	e := w.executor()
	e.Cancelled = func() bool { return w.halves[1] == 2 }
	p := fakePlan(t)
	if err := e.Run(t.Context(), p, j); !errors.Is(err, executor.ErrCancelled) || w.halves[2] != 0 {
		t.Fatalf("%v, %v", err, w.halves)
	}
	if s := executor.StatusOf(p, j.records); s.Phase != executor.Ended || s.Step != 2 {
		t.Fatalf("%+v", s)
	}
	e.Cancelled = nil
	if err := e.Run(t.Context(), p, j); err != nil || w.halves[3] != 2 {
		t.Fatalf("%v, %v", err, w.halves)
	}
}

func TestAnUnknownKindIsRefused(t *testing.T) {
	w := newWorld()
	e := w.executor()
	delete(e.Registry, "0")
	if err := e.Run(t.Context(), fakePlan(t), &memory{world: w}); !errors.Is(err, fault.Unsupported) {
		t.Fatal(err)
	}
}

func TestTheForecastSurvivesARestart(t *testing.T) {
	p := fakePlan(t)
	at := time.Unix(1e9, 0)
	records := []executor.Record{
		{Event: executor.StepBegun, Step: 0, At: at},
		{Event: executor.StepVerified, Step: 0, At: at},
		{Event: executor.StepBegun, Step: 1, At: at},
		{Event: executor.StepProgress, Step: 1, At: at, Progress: &executor.Progress{Done: 50, Total: 100, Rate: 5}},
	}
	before := executor.StatusOf(p, records)
	if before.Forecast != (50+100+100)/5 {
		t.Fatalf("%+v", before)
	}
	after := executor.StatusOf(p, append(records, executor.Record{Event: executor.StepBegun, Step: 1, At: at.Add(time.Hour)}))
	if after.Forecast != before.Forecast || after.Progress != before.Progress {
		t.Fatalf("before %+v, after the restart %+v", before, after)
	}
	if s := executor.StatusOf(p, nil); s.Forecast != 40 || s.Phase != executor.Waiting {
		t.Fatalf("%+v", s)
	}
}

func TestAPlanThatWasOnlyLookedAtTouchedNothing(t *testing.T) {
	for _, c := range []struct {
		records []executor.Record
		want    bool
	}{
		{nil, false},
		{[]executor.Record{{Event: executor.Stopped}}, false},
		{[]executor.Record{{Event: executor.Cancelled}, {Event: executor.Stopped}}, false},
		{[]executor.Record{{Event: executor.StepBegun}, {Event: executor.Stopped}}, true},
		{[]executor.Record{{Event: executor.StepVerified}}, true},
	} {
		if got := executor.Touched(c.records); got != c.want {
			t.Errorf("%v: %v", c.records, got)
		}
	}
}
