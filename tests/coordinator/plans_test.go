package coordinator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// who is a caller of the API, with time enough for an election.
type who struct {
	t      *testing.T
	client *coordinatorapi.Client
}

func ask[T any](w who, f func(context.Context, v1.CoordinatorClient, ...coordinatorapi.CallOption) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	return coordinatorapi.Call(ctx, w.client, f)
}

func (w who) propose(data []byte) (*v1.Plan, error) {
	return ask(w, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
		return api.ProposePlan(ctx, &v1.ProposePlanRequest{Plan: data, Node: "n1"}, o...)
	})
}

func (w who) change(verb v1.ChangePlanRequest_Verb, id plan.ID, token string) (*v1.Plan, error) {
	return ask(w, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
		return api.ChangePlan(ctx, &v1.ChangePlanRequest{Id: string(id), Verb: verb, Token: token}, o...)
	})
}

func (w who) setSubject(state string) error {
	_, err := ask(w, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.SetSubjectResponse, error) {
		return api.SetSubject(ctx, &v1.SetSubjectRequest{Subject: "stack media on n1", State: []byte(state)}, o...)
	})
	return err
}

func (w who) report() error {
	_, err := ask(w, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.ReportNodeResponse, error) {
		return api.ReportNode(ctx, &v1.ReportNodeRequest{Boot: "b", Generation: 1, Inventory: []byte(`{}`)}, o...)
	})
	return err
}

func (w who) takeWork(id plan.ID) (*v1.Work, error) {
	return ask(w, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Work, error) {
		return api.TakeWork(ctx, &v1.TakeWorkRequest{Plan: string(id), For: durationpb.New(time.Minute)}, o...)
	})
}

func (w who) step(id plan.ID, term uint64, step int, event executor.Event) (*v1.Orders, error) {
	record, err := json.Marshal(executor.Record{Step: step, Event: event})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return ask(w, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Orders, error) {
		return api.ReportStep(ctx, &v1.ReportStepRequest{Plan: string(id), Term: term, Record: record, For: durationpb.New(time.Minute)}, o...)
	})
}

// reshape is a plan of three steps for a node, computed from state.
func reshape(t *testing.T, state string) (plan.Plan, []byte) {
	t.Helper()
	parent, err := plan.Hash(json.RawMessage(state))
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Plan{Parent: parent, Subject: "stack media on n1", What: "add B", State: []byte(`{"disks":["A","B"]}`), Disks: []plan.Disk{{ID: "B", Size: 1, Use: plan.Take}}}
	for i := range 3 {
		p.Steps = append(p.Steps, plan.Step{Kind: "array-reshape", What: fmt.Sprint("step ", i+1), Executor: "node", Args: []byte(`{}`)})
	}
	if p, err = p.Seal(1); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return p, data
}

// TestAPlanGoesOnWhenTheLeaderIsKilled takes a plan from the proposal to its end, with the leader killed after each step.
func TestAPlanGoesOnWhenTheLeaderIsKilled(t *testing.T) {
	c := start(t, 3, nil)
	admin, agent, other := who{t, c.client(c.open("admin"))}, who{t, c.client(c.issue("agent", "n1"))}, who{t, c.client(c.issue("agent", "n2"))}
	p, data := reshape(t, `{"disks":["A"]}`)
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%s", err, c.logs())
		}
	}
	refused := func(err, class error) {
		t.Helper()
		if !errors.Is(err, class) {
			t.Fatalf("got %v, want %v", err, class)
		}
	}
	fatal(agent.report())
	fatal(agent.setSubject(`{"disks":["A"]}`))
	_, err := admin.propose(data)
	fatal(err)
	_, err = agent.change(v1.ChangePlanRequest_VERB_APPROVE, p.ID, "B")
	refused(err, fault.Denied) // agents do what is approved, and approve nothing
	_, err = admin.change(v1.ChangePlanRequest_VERB_APPROVE, p.ID, "B")
	fatal(err)
	_, err = other.takeWork(p.ID)
	refused(err, fault.Denied)
	work, err := agent.takeWork(p.ID)
	fatal(err)
	for i := range p.Steps {
		_, err := agent.step(p.ID, work.GetLease().GetTerm(), i, executor.StepBegun)
		fatal(err)
		leader := c.leader(admin.client)
		c.end(leader, syscall.SIGKILL)
		_, err = other.step(p.ID, work.GetLease().GetTerm(), i, executor.StepVerified)
		refused(err, fault.Denied)
		old := work.GetLease().GetTerm()
		work, err = agent.takeWork(p.ID) // it cannot know whether its last word was heard
		fatal(err)
		_, err = agent.step(p.ID, old, i, executor.StepVerified)
		refused(err, fault.Aborted)
		_, err = agent.step(p.ID, work.GetLease().GetTerm(), i, executor.StepVerified)
		fatal(err)
		c.run(leader)
	}
	end, err := ask(admin, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
		return api.GetPlan(ctx, &v1.GetPlanRequest{Id: string(p.ID)}, o...)
	})
	fatal(err)
	if end.GetPhase() != "completed" || end.GetApprovedBy() != "admin/admin" {
		t.Errorf("%v", end)
	}
	_, stale := reshape(t, `{"disks":["A"]}`+" ")
	_, err = admin.propose(stale)
	refused(err, fault.Precondition) // the same plan once more: its subject has changed since
}
