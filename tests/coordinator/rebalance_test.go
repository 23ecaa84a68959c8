package coordinator_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rebalance"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// TestARebalanceSurvivesItsLeaders moves PGs of a real cluster of mixed OSDs in waves, under load, with the leader killed twice on
// the way: the upmaps at the end are those of the plan, and all PGs are active+clean with them.
func TestARebalanceSurvivesItsLeaders(t *testing.T) {
	ceph := realceph.Own(t, ownDir("rebalance"), "--osds", "6", "--osd-size", "4GiB", "--no-csi")
	for osd, w := range []string{"1", "1", "2", "2", "3", "4"} {
		ceph.Tool(t, "ceph", "osd", "crush", "reweight", "osd."+strconv.Itoa(osd), w)
	}
	ceph.Tool(t, "ceph", "osd", "set-require-min-compat-client", "luminous", "--yes-i-really-mean-it")
	ceph.Tool(t, "ceph", "osd", "pool", "create", "mixed", "64", "64", "replicated", "--autoscale-mode=off")
	ceph.Tool(t, "rados", "-p", "mixed", "bench", "6", "write", "-b", "262144", "--no-cleanup")
	settle(t, ceph)
	c := cephCluster(t, ceph)
	admin := filepath.Join(c.dir, "init", "admin")
	coordinator := func(args ...string) string {
		return c.holdfast(append(append([]string{"coordinator"}, args...), "--certs", admin)...)
	}
	plans := func(args ...string) string {
		return c.holdfast(append(append([]string{"plan"}, args...), "--certs", admin)...)
	}
	client := c.client(c.open("admin"))
	c.leader(client)
	var proposed struct {
		Plan plan.Plan `json:"plan"`
	}
	read(t, coordinator("rebalance", "--wave-backfills", "1", "-o", "json"), &proposed)
	p := proposed.Plan
	if len(p.Steps) < 3 {
		t.Fatalf("%d waves are too few for this test", len(p.Steps))
	}
	t.Logf("plan %s: %d waves, %s", p.ID, len(p.Steps), p.Sync)
	load := exec.CommandContext(t.Context(), "rados", "--conf", filepath.Join(ceph.Dir, "ceph.conf"), "-p", "mixed", "bench", "300", "write", "-b", "16384", "-t", "2", "--run-name", "load")
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	plans("approve", string(p.ID), "--token", p.Token())
	for kills, at := 0, 1; kills < 2; {
		switch phase, step := c.planAt(client, p.ID); {
		case phase != "approved" && phase != "running":
			t.Fatalf("the plan is %s at step %d, after %d kills\n%s", phase, step, kills, c.logs())
		case step >= at:
			leader := c.leader(client)
			c.end(leader, syscall.SIGKILL)
			t.Logf("killed %s in wave %d", leader, step+1)
			c.leader(client, leader)
			c.run(leader)
			kills, at = kills+1, step+1
		default:
			time.Sleep(200 * time.Millisecond)
		}
	}
	t.Log(plans("watch", string(p.ID)))
	if err := load.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the load did not last: %v", err)
	}
	_ = load.Process.Kill()
	_ = load.Wait()
	settle(t, ceph)
	var want rebalance.State
	if err := json.Unmarshal(p.State, &want); err != nil {
		t.Fatal(err)
	}
	if got := upmapsOf(t, ceph); !maps.EqualFunc(got, want.Upmaps, slices.Equal[[][2]int32]) {
		t.Errorf("the upmaps are %v, and the plan said %v", got, want.Upmaps)
	}
	var balancer struct {
		Active bool `json:"active"`
	}
	read(t, ceph.Tool(t, "ceph", "balancer", "status", "-f", "json"), &balancer)
	if balancer.Active {
		t.Error("the manager's balancer is on, beside the coordinators")
	}
}

// cephCluster starts three coordinators with a Ceph user of their own.
func cephCluster(t *testing.T, ceph realceph.Cluster) *cluster {
	t.Helper()
	args := []string{"ceph", "auth", "get-or-create-key", daemon.Coordinator}
	for service, caps := range daemon.CoordinatorCaps() {
		args = append(args, service, caps)
	}
	key := ceph.Tool(t, args...)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, 3, nil, "--ceph-monitors", strings.Join(ceph.Entry.Monitors, ","), "--ceph-key-file", file)
}

func read(t *testing.T, text string, into any) {
	t.Helper()
	_, rest, _ := strings.Cut(text, "{")
	if err := json.Unmarshal([]byte("{"+rest), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// settle waits until all PGs are active+clean.
func settle(t *testing.T, ceph realceph.Cluster) {
	t.Helper()
	for range 180 {
		if text := ceph.Tool(t, "ceph", "pg", "stat"); !strings.ContainsAny(text, "%") && strings.Contains(text, "active+clean") && !strings.Contains(text, "peering") && !strings.Contains(text, "remapped") && !strings.Contains(text, "unknown") {
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatal("the PGs do not become clean")
}

func upmapsOf(t *testing.T, ceph realceph.Cluster) map[string][][2]int32 {
	t.Helper()
	var dump struct {
		Items []struct {
			PG       string `json:"pgid"`
			Mappings []struct {
				From int32 `json:"from"`
				To   int32 `json:"to"`
			} `json:"mappings"`
		} `json:"pg_upmap_items"`
	}
	read(t, ceph.Tool(t, "ceph", "osd", "dump", "-f", "json"), &dump)
	all := map[string][][2]int32{}
	for _, item := range dump.Items {
		for _, m := range item.Mappings {
			all[item.PG] = append(all[item.PG], [2]int32{m.From, m.To})
		}
	}
	return all
}
