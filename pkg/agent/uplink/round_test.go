package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/certs/certstest"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// coordinators lead, have some plans, and count what they are asked.
type coordinators struct {
	v1.UnimplementedCoordinatorServer

	mu       sync.Mutex
	plans    map[plan.ID]*v1.Plan
	calls    map[string]int
	refuse   error // each proposal
	work     *v1.Work
	denied   error // the work
	orders   *v1.Orders
	reported []executor.Record
}

// called counts a call, under the lock until the answer is made.
func (c *coordinators) called(method string) func() {
	c.mu.Lock()
	c.calls[method]++
	return c.mu.Unlock
}

func (c *coordinators) count(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[method]
}

func (c *coordinators) GetPlan(_ context.Context, r *v1.GetPlanRequest) (*v1.Plan, error) {
	defer c.called("GetPlan")()
	if m, ok := c.plans[plan.ID(r.GetId())]; ok {
		return m, nil
	}
	return nil, fault.Status(fault.New(fault.NotFound, "there is no plan %s", r.GetId()))
}

func (c *coordinators) ListPlans(context.Context, *v1.ListPlansRequest) (*v1.ListPlansResponse, error) {
	defer c.called("ListPlans")()
	answer := &v1.ListPlansResponse{}
	for _, m := range c.plans {
		if !ended(m) {
			answer.Plans = append(answer.Plans, m)
		}
	}
	return answer, nil
}

func (c *coordinators) SetSubject(context.Context, *v1.SetSubjectRequest) (*v1.SetSubjectResponse, error) {
	defer c.called("SetSubject")()
	return &v1.SetSubjectResponse{}, nil
}

func (c *coordinators) ProposePlan(context.Context, *v1.ProposePlanRequest) (*v1.Plan, error) {
	defer c.called("ProposePlan")()
	return &v1.Plan{}, fault.Status(c.refuse)
}

func (c *coordinators) ChangePlan(_ context.Context, r *v1.ChangePlanRequest) (*v1.Plan, error) {
	defer c.called("ChangePlan " + r.GetId())()
	c.plans[plan.ID(r.GetId())] = &v1.Plan{Id: r.GetId(), Phase: cancelled}
	return &v1.Plan{}, nil
}

func (c *coordinators) TakeWork(context.Context, *v1.TakeWorkRequest) (*v1.Work, error) {
	defer c.called("TakeWork")()
	return c.work, fault.Status(c.denied)
}

func (c *coordinators) ReportStep(_ context.Context, r *v1.ReportStepRequest) (*v1.Orders, error) {
	defer c.called("ReportStep")()
	var record executor.Record
	if err := json.Unmarshal(r.GetRecord(), &record); err != nil {
		return nil, err
	}
	c.reported = append(c.reported, record)
	return c.orders, nil
}

// machine is an agent that notes its orders, and has an answer for each plan.
type machine struct {
	mu     sync.Mutex
	plans  []agentapi.Plan
	orders []agent.Order
	take   map[plan.ID]func(context.Context) error
}

func (m *machine) Take(ctx context.Context, o agent.Order) (agentapi.Plan, error) {
	m.mu.Lock()
	if o.Plan != nil {
		o.ID = o.Plan.ID
	}
	m.orders = append(m.orders, o)
	do := m.take[o.ID]
	m.mu.Unlock()
	if do != nil {
		return agentapi.Plan{}, do(ctx)
	}
	return agentapi.Plan{}, nil
}

func (m *machine) Term() (uint64, error)           { return 4, nil }
func (m *machine) Plans() ([]agentapi.Plan, error) { return m.plans, nil }
func (m *machine) Outdated() []plan.ID             { return []plan.ID{"old", "taken", "mine"} }
func (m *machine) Changed() <-chan struct{}        { return nil }

// ordered are the verbs that were given for a plan.
func (m *machine) ordered(id plan.ID) (verbs []agentapi.Verb) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.orders {
		if o.ID == id {
			verbs = append(verbs, o.Do)
		}
	}
	return verbs
}

// joined is an uplink of n1 between the two.
func joined(t *testing.T, c *coordinators, m *machine) *Uplink {
	t.Helper()
	c.calls = map[string]int{}
	ca := certstest.CA(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	store := certstest.Store(t, ca, certs.Identity{Role: certs.Coordinator, Name: "c1"})
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(store.Server(map[certs.Protocol][]certs.Role{certs.GRPC: {certs.Agent}}))))
	v1.RegisterCoordinatorServer(server, c)
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	client := coordinatorapi.New(certstest.Store(t, ca, certs.Identity{Role: certs.Agent, Name: "n1"}), []string{l.Addr().String()})
	t.Cleanup(func() {
		client.Close()
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return New(Config{
		Node: "n1", Client: client, Agent: m, Log: slog.New(slog.DiscardHandler),
		Records:   func(plan.ID) ([]executor.Record, error) { return nil, nil },
		Withdraw:  func(plan.ID) error { return nil },
		State:     func(context.Context, plan.Plan) (json.RawMessage, error) { return json.RawMessage(`{}`), nil },
		Inventory: func() disk.Inventory { return disk.Inventory{Generation: 1} },
	})
}

func local(id plan.ID, phase executor.Phase) agentapi.Plan {
	return agentapi.Plan{Plan: plan.Plan{ID: id, Subject: "stack " + string(id)}, Status: executor.Status{Plan: id, Phase: phase}}
}

func TestOnePlanThatCannotBeGivenUpKeepsNothingFromTheOthers(t *testing.T) {
	c := &coordinators{plans: map[plan.ID]*v1.Plan{
		"a": {Id: "a", Phase: abandoned}, "b": {Id: "b", Phase: cancelled}, "c": {Id: "c", Phase: running, PausedBy: "admin/minji"},
	}}
	m := &machine{
		plans: []agentapi.Plan{local("a", executor.Running), local("b", executor.Running), local("c", executor.Running)},
		take: map[plan.ID]func(context.Context) error{
			"a": func(context.Context) error { return fault.New(fault.Precondition, "the stack is in use") },
		},
	}
	u := joined(t, c, m)
	for range 20 {
		if err := u.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if b, c := m.ordered("b"), m.ordered("c"); len(b) != 20 || b[0] != agentapi.Cancel || len(c) != 20 || c[0] != agentapi.Pause {
		t.Errorf("b is told %v, c %v", b, c)
	}
	if a := m.ordered("a"); len(a) == 0 || len(a) > 10 { // its run ends and begins anew each time
		t.Errorf("a is told %v", a)
	}
}

func TestADiskThatHangsKeepsNoOrderWaitingForEver(t *testing.T) {
	deadline := make(chan bool, 1)
	m := &machine{
		plans: []agentapi.Plan{local("a", executor.Running)},
		take: map[plan.ID]func(context.Context) error{"a": func(ctx context.Context) error {
			_, has := ctx.Deadline()
			deadline <- has
			return nil
		}},
	}
	u := joined(t, &coordinators{plans: map[plan.ID]*v1.Plan{"a": {Id: "a", Phase: abandoned}}}, m)
	if err := u.round(t.Context()); err != nil || !<-deadline {
		t.Errorf("the agent may take as long as it likes: %v", err)
	}
}

func TestAProposalThatIsRefusedIsNotSentInEveryRound(t *testing.T) {
	c := &coordinators{refuse: fault.New(fault.Precondition, "too many plans wait")}
	u := joined(t, c, &machine{plans: []agentapi.Plan{local("p", executor.Proposed)}})
	for range 50 {
		if err := u.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.count("ProposePlan"); n == 0 || n > 10 {
		t.Errorf("it was sent %d times, and the state of its subject %d times", n, c.count("SetSubject"))
	}
	before := c.count("ProposePlan")
	u.Inventory = func() disk.Inventory { return disk.Inventory{Generation: 2} }
	if err := u.round(t.Context()); err != nil || c.count("ProposePlan") != before+1 {
		t.Errorf("with other disks it was not sent again: %v", err)
	}
	u.Agent = &machine{}
	if err := u.round(t.Context()); err != nil || len(u.refused) != 0 {
		t.Errorf("what has gone is remembered: %v, %v", u.refused, err)
	}
}

func TestWhatIsOverIsAskedForOnce(t *testing.T) {
	c := &coordinators{plans: map[plan.ID]*v1.Plan{"done": {Id: "done", Phase: completed}}}
	u := joined(t, c, &machine{plans: []agentapi.Plan{local("done", executor.Held), local("old", executor.Held)}})
	for range 5 {
		if err := u.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.count("GetPlan"); n != 2 {
		t.Errorf("two plans were asked for %d times", n)
	}
}

func TestOutdatedProposalsAreTakenBack(t *testing.T) {
	c := &coordinators{plans: map[plan.ID]*v1.Plan{
		"old": {Id: "old", Phase: proposed, ProposedBy: "agent/n1"}, "taken": {Id: "taken", Phase: approved, ProposedBy: "agent/n1"}, "mine": {Id: "mine", Phase: proposed, ProposedBy: "admin/minji"},
	}}
	u := joined(t, c, &machine{})
	u.bodies = map[plan.ID]plan.Plan{"old": {Subject: "a"}, "mine": {Subject: "b"}}
	for range 3 {
		if err := u.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if old, taken, mine := c.count("ChangePlan old"), c.count("ChangePlan taken"), c.count("ChangePlan mine"); old != 1 || taken != 0 || mine != 0 {
		t.Errorf("taken back: an old one %d times, one that was approved %d times, a person's %d times", old, taken, mine)
	}
}

func TestWorkIsTakenToldAndGivenBack(t *testing.T) {
	p, err := plan.Plan{Subject: "stack media", What: "grow", Parent: "0", State: []byte(`{}`), Steps: []plan.Step{
		{Kind: "a", What: "a", Executor: "node", Args: []byte(`{}`)}, {Kind: "a", What: "b", Executor: "node", Args: []byte(`{}`)},
	}}.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	c := &coordinators{
		plans:  map[plan.ID]*v1.Plan{p.ID: {Id: string(p.ID), Phase: approved, Worker: "n1", Approved: timestamppb.Now()}},
		work:   &v1.Work{Lease: &v1.Lease{Holder: "n1", Term: 9}, Plan: body, Records: []byte(`[]`)},
		denied: fault.New(fault.Precondition, "it is paused"),
	}
	m := &machine{}
	u := joined(t, c, m)
	if err := u.round(t.Context()); err != nil || u.work != nil || len(m.orders) != 0 {
		t.Fatalf("without a lease: %v, %v", m.orders, err)
	}
	c.denied, c.orders = nil, &v1.Orders{Lease: &v1.Lease{Holder: "n1", Term: 9}}
	journal := []executor.Record{{Event: executor.StepBegun}}
	u.Records = func(plan.ID) ([]executor.Record, error) { return journal, nil }
	running := local(p.ID, executor.Running)
	m.plans = []agentapi.Plan{running}
	if err := u.round(t.Context()); err != nil || u.work == nil || !slices.Equal(m.ordered(p.ID), []agentapi.Verb{agentapi.Approve}) || m.orders[0].Term != 9 {
		t.Fatalf("with a lease: %v, %v", m.orders, err)
	}
	journal = append(journal, executor.Record{Event: executor.StepVerified})
	c.orders = &v1.Orders{Phase: cancelled} // the lease ends with what is told now
	if err := u.round(t.Context()); err != nil || u.work != nil || len(c.reported) != 2 || c.reported[1].Event != executor.StepVerified {
		t.Fatalf("after the last step: %v, %v", c.reported, err)
	}
	c.plans[p.ID] = &v1.Plan{Id: string(p.ID), Phase: cancelled}
	if err := u.round(t.Context()); err != nil || !slices.Contains(m.ordered(p.ID), agentapi.Cancel) {
		t.Errorf("what was cancelled meanwhile goes on: %v, %v", m.orders, err)
	}
}

func TestWhatTheAgentRefusesStopsThePlan(t *testing.T) {
	p, err := plan.Plan{Subject: "stack media", What: "grow", Parent: "0", State: []byte(`{}`), Steps: []plan.Step{{Kind: "a", What: "a", Executor: "node", Args: []byte(`{}`)}}}.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	c := &coordinators{
		plans:  map[plan.ID]*v1.Plan{p.ID: {Id: string(p.ID), Phase: approved, Worker: "n1"}},
		work:   &v1.Work{Lease: &v1.Lease{Holder: "n1", Term: 9}, Plan: body, Records: []byte(`null`)},
		orders: &v1.Orders{Phase: "stopped"},
	}
	m := &machine{take: map[plan.ID]func(context.Context) error{
		p.ID: func(context.Context) error { return errors.New("the stack has changed") },
	}}
	u := joined(t, c, m)
	if err := u.round(t.Context()); err != nil || len(c.reported) != 1 || c.reported[0].Event != executor.Stopped || u.work != nil {
		t.Errorf("%v, %v", c.reported, err)
	}
}
