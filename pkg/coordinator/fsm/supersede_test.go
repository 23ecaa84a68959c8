package fsm_test

import (
	"encoding/json"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// waves is a plan of two steps of the coordinator's, made from a state.
func waves(t testing.TB, state, what string) plan.Plan {
	t.Helper()
	parent, err := plan.Hash(json.RawMessage(state))
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Plan{
		Parent: parent, Subject: "placement", What: what, State: json.RawMessage(`{"a":9}`),
		Steps: []plan.Step{
			{Kind: "upmap-wave", What: what, Executor: fsm.Coordinator, Args: []byte(`{}`)},
			{Kind: "upmap-wave", What: what, Executor: fsm.Coordinator, Args: []byte(`{}`)},
		},
	}.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// atWork is a plan whose first step was begun.
func atWork(t *testing.T) (*driver, plan.Plan, fsm.Work) {
	t.Helper()
	d := newDriver(t)
	d.must(&fsm.SetSubject{Subject: "placement", State: []byte(`{"a":1}`)})
	p := waves(t, `{"a":1}`, "old")
	d.must(&fsm.Propose{Plan: p})
	d.must(&fsm.Approve{Plan: p.ID, Token: p.Token()})
	w := d.lease(p.ID, fsm.Coordinator)
	d.step(p.ID, w.Lease.Term, 0, executor.StepBegun)
	return d, p, w
}

func TestASupersededPlanMakesWayForOneOfTheNewState(t *testing.T) {
	d, old, w := atWork(t)
	next := waves(t, `{"a":2}`, "new")
	d.must(&fsm.Supersede{Plan: old.ID, Why: "osd.3 is out", State: []byte(`{"a":2}`), By: &next})
	if d.phase(old.ID) != fsm.Abandoned || d.phase(next.ID) != fsm.Proposed {
		t.Fatalf("the old plan is %s, the new one %s", d.phase(old.ID), d.phase(next.ID))
	}
	if by := d.s.Plans[old.ID].Superseded; by == nil || *by != (fsm.Superseded{By: next.ID, Why: "osd.3 is out"}) {
		t.Errorf("superseded: %+v", by)
	}
	d.refused(fault.Aborted, "stop", &fsm.ReportStep{Plan: old.ID, Holder: fsm.Coordinator, Term: w.Lease.Term, Record: executor.Record{Event: executor.StepDone}})
	d.must(&fsm.Approve{Plan: next.ID, Token: next.Token()})
	d.lease(next.ID, fsm.Coordinator)
}

func TestAPolicyApprovesThePlanThatSupersedes(t *testing.T) {
	d, old, _ := atWork(t)
	d.must(&fsm.SetPolicy{Name: "cluster", Policy: &fsm.Policy{Approves: []plan.Kind{"upmap-wave"}}})
	next := waves(t, `{"a":2}`, "new")
	d.must(&fsm.Supersede{Plan: old.ID, State: []byte(`{"a":2}`), By: &next})
	if d.phase(next.ID) != fsm.Approved {
		t.Errorf("the new plan is %s", d.phase(next.ID))
	}
}

func TestAPlanWithNothingLeftIsGivenUp(t *testing.T) {
	d, old, _ := atWork(t)
	d.must(&fsm.Supersede{Plan: old.ID, Why: "the pool is gone", State: []byte(`{"a":2}`)})
	again := waves(t, `{"a":2}`, "later")
	d.must(&fsm.Propose{Plan: again})
	d.must(&fsm.Approve{Plan: again.ID, Token: again.Token()})
}

func TestWhatMustNotBeSuperseded(t *testing.T) {
	d, old, _ := atWork(t)
	next, stale := waves(t, `{"a":2}`, "new"), waves(t, `{"a":3}`, "of another state")
	d.refused(fault.Invalid, "another state", &fsm.Supersede{Plan: old.ID, State: []byte(`{"a":2}`), By: &stale})
	d.refused(fault.NotFound, "no plan", &fsm.Supersede{Plan: "none", State: []byte(`{"a":2}`), By: &next})
	d.must(&fsm.PausePlan{Plan: old.ID, Why: "let me look"})
	d.refused(fault.Precondition, "paused by minji", &fsm.Supersede{Plan: old.ID, State: []byte(`{"a":2}`), By: &next})
	d.must(&fsm.Resume{Plan: old.ID})
	d.must(&fsm.Cancel{Plan: old.ID})
	if d.phase(old.ID) != fsm.Running {
		t.Fatal(d.phase(old.ID))
	}
	d.refused(fault.Precondition, "to be cancelled", &fsm.Supersede{Plan: old.ID, State: []byte(`{"a":2}`), By: &next})
	d.refused(fault.Precondition, "to be cancelled", &fsm.Supersede{Plan: old.ID, State: []byte(`{"a":2}`)})
}

func TestPlansThatExcludeAnotherSubjectWaitForIt(t *testing.T) {
	d, old, _ := atWork(t)
	d.must(&fsm.SetPolicy{Name: "cluster", Policy: &fsm.Policy{Approves: []plan.Kind{"upmap-wave"}}})
	d.must(&fsm.SetSubject{Subject: "pool vms", State: []byte(`{"a":1}`)})
	pool := waves(t, `{"a":1}`, "set")
	pool.ID, pool.Subject, pool.Excludes = "", "pool vms", []string{"placement"}
	pool, err := pool.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	d.must(&fsm.Propose{Plan: pool})
	if d.phase(pool.ID) != fsm.Proposed {
		t.Errorf("a policy has made it %s", d.phase(pool.ID))
	}
	d.refused(fault.Busy, "for placement", &fsm.Approve{Plan: pool.ID, Token: pool.Token()})
	d.must(&fsm.Supersede{Plan: old.ID, State: []byte(`{"a":2}`)})
	d.must(&fsm.Approve{Plan: pool.ID, Token: pool.Token()})
	next := waves(t, `{"a":2}`, "next")
	d.must(&fsm.Propose{Plan: next})
	d.refused(fault.Busy, "for pool vms", &fsm.Approve{Plan: next.ID, Token: next.Token()})
}
