package coordinator_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// TestAPlanIsMadeAnewWhenAnOSDFails: in the middle of a throttled plan an OSD stops for good. The plan waits while copies are made anew,
// is superseded by one of the cluster as it is then, which a policy approves, and that one ends.
func TestAPlanIsMadeAnewWhenAnOSDFails(t *testing.T) {
	if os.Getenv("HOLDFAST_REBALANCE") == "" {
		t.Skip("takes minutes: `make test-rebalance` runs it")
	}
	ceph := realceph.Own(t, ownDir("failure"), "--osds", "6", "--osd-size", "4GiB", "--no-csi")
	mixedHosts(t, ceph)
	ceph.Tool(t, "ceph", "config", "set", "osd", "osd_heartbeat_grace", "6")
	c := cephCluster(t, ceph)
	client := c.client(c.open("admin"))
	c.leader(client)
	admin := []string{"--certs", filepath.Join(c.dir, "init", "admin")}
	policy := filepath.Join(c.dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte("cluster:\n  approves: [upmap-wave, crush-change]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.holdfast(append([]string{"policy", "apply", policy}, admin...)...)
	c.holdfast(append([]string{"coordinator", "throttle", "--rate", "8MiB/s"}, admin...)...)
	c.holdfast(append([]string{"coordinator", "rebalance", "--add-host", "h4=4:2TiB,5:3TiB", "-o", "json"}, admin...)...)
	first := c.plans(client)[0]
	for {
		phase, s := c.statusOf(client, plan.ID(first.GetId()))
		if s.Step > 1 {
			break
		}
		if phase != string(fsm.Approved) && phase != string(fsm.Running) {
			t.Fatalf("the plan is %s: %s\n%s", phase, s, c.logs())
		}
		time.Sleep(200 * time.Millisecond)
	}
	stopOSD(t, ceph, 3)
	for !strings.Contains(ceph.Tool(t, "ceph", "osd", "tree", "down"), "osd.3") {
		time.Sleep(time.Second)
	}
	ceph.Tool(t, "ceph", "osd", "out", "3") // as the monitors do some minutes later
	t.Log("osd.3 is down and out")
	var second *coordinatorv1.Plan
	for end := time.Now().Add(5 * time.Minute); second == nil; time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("no plan came after the failure: %v\n%s", c.plans(client), c.logs())
		}
		for _, p := range c.plans(client) {
			if p.GetId() != first.GetId() {
				second = p
			}
		}
	}
	if phase, s := c.statusOf(client, plan.ID(first.GetId())); phase != string(fsm.Abandoned) {
		t.Errorf("the first plan is %s: %s", phase, s)
	}
	if !strings.HasPrefix(second.GetApprovedBy(), "policy ") {
		t.Errorf("the second plan is %s, approved by %q", second.GetPhase(), second.GetApprovedBy())
	}
	t.Log(c.holdfast(append([]string{"coordinator", "throttle", "--rate", "0"}, admin...)...))
	t.Log(c.holdfast(append([]string{"plan", "watch", second.GetId()}, admin...)...))
	settle(t, ceph)
	for id, p := range pgDump(t, ceph) {
		if slices.Contains(p.Up, 3) {
			t.Errorf("PG %s is on the OSD that failed: %v", id, p.Up)
		}
	}
}

// plans are all of them.
func (c *cluster) plans(client *coordinatorapi.Client) []*coordinatorv1.Plan {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	list, err := coordinatorapi.Call(ctx, client, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.ListPlansResponse, error) {
		return api.ListPlans(ctx, &coordinatorv1.ListPlansRequest{Over: true}, o...)
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.GetPlans()
}

// stopOSD stops an OSD's process, which nobody starts anew then.
func stopOSD(t *testing.T, ceph realceph.Cluster, osd int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(ceph.Dir, "run", "osd."+strconv.Itoa(osd)+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	var process struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal(data, &process); err != nil || process.PID < 2 {
		t.Fatalf("%v: %s", err, data)
	}
	pid := process.PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
}
