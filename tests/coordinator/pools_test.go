package coordinator_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/tests/realceph"
)

const policies = `
cluster:
  failures: 1
  failure_domain: osd
  max_degraded_percent: 0.5
pools:
  vms: {bytes: 40GB, pgs_per_osd: 16}
`

// TestPoolsAreMadeAsPoliciesWantThem makes, sets and explains pools of a real cluster by plans of a coordinator.
func TestPoolsAreMadeAsPoliciesWantThem(t *testing.T) {
	ceph := realceph.Own(t, ownDir("pools"), "--osds", "4", "--osd-size", "4GiB", "--no-csi")
	c := cephCluster(t, ceph)
	c.leader(c.client(c.open("admin")))
	admin := []string{"--certs", filepath.Join(c.dir, "init", "admin")}
	run := func(args ...string) string { return c.holdfast(append(args, admin...)...) }
	file := filepath.Join(c.dir, "policy.yaml")
	if err := os.WriteFile(file, []byte(policies), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run("policy", "apply", file, "--dry-run"); !strings.Contains(out, "create") {
		t.Errorf("a dry run says %s", out)
	}
	run("policy", "apply", file)
	if out := run("policy", "apply", file); strings.Contains(out, "change") || strings.Contains(out, "create") {
		t.Errorf("applied twice it says %s", out)
	}
	if out := run("policy", "show"); !strings.Contains(out, "failure_domain: osd") || !strings.Contains(out, "vms:") {
		t.Errorf("policy show: %s", out)
	}
	if out := run("pool", "simulate", "vms"); !strings.Contains(out, "size 3, min_size 2, failure domain osd, 32 PGs") {
		t.Errorf("pool simulate: %s", out)
	}
	run("pool", "create", "vms", "--dry-run")
	if out := ceph.Tool(t, "ceph", "osd", "pool", "ls"); strings.Contains(out, "vms") {
		t.Fatalf("a dry run made the pool: %s", out)
	}
	t.Log(run("pool", "create", "vms", "--yes"))
	pool := poolOf(t, ceph, "vms")
	if pool.Size != 3 || pool.MinSize != 2 || pool.PGs != 32 || !strings.Contains(ceph.Tool(t, "ceph", "osd", "pool", "application", "get", "vms"), "rbd") {
		t.Errorf("vms is %+v", pool)
	}
	if rule := ceph.Tool(t, "ceph", "osd", "crush", "rule", "dump", "vms"); pool.Rule < 0 || !strings.Contains(rule, `"type": "osd"`) {
		t.Errorf("vms has the rule %d: %s", pool.Rule, rule)
	}
	refused := func(text string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "holdfast"), append(args, admin...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), text) {
			t.Errorf("%v: %v: %s, want %q", args, err, out, text)
		}
	}
	refused("there is a pool vms already", "pool", "create", "vms")
	refused("as its policy wants it", "pool", "set", "vms")
	refused("there is no pool none", "pool", "explain", "none")
	t.Log(run("pool", "set", "vms", "--failures", "3", "--bytes", "2TB", "--pgs-per-osd", "64", "--yes"))
	if pool = poolOf(t, ceph, "vms"); pool.Size != 4 || pool.MinSize != 3 || pool.PGs != 64 {
		t.Errorf("vms is %+v after it was set", pool)
	}
	t.Log(run("pool", "create", "bulk", "--profile", "backup", "--bytes", "4GB", "--yes"))
	t.Log(run("pool", "list", "-o", "wide"), run("pool", "show", "vms"), run("pool", "explain", "vms"))
	var list []struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	if err := json.Unmarshal([]byte(run("pool", "list", "-o", "json")), &list); err != nil || list[1].Name != "bulk" || list[1].Type != "erasure" {
		t.Errorf("%v: %+v", err, list)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(run("coordinator", "status", "-o", "json"), `"manager_balancer": "off"`); time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("status does not say that the manager's balancer is off: %s", run("coordinator", "status", "-o", "json"))
		}
	}
}

type poolState struct {
	Name    string `json:"pool_name"`
	Size    int    `json:"size"`
	MinSize int    `json:"min_size"`
	PGs     int    `json:"pg_num"`
	Rule    int    `json:"crush_rule"`
}

func poolOf(t *testing.T, ceph realceph.Cluster, name string) poolState {
	t.Helper()
	var dump struct {
		Pools []poolState `json:"pools"`
	}
	read(t, ceph.Tool(t, "ceph", "osd", "dump", "-f", "json"), &dump)
	for _, p := range dump.Pools {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no pool %s", name)
	return poolState{}
}
