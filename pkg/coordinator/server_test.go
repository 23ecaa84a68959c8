package coordinator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/certs/certstest"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/raftnode"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// alone is a cluster of one member.
type alone struct{ leader string }

func (alone) Name() string { return "c1" }
func (alone) Members() ([]raftnode.Member, error) {
	return []raftnode.Member{{Name: "c1", Address: "a:1"}}, nil
}
func (a alone) Leader() raftnode.Member                     { return raftnode.Member{Name: a.leader, Address: "a:1"} }
func (alone) Term() uint64                                  { return 3 }
func (alone) CommitIndex() uint64                           { return 20 }
func (alone) AppliedIndex() uint64                          { return 17 }
func (alone) State() string                                 { return "leader" }
func (alone) LastContact() time.Time                        { return time.Now() }
func (alone) Add(context.Context, raftnode.Member) error    { return nil }
func (alone) Remove(context.Context, string) error          { return nil }
func (alone) Transfer(context.Context, string) error        { return nil }
func (alone) Restore(context.Context, []byte, string) error { return nil }

// serverOn is a server of that member on a log.
func serverOn(t testing.TB, m *memory, leader string) *Server {
	t.Helper()
	store := certstest.Store(t, certstest.CA(t), certs.Identity{Role: certs.Coordinator, Name: "c1"})
	return New(m, alone{leader}, store, nil, nil, slog.New(slog.DiscardHandler))
}

func TestMetricsTellOfRaftAndPlans(t *testing.T) {
	m := newMemory()
	p := approved(t, m, "placement", 3)
	a, err := m.Apply(t.Context(), fsm.NewCommand(fsm.Coordinator, "", time.Now(), &fsm.TakeLease{Plan: p.ID, Holder: fsm.Coordinator, For: time.Minute}))
	var work fsm.Work
	if err = errors.Join(err, a.Read(&work)); err != nil {
		t.Fatal(err)
	}
	m.do(t, &fsm.ReportStep{Plan: p.ID, Holder: fsm.Coordinator, Term: work.Lease.Term, Record: executor.Record{Event: executor.StepBegun}})
	answer := httptest.NewRecorder()
	serverOn(t, m, "c1").MetricsHandler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := answer.Body.String()
	for _, line := range []string{
		`holdfast_raft_state{state="leader"} 1`, `holdfast_raft_state{state="follower"} 0`, "holdfast_raft_term 3", "holdfast_raft_commit_index 20",
		"holdfast_raft_apply_lag_entries 3", `holdfast_plans{state="running"} 1`, `holdfast_plans{state="proposed"} 0`,
		fmt.Sprintf(`holdfast_plan_left_bytes{plan=%q,subject="placement"} 0`, p.ID),
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %q in:\n%s", line, text)
		}
	}
}

func TestChecksNameWhatIsWrong(t *testing.T) {
	m := newMemory()
	p := approved(t, m, "placement", 3)
	if _, err := m.Apply(t.Context(), fsm.NewCommand(fsm.Coordinator, "", time.Now(), &fsm.PausePlan{Plan: p.ID, Why: "OSD_NEARFULL"})); err != nil {
		t.Fatal(err)
	}
	s := serverOn(t, m, "")
	status, err := s.GetStatus(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range status.GetChecks() {
		got = append(got, c.GetCode())
		if _, ok := codes.Explain(codes.Code(c.GetCode())); !ok {
			t.Errorf("%s is not explained", c.GetCode())
		}
	}
	if text := strings.Join(got, " "); text != "HF-COORDINATOR-NO-LEADER HF-PLAN-WAITS" {
		t.Errorf("the checks are %s", text)
	}
	of := context.WithValue(t.Context(), callerKey{}, certs.Identity{Role: certs.Agent, Name: "n1"})
	if status, err := s.GetStatus(of, nil); err != nil || len(status.GetChecks()) != 1 {
		t.Errorf("an agent hears of all nodes' plans: %v, %v", status.GetChecks(), err)
	}
	s.now = func() time.Time { return time.Now().AddDate(20, 0, 0) }
	if list := s.checks(); list[1].Code != codes.CertificateExpires {
		t.Errorf("in twenty years: %v", list)
	}
}

func TestAnAgentChangesNoPlanButItsProposals(t *testing.T) {
	m := newMemory()
	p := approved(t, m, "placement", 1)
	ctx := context.WithValue(t.Context(), callerKey{}, certs.Identity{Role: certs.Agent, Name: "n1"})
	for _, verb := range coordinatorv1.ChangePlanRequest_Verb_value {
		if _, err := serverOn(t, m, "c1").ChangePlan(ctx, &coordinatorv1.ChangePlanRequest{Id: string(p.ID), Verb: coordinatorv1.ChangePlanRequest_Verb(verb), Token: p.Token()}); !errors.Is(err, fault.Denied) {
			t.Errorf("%v: %v", coordinatorv1.ChangePlanRequest_Verb(verb), err)
		}
	}
}

func TestPagesOfNodesFitAMessage(t *testing.T) {
	m := newMemory()
	large := json.RawMessage(`"` + strings.Repeat("x", 3<<20) + `"`)
	var names, got []string
	for i := range 5 {
		names = append(names, fmt.Sprint("n", i))
		m.do(t, &fsm.ReportNode{Node: storage.NodeID(names[i]), Boot: "b", Generation: 1, Inventory: large})
	}
	s := serverOn(t, m, "c1")
	pages := 0
	for token := ""; ; {
		answer, err := s.ListNodes(t.Context(), &coordinatorv1.ListNodesRequest{Inventory: true, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(answer); size > 12<<20 {
			t.Errorf("a page of %d bytes", size)
		}
		for _, n := range answer.GetNodes() {
			got = append(got, n.GetName())
		}
		pages++
		if token = answer.GetNextPageToken(); token == "" {
			break
		}
	}
	if pages != 3 || !slices.Equal(got, names) {
		t.Errorf("%d pages: %v", pages, got)
	}
}

// cluster plans for a Ceph cluster that has nothing.
type cluster struct{ t testing.TB }

func (c cluster) Rebalance(context.Context, *coordinatorv1.PlanRebalanceRequest, int) (plan.Plan, json.RawMessage, error) {
	return propose(c.t, "placement", `{"a":1}`, 2), json.RawMessage(`{"a":1}`), nil
}
func (cluster) Balancer() string                       { return "off" }
func (cluster) Balance() (float64, float64, time.Time) { return 0.5, 0.9, time.Now() }
func (cluster) List(context.Context) ([]*coordinatorv1.Pool, error) {
	return []*coordinatorv1.Pool{{Name: "vms"}}, nil
}
func (cluster) Explain(context.Context, string) ([]byte, error) { return []byte(`{}`), nil }
func (c cluster) Plan(_ context.Context, r *coordinatorv1.PlanPoolRequest, policies func(string) []byte) (plan.Plan, json.RawMessage, error) {
	policies(r.GetName())
	return propose(c.t, "pool "+r.GetName(), `{"a":1}`, 1), json.RawMessage(`{"a":1}`), nil
}

// callers are the contexts of calls by one of each role.
func callers(t testing.TB, ca certs.Pair) (list []context.Context, ids []certs.Identity) {
	t.Helper()
	for _, id := range []certs.Identity{{Role: certs.Admin, Name: "minji"}, {Role: certs.Agent, Name: "n1"}, {Role: certs.Coordinator, Name: "c2"}, {Role: certs.Operator, Name: "o"}} {
		pair, err := ca.Issue(id, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(pair.Cert)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}}}))
		ids = append(ids, id)
	}
	return list, ids
}

// FuzzRequests: whatever a caller of whatever role sends to whatever method, it gets an answer, the state can be written and read, and who may
// not call a method changes nothing.
func FuzzRequests(f *testing.F) {
	for i, r := range []proto.Message{
		&coordinatorv1.SetPolicyRequest{Policy: &coordinatorv1.Policy{Name: "cluster", Spec: []byte(`{"failures":1}`), Approves: []string{"upmap-wave"}}},
		&coordinatorv1.ChangePlanRequest{Id: "x", Verb: coordinatorv1.ChangePlanRequest_VERB_PAUSE, Why: "w"},
		&coordinatorv1.Throttle{BackfillsPerOsd: 3, BytesPerSecond: 1 << 63},
		&coordinatorv1.ListPlansRequest{PageSize: 3, PageToken: "a", Over: true},
		&coordinatorv1.ListHistoryRequest{PageToken: "-1"},
		&coordinatorv1.ReportNodeRequest{Boot: "b", Generation: 2, Inventory: []byte(`{}`)},
		&coordinatorv1.SetSubjectRequest{Subject: "placement", State: []byte(`{"a":1}`)},
		&coordinatorv1.SetSubjectRequest{Subject: "stack media on n1", State: []byte(`{"a":1}`)},
		&coordinatorv1.ReportStepRequest{Plan: "x", Term: 1, Record: []byte(`{"event":"begun"}`)},
		&coordinatorv1.ProposePlanRequest{Plan: []byte(`{"version":1}`)},
		&coordinatorv1.PlanPoolRequest{Name: "vms", Policy: []byte(`{}`)},
		&coordinatorv1.CreateTokenRequest{Role: "agent", Name: "n7", Ttl: durationpb.New(time.Hour)},
	} {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		for method := range coordinatorv1.Coordinator_ServiceDesc.Methods {
			f.Add(uint8(method), data, uint8(i+method))
		}
	}
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	m := newMemory()
	s := serverOn(f, m, "c1")
	s.CA = &ca
	contexts, ids := callers(f, ca)
	f.Fuzz(func(t *testing.T, method uint8, data []byte, who uint8) {
		m.mu.Lock()
		m.state = fsm.New()
		m.mu.Unlock()
		s.limits.callers = map[string]*bucket{}
		s.planner, s.pools = cluster{t}, cluster{t}
		ctx, id := contexts[int(who)%len(contexts)], ids[int(who)%len(ids)]
		desc := coordinatorv1.Coordinator_ServiceDesc.Methods[int(method)%len(coordinatorv1.Coordinator_ServiceDesc.Methods)]
		before, err := m.state.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // again: it is remembered, or refused
			_, err = desc.Handler(s, ctx, func(v any) error {
				r, ok := v.(proto.Message)
				if !ok {
					t.Fatalf("%T", v)
				}
				return proto.Unmarshal(data, r)
			}, s.unary)
		}
		encoded, failed := m.state.Encode()
		if failed != nil {
			t.Fatal(failed)
		}
		if _, err := fsm.DecodeState(encoded); err != nil {
			t.Fatalf("%v: %s", err, encoded)
		}
		only := []string{"SetPolicy", "SetThrottle", "PlanRebalance", "PlanPool", "CreateToken", "AddMember", "RemoveMember", "Transfer", "SetMaintenance"}
		if slices.Contains(only, desc.MethodName) && !slices.Contains(persons, id.Role) && (err == nil || !bytes.Equal(before, encoded)) {
			t.Errorf("%s calls %s: %v", id, desc.MethodName, err)
		}
	})
}
