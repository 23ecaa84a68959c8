package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// memory is the log of a single member that leads while it is told so.
type memory struct {
	mu      sync.Mutex
	state   *fsm.State
	changed chan struct{}
	term    uint64 // 0: another leads
}

func newMemory() *memory {
	return &memory{state: fsm.New(), changed: make(chan struct{}), term: 1}
}

func (m *memory) Apply(_ context.Context, c fsm.Command) (fsm.Answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.term == 0 {
		return fsm.Answer{}, errors.New("another leads")
	}
	a := m.state.Apply(c)
	close(m.changed)
	m.changed = make(chan struct{})
	return a, nil
}

func (m *memory) Current(context.Context) error { return nil }

func (m *memory) View(f func(*fsm.State)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.state)
}

func (m *memory) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *memory) Leads() (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.term, m.term > 0
}

func (m *memory) lead(term uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.term = term
}

// do gives a command as a person.
func (m *memory) do(t *testing.T, b fsm.Body) {
	t.Helper()
	a, err := m.Apply(t.Context(), fsm.NewCommand("minji", "", time.Now(), b))
	if err = errors.Join(err, a.Err()); err != nil {
		t.Fatal(err)
	}
}

func (m *memory) phase(id plan.ID) (phase fsm.Phase, pause string) {
	m.View(func(s *fsm.State) {
		if e, ok := s.Plans[id]; ok {
			if phase = e.Phase; e.Pause != nil {
				pause = e.Pause.By
			}
		}
	})
	return phase, pause
}

// approved is a plan of so many steps for a subject that a person has allowed.
func approved(t *testing.T, m *memory, subject string, steps int) plan.Plan {
	t.Helper()
	p := propose(t, subject, `{"a":1}`, steps)
	m.do(t, &fsm.SetSubject{Subject: subject, State: []byte(`{"a":1}`)})
	m.do(t, &fsm.Propose{Plan: p})
	m.do(t, &fsm.Approve{Plan: p.ID, Token: p.Token()})
	return p
}

func propose(t testing.TB, subject, state string, steps int) plan.Plan {
	t.Helper()
	parent, err := plan.Hash(json.RawMessage(state))
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Plan{Parent: parent, Subject: subject, What: "move", State: json.RawMessage(`{"a":2}`)}
	for range steps {
		p.Steps = append(p.Steps, plan.Step{Kind: "wave", What: "wave", Executor: fsm.Coordinator, Args: []byte(`{}`)})
	}
	if p, err = p.Seal(1); err != nil {
		t.Fatal(err)
	}
	return p
}

// slow is a step that takes a time, and counts.
type slow struct {
	takes time.Duration
	mu    *sync.Mutex
	begun *int
}

func (s slow) Check(context.Context) (executor.State, error) { return executor.Todo, nil }

func (s slow) Do(ctx context.Context) error {
	s.mu.Lock()
	*s.begun++
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.takes):
		return nil
	}
}

func (s slow) Verify(context.Context) error { return nil }

// worker runs one on a log, with steps that take a time; begun counts those that were begun.
func worker(t *testing.T, m *memory, takes time.Duration, set func(*Worker)) (begun func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	w := &Worker{Log: m, Logger: slog.New(slog.DiscardHandler), Registry: executor.Registry{
		"wave": func(plan.Step, func(executor.Progress)) (executor.Step, error) { return slow{takes, &mu, &n}, nil },
	}}
	if set != nil {
		set(w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestPlansOfDifferentSubjectsRunBesideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		long, short := approved(t, m, "placement", 10), approved(t, m, "pool vms", 1)
		worker(t, m, time.Hour, nil)
		time.Sleep(90 * time.Minute)
		if phase, _ := m.phase(short.ID); phase != fsm.Completed {
			t.Errorf("the short plan is %s", phase)
		}
		if phase, _ := m.phase(long.ID); phase != fsm.Running {
			t.Errorf("the long plan is %s", phase)
		}
		time.Sleep(9 * time.Hour)
		if phase, _ := m.phase(long.ID); phase != fsm.Completed {
			t.Errorf("the long plan is %s", phase)
		}
	})
}

func TestAPlanThatNobodyKnowsToDoStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p := approved(t, m, "placement", 1)
		worker(t, m, time.Minute, func(w *Worker) { w.Registry = nil })
		time.Sleep(time.Hour)
		var term uint64
		m.View(func(s *fsm.State) { term = s.Term })
		if phase, _ := m.phase(p.ID); phase != fsm.Stopped || term != 1 {
			t.Errorf("it is %s after %d leases", phase, term)
		}
	})
}

func TestAPlanGoesFromTheCoordinatorToANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p := propose(t, "placement", `{"a":1}`, 2)
		p.Steps[1].Executor, p.Steps[1].Kind = "node", "array-reshape"
		p, err := p.Seal(1)
		if err != nil {
			t.Fatal(err)
		}
		m.do(t, &fsm.ReportNode{Node: "n1", Boot: "b", Generation: 1, Inventory: []byte(`{}`)})
		m.do(t, &fsm.SetSubject{Subject: "placement", State: []byte(`{"a":1}`)})
		m.do(t, &fsm.Propose{Plan: p, Node: "n1"})
		m.do(t, &fsm.Approve{Plan: p.ID, Token: p.Token()})
		begun := worker(t, m, time.Minute, nil)
		time.Sleep(time.Hour)
		var who string
		m.View(func(s *fsm.State) { who = s.Plans[p.ID].Worker() })
		if phase, _ := m.phase(p.ID); phase != fsm.Running || who != "n1" || begun() != 1 {
			t.Errorf("it is %s at %s after %d steps", phase, who, begun())
		}
	})
}

func TestPlansRestWhileThereIsTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p := approved(t, m, "placement", 3)
		var mu sync.Mutex
		why := ""
		tell := func(text string) {
			mu.Lock()
			defer mu.Unlock()
			why = text
		}
		begun := worker(t, m, time.Minute, func(w *Worker) {
			w.Trouble = func(context.Context) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				return why, nil
			}
		})
		time.Sleep(30 * time.Second)
		tell("OSD_NEARFULL")
		time.Sleep(time.Hour)
		if _, by := m.phase(p.ID); by != fsm.Coordinator || begun() != 1 {
			t.Errorf("%d steps were begun, paused by %q", begun(), by)
		}
		m.do(t, &fsm.PausePlan{Plan: p.ID, Why: "let me look"})
		tell("")
		time.Sleep(time.Hour)
		if _, by := m.phase(p.ID); by != "minji" || begun() != 1 {
			t.Errorf("%d steps were begun, paused by %q", begun(), by)
		}
		m.do(t, &fsm.Resume{Plan: p.ID})
		time.Sleep(time.Hour)
		if phase, _ := m.phase(p.ID); phase != fsm.Completed {
			t.Errorf("the plan is %s", phase)
		}
	})
}

func TestWhoLeadsNoMoreWorksNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p := approved(t, m, "placement", 2)
		begun := worker(t, m, time.Hour, nil)
		time.Sleep(time.Minute)
		m.lead(0)
		time.Sleep(3 * time.Hour)
		if begun() != 1 {
			t.Errorf("%d steps were begun", begun())
		}
		m.lead(2)
		time.Sleep(3 * time.Hour)
		if phase, _ := m.phase(p.ID); phase != fsm.Completed || begun() != 3 {
			t.Errorf("the plan is %s after %d steps", phase, begun())
		}
	})
}

// other plans anew once it is told that plans are stale.
type other struct {
	mu   sync.Mutex
	why  string
	next *plan.Plan
	from int
	fail error // of planning anew
	deaf error // of comparing
	made int   // how often it was asked for
}

func (o *other) Stale(_ context.Context, p plan.Plan) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next != nil && p.ID == o.next.ID {
		return "", nil
	}
	if p.Subject != "placement" {
		return "", nil
	}
	return o.why, o.deaf
}

func (o *other) set(why string, fail error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.why, o.fail = why, fail
}

func (o *other) Again(_ context.Context, _ plan.Plan, records []executor.Record, _ int) (*plan.Plan, json.RawMessage, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.made++
	if o.fail != nil {
		return nil, nil, o.fail
	}
	o.from, _ = executor.Reached(records)
	return o.next, json.RawMessage(`{"a":7}`), nil
}

func TestAStalePlanIsSupersededOnceTheTroubleIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p := approved(t, m, "placement", 3)
		m.do(t, &fsm.SetPolicy{Name: "cluster", Policy: &fsm.Policy{Approves: []plan.Kind{"wave"}}})
		next := propose(t, "placement", `{"a":7}`, 1)
		o := &other{next: &next}
		var mu sync.Mutex
		trouble := ""
		begun := worker(t, m, time.Hour, func(w *Worker) {
			w.Replanner = o
			w.Trouble = func(context.Context) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				return trouble, nil
			}
		})
		time.Sleep(90 * time.Minute)
		mu.Lock()
		trouble = "copies are missing"
		mu.Unlock()
		o.mu.Lock()
		o.why = "osd.3 is out"
		o.mu.Unlock()
		time.Sleep(5 * time.Hour)
		if phase, _ := m.phase(p.ID); phase != fsm.Running || begun() != 2 {
			t.Errorf("while copies are missing the plan is %s after %d steps", phase, begun())
		}
		mu.Lock()
		trouble = ""
		mu.Unlock()
		time.Sleep(2 * time.Hour)
		was, _ := m.phase(p.ID)
		is, _ := m.phase(next.ID)
		if was != fsm.Abandoned || is != fsm.Completed || o.from != 1 {
			t.Errorf("the old plan is %s, the new one %s, planned from step %d", was, is, o.from)
		}
	})
}

func TestAPlanThatCannotBePlannedAnewKeepsNoOtherBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p, pool := approved(t, m, "placement", 3), approved(t, m, "pool vms", 1)
		m.do(t, &fsm.SetPolicy{Name: "cluster", Policy: &fsm.Policy{Approves: []plan.Kind{"wave"}}})
		next := propose(t, "placement", `{"a":7}`, 1)
		o := &other{next: &next}
		o.set("osd.3 is out", fault.New(fault.Precondition, "this cannot be done to its end: add space first"))
		worker(t, m, time.Minute, func(w *Worker) { w.Replanner = o })
		time.Sleep(24 * time.Hour)
		if phase, _ := m.phase(pool.ID); phase != fsm.Completed {
			t.Errorf("the plan for the pool is %s", phase)
		}
		if o.made > 24*60 {
			t.Errorf("it was planned %d times in a day", o.made)
		}
		m.View(func(s *fsm.State) {
			if e := s.Plans[p.ID]; e.Pause == nil || e.Pause.By != fsm.Coordinator || !strings.Contains(e.Pause.Why, "osd.3 is out") || !strings.Contains(e.Pause.Why, "add space") {
				t.Errorf("the plan is paused by %+v", e.Pause)
			}
			if n := len(s.History); n > 20 {
				t.Errorf("%d events", n)
			}
		})
		o.set("osd.3 is out", nil)
		time.Sleep(10 * time.Minute)
		was, _ := m.phase(p.ID)
		if is, _ := m.phase(next.ID); was != fsm.Abandoned || is != fsm.Completed {
			t.Errorf("once it can be, the old plan is %s, the new one %s", was, is)
		}
	})
}

func TestAPlanThatIsStaleNoMoreGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p := approved(t, m, "placement", 3)
		o := &other{}
		o.set("osd.3 is out", fault.New(fault.Precondition, "there is no osd.3"))
		worker(t, m, time.Minute, func(w *Worker) { w.Replanner = o })
		time.Sleep(time.Hour)
		if phase, by := m.phase(p.ID); phase != fsm.Approved || by != fsm.Coordinator {
			t.Errorf("the plan is %s, paused by %q", phase, by)
		}
		o.set("", nil)
		time.Sleep(time.Hour)
		if phase, _ := m.phase(p.ID); phase != fsm.Completed {
			t.Errorf("the plan is %s", phase)
		}
	})
}

func TestAPlanThatNobodyCanCompareKeepsNoOtherBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p, pool := approved(t, m, "placement", 3), approved(t, m, "pool vms", 1)
		worker(t, m, time.Minute, func(w *Worker) { w.Replanner = &other{deaf: errors.New("the map cannot be read")} })
		time.Sleep(time.Hour)
		if phase, _ := m.phase(pool.ID); phase != fsm.Completed {
			t.Errorf("the plan for the pool is %s", phase)
		}
		if phase, _ := m.phase(p.ID); phase != fsm.Approved {
			t.Errorf("the plan that nobody can compare is %s", phase)
		}
	})
}

func TestWorkEndsWithItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p := approved(t, m, "placement", 1)
		ended := make(chan struct{})
		worker(t, m, 0, func(w *Worker) {
			w.Registry["wave"] = func(plan.Step, func(executor.Progress)) (executor.Step, error) {
				return waits{slow{takes: 0}, ended}, nil
			}
		})
		time.Sleep(10 * time.Minute) // the lease is long over
		m.do(t, &fsm.Cancel{Plan: p.ID})
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Error("the step goes on without a lease")
		}
	})
}

// waits is a step that reports nothing and ends with its context.
type waits struct {
	slow

	ended chan struct{}
}

func (s waits) Do(ctx context.Context) error {
	<-ctx.Done()
	close(s.ended)
	return ctx.Err()
}
