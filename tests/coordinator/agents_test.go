package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/osd"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// node is a machine with disks and an agent, which coordinators give orders.
type node struct {
	*cluster

	admin who
	ceph  realceph.Cluster
	agent *exec.Cmd
	loops []string
}

// newNode brings a Ceph cluster, coordinators and the agent of node n1 up.
func newNode(t *testing.T, coordinators int) *node {
	t.Helper()
	if _, err := exec.LookPath("losetup"); err != nil {
		realceph.Missing(t, "needs losetup: apt-get install mount")
	}
	dir, err := os.MkdirTemp("/var/tmp", "hfa") // short: Unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &node{ceph: realceph.Own(t, filepath.Join(dir, "c"), "--osds", "3", "--osd-size", "1GiB", "--no-csi")}
	t.Cleanup(func() { // before the cluster goes
		for id := 3; id < 6; id++ {
			_ = osd.Processes{Paths: daemon.Paths{Dir: n.ceph.Dir}}.Stop(context.Background(), id)
		}
		for _, loop := range n.loops {
			_ = exec.Command("losetup", "--detach", loop).Run()
		}
	})
	n.cluster = start(t, coordinators, nil)
	n.admin = who{t, n.client(n.open("admin"))}
	n.issue("agent", "n1")
	return n
}

// disk makes a blank disk and returns its identity.
func (n *node) disk(name string) string {
	n.t.Helper()
	file := filepath.Join(filepath.Dir(n.ceph.Dir), name)
	err := os.WriteFile(file, nil, 0o600)
	if err == nil {
		err = os.Truncate(file, 4<<30)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := exec.CommandContext(n.t.Context(), "losetup", "--find", "--show", file).Output()
	if err != nil {
		n.t.Fatal(err)
	}
	n.loops = append(n.loops, strings.TrimSpace(string(out)))
	return "serial." + file
}

// runAgent starts the agent.
func (n *node) runAgent() {
	n.t.Helper()
	args := []string{"agent", "--data-dir", n.ceph.Dir, "--node-id", "n1", "--min-size", "1GiB", "--metrics-listen", "127.0.0.1:0", "--certs", n.certs("agent-n1"), "--coordinators"}
	var addresses []string
	for _, name := range n.names {
		addresses = append(addresses, n.address[name])
	}
	args = append(args, strings.Join(addresses, ","))
	for _, loop := range n.loops {
		args = append(args, "--device", loop)
	}
	log, err := os.OpenFile(n.agentLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	n.agent = exec.Command(filepath.Join(bin, "holdfastd"), args...)
	n.agent.Stdout, n.agent.Stderr = log, log
	if err := n.agent.Start(); err != nil {
		n.t.Fatal(err)
	}
	agent := n.agent
	n.t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
	n.await("the agent runs plans", func() bool {
		s, err := n.local().Status(n.t.Context())
		return err == nil && s.Waiting == "" && s.Generation > 0
	})
}

func (n *node) agentLog() string        { return filepath.Join(n.dir, "agent.log") }
func (n *node) local() *agentapi.Client { return agentapi.NewClient(n.ceph.Dir) }
func (n *node) killAgent()              { _ = n.agent.Process.Kill(); _ = n.agent.Wait() }

func (n *node) await(what string, is func() bool) {
	n.t.Helper()
	for end := time.Now().Add(90 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			agent, _ := os.ReadFile(n.agentLog())
			n.t.Fatalf("it never came to be that %s\nagent: %s\n%s", what, agent, n.logs())
		}
	}
}

// plan has the agent plan something for an OSD, and waits until the coordinators have it.
func (n *node) plan(r agentapi.OSDRequest) plan.Plan {
	n.t.Helper()
	made, err := n.local().PlanOSD(n.t.Context(), r)
	if err != nil {
		n.t.Fatal(err)
	}
	n.await("plan "+string(made.Plan.ID)+" is handed over", func() bool { return n.phase(made.Plan.ID) == "proposed" })
	return made.Plan
}

func (n *node) get(id plan.ID) (*v1.Plan, error) {
	return ask(n.admin, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
		return api.GetPlan(ctx, &v1.GetPlanRequest{Id: string(id)}, o...)
	})
}

// phase is where the coordinators have a plan, "" if they have none.
func (n *node) phase(id plan.ID) string {
	n.t.Helper()
	m, err := n.get(id)
	if err != nil && !errors.Is(err, fault.NotFound) {
		n.t.Fatal(err)
	}
	return m.GetPhase()
}

func (n *node) must(verb v1.ChangePlanRequest_Verb, p plan.Plan) {
	n.t.Helper()
	if _, err := n.admin.change(verb, p.ID, p.Token()); err != nil {
		n.t.Fatal(err)
	}
}

// reach waits until the agent is at a step, or the plan has ended there.
func (n *node) reach(p plan.Plan, step int) {
	n.t.Helper()
	n.await(fmt.Sprintf("the agent is at step %d", step+1), func() bool {
		list, err := n.local().Plans(n.t.Context())
		if err != nil {
			return false
		}
		for _, e := range list {
			if e.Plan.ID == p.ID {
				return e.Status.Step >= step && e.Status.Phase != executor.Proposed
			}
		}
		return false
	})
}

// TestAgentsTakeTheirOrdersFromCoordinators makes an OSD of a disk and removes it, by plans that coordinators have approved, while their
// leader, all of them, and the agent are killed.
func TestAgentsTakeTheirOrdersFromCoordinators(t *testing.T) {
	n := newNode(t, 3)
	first := n.disk("first")
	n.runAgent()
	n.await("the node's disks are known", func() bool {
		list, err := ask(n.admin, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.ListNodesResponse, error) {
			return api.ListNodes(ctx, &v1.ListNodesRequest{Inventory: true}, o...)
		})
		return err == nil && len(list.GetNodes()) == 1 && list.GetNodes()[0].GetName() == "n1" && strings.Contains(string(list.GetNodes()[0].GetInventory()), first)
	})

	made, rival := n.plan(agentapi.OSDRequest{Do: "prepare", Disk: first}), n.plan(agentapi.OSDRequest{Do: "prepare", Disk: first, Class: "ssd"})
	if _, err := n.local().Do(t.Context(), made.ID, agentapi.Approve, made.Token()); !errors.Is(err, fault.Aborted) || !strings.Contains(err.Error(), "coordinators") {
		t.Errorf("approved beside the coordinators: %v", err)
	}
	n.must(v1.ChangePlanRequest_VERB_APPROVE, made)
	if _, err := n.admin.change(v1.ChangePlanRequest_VERB_APPROVE, rival.ID, rival.Token()); err == nil || !strings.Contains(err.Error(), "plan "+string(made.ID)+" is approved") {
		t.Errorf("two plans for one disk: %v", err)
	}
	n.reach(made, 1)
	leader := n.leader(n.admin.client)
	n.end(leader, syscall.SIGKILL)
	t.Logf("killed leader %s while the plan is %s", leader, n.phase(made.ID))
	n.await("the OSD is made", func() bool { return n.phase(made.ID) == "completed" })
	n.run(leader)
	n.await("a stale plan is refused", func() bool {
		_, err := n.admin.change(v1.ChangePlanRequest_VERB_APPROVE, rival.ID, rival.Token())
		return errors.Is(err, fault.Precondition) && strings.Contains(err.Error(), "stale") && strings.Contains(err.Error(), "disks[0].contents")
	})
	if out := n.ceph.Tool(t, "ceph", "osd", "ls"); strings.TrimSpace(out) != "0\n1\n2\n3" {
		t.Errorf("OSDs: %s", out)
	}

	gone := n.plan(agentapi.OSDRequest{Do: "remove", ID: 3})
	n.killAgent()
	n.must(v1.ChangePlanRequest_VERB_APPROVE, gone)
	n.must(v1.ChangePlanRequest_VERB_PAUSE, gone)
	if out := n.holdfast("nodes", "maintenance", "n1", "--why", "fan", "--certs", n.certs("admin")); !strings.Contains(out, "node n1 is in maintenance: fan") {
		t.Error(out)
	}
	n.runAgent()
	if list, err := n.local().Plans(t.Context()); err != nil || len(list) != 1 || list[0].Plan.ID != made.ID {
		t.Errorf("a plan that is paused was begun: %+v, %v", list, err)
	}
	n.must(v1.ChangePlanRequest_VERB_RESUME, gone)
	if out := n.holdfast("nodes", "list", "--certs", n.certs("admin")); !strings.Contains(out, "n1") || !strings.Contains(out, "maintenance: fan") {
		t.Error(out)
	}
	n.holdfast("nodes", "maintenance", "n1", "--end", "--certs", n.certs("admin"))
	n.reach(gone, 1)
	n.killAgent()
	t.Logf("killed the agent while the plan is %s", n.phase(gone.ID))
	for _, name := range n.names {
		n.end(name, syscall.SIGKILL)
	}
	n.runAgent() // it goes on alone
	for _, name := range n.names {
		n.run(name)
	}
	n.await("the OSD is removed", func() bool { return n.phase(gone.ID) == "completed" })
	if out := n.ceph.Tool(t, "ceph", "osd", "ls"); strings.TrimSpace(out) != "0\n1\n2" {
		t.Errorf("OSDs: %s", out)
	}

	// As a person does it on the machine, in one command.
	second := n.disk("second")
	n.killAgent()
	n.runAgent()
	out := n.holdfast("--data-dir", n.ceph.Dir, "osd", "prepare", second, "--yes", "--certs", n.certs("admin"))
	if !strings.Contains(out, "completed") || !strings.Contains(out, "is done") {
		t.Error(out)
	}
	if out := n.holdfast("plan", "list", "--all", "--data-dir", t.TempDir(), "--certs", n.certs("admin")); strings.Count(out, "completed") != 3 {
		t.Error(out)
	}

	// The node has heard of a leader of a later term than any that these coordinators give.
	third := n.disk("third")
	n.killAgent()
	if err := os.WriteFile(filepath.Join(n.ceph.Dir, "plans", "term"), []byte("1000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.runAgent()
	late := n.plan(agentapi.OSDRequest{Do: "prepare", Disk: third})
	n.must(v1.ChangePlanRequest_VERB_APPROVE, late)
	n.await("orders of a deposed leader are refused", func() bool {
		m, err := n.get(late.ID)
		return err == nil && m.GetPhase() == "stopped" && strings.Contains(string(m.GetStatus()), "is over, the newest is 1000000")
	})
}
