package coordinator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rebalance"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// mixedHosts spreads six OSDs over pretend hosts of mixed sizes: h1 has 1 and 1 TiB, h2 2, h3 3; osd.4 and osd.5 run and are in no host
// yet. The pool has two copies over hosts, and data.
func mixedHosts(t *testing.T, ceph realceph.Cluster) {
	t.Helper()
	ceph.Tool(t, "ceph", "balancer", "off")
	ceph.Tool(t, "ceph", "osd", "set-require-min-compat-client", "luminous", "--yes-i-really-mean-it")
	for osd, place := range [][2]string{{"h1", "1"}, {"h1", "1"}, {"h2", "2"}, {"h3", "3"}} {
		ceph.Tool(t, "ceph", "osd", "crush", "set", "osd."+strconv.Itoa(osd), place[1], "root=default", "host="+place[0])
	}
	for _, osd := range []string{"osd.4", "osd.5"} {
		ceph.Tool(t, "ceph", "osd", "crush", "rm", osd)
	}
	ceph.Tool(t, "ceph", "osd", "crush", "rule", "create-replicated", "hosts", "default", "host")
	ceph.Tool(t, "ceph", "osd", "pool", "create", "mixed", "64", "64", "replicated", "hosts", "--autoscale-mode=off")
	ceph.Tool(t, "ceph", "osd", "pool", "set", "mixed", "size", "2")
	ceph.Tool(t, "ceph", "osd", "pool", "set", "mixed", "min_size", "1")
	for _, pool := range strings.Fields(ceph.Tool(t, "ceph", "osd", "pool", "ls")) {
		ceph.Tool(t, "ceph", "osd", "pool", "set", pool, "crush_rule", "hosts")
	}
	ceph.Tool(t, "rados", "-p", "mixed", "bench", "8", "write", "-b", "262144", "--no-cleanup", "--run-name", "data")
	settle(t, ceph)
}

// clients read at random and write the same objects over and over, so that PGs hold as much at the end as at the beginning.
func clients(t *testing.T, ceph realceph.Cluster) {
	t.Helper()
	block := filepath.Join(t.TempDir(), "block")
	if err := os.WriteFile(block, make([]byte, 65536), 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(i int) error {
		_, err := ceph.TryTool("rados", "-p", "mixed", "put", fmt.Sprint("client-", i%32), block)
		return err
	}
	for i := range 32 {
		if err := write(i); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := write(i); err != nil {
				t.Errorf("a client's write: %v", err)
				return
			}
		}
	})
	wait.Go(func() {
		for ctx.Err() == nil {
			_ = exec.CommandContext(ctx, "rados", "--conf", filepath.Join(ceph.Dir, "ceph.conf"), "-p", "mixed", "bench", "30", "rand", "-t", "1", "--run-name", "data").Run()
		}
	})
	t.Cleanup(func() {
		stop()
		wait.Wait()
	})
}

// shards are what `ceph pg dump` says of PGs.
type shards struct {
	Up    []int32 `json:"up"`
	Bytes int64
}

// pgDump reads where PGs are and what they hold, once the reports of all are in.
func pgDump(t *testing.T, ceph realceph.Cluster) map[string]shards {
	t.Helper()
	var dump struct {
		Map struct {
			PGs []struct {
				shards

				ID  string `json:"pgid"`
				Sum struct {
					Bytes int64 `json:"num_bytes"`
				} `json:"stat_sum"`
			} `json:"pg_stats"`
		} `json:"pg_map"`
	}
	read(t, ceph.Tool(t, "ceph", "pg", "dump", "-f", "json"), &dump)
	pgs := map[string]shards{}
	for _, p := range dump.Map.PGs {
		p.shards.Bytes = p.Sum.Bytes
		pgs[p.ID] = p.shards
	}
	return pgs
}

// moved sums up the bytes of shards on OSDs that a PG was not on before.
func moved(before, after map[string]shards) (bytes int64) {
	for id, p := range after {
		for _, osd := range p.Up {
			if !slices.Contains(before[id].Up, osd) {
				bytes += before[id].Bytes
			}
		}
	}
	return bytes
}

// TestChangesOfTheClusterReachTheirPlannedBalance adds a host to a real cluster, gives two OSDs larger disks, and drains a host, each by
// a plan of the coordinators, with clients at work all the time and the leader killed twice: each plan moves as many bytes as it said, and
// leaves every PG where it said.
func TestChangesOfTheClusterReachTheirPlannedBalance(t *testing.T) {
	ceph := realceph.Own(t, ownDir("change"), "--osds", "6", "--osd-size", "4GiB", "--no-csi")
	mixedHosts(t, ceph)
	c := cephCluster(t, ceph)
	client := c.client(c.open("admin"))
	c.leader(client)
	clients(t, ceph)
	c.carryOut(t, client, ceph, 1, "coordinator", "rebalance", "--add-host", "h4=4:2TiB,5:3TiB")
	c.carryOut(t, client, ceph, 1, "coordinator", "rebalance", "--replace", "0=2TiB", "--replace", "1=3TiB")
	c.carryOut(t, client, ceph, 0, "nodes", "drain", "h2")
	for id, p := range pgDump(t, ceph) {
		if slices.Contains(p.Up, 2) {
			t.Errorf("PG %s is on the drained osd.2: %v", id, p.Up)
		}
	}
}

// waveBackfills are those of the plans: few for many small waves, which take minutes.
func waveBackfills() string {
	if n := os.Getenv("HOLDFAST_WAVE_BACKFILLS"); n != "" {
		return n
	}
	return "8"
}

// ownDir is where a test's own cluster lies.
func ownDir(name string) string {
	base := os.Getenv("HOLDFAST_TEST_BASE")
	if base == "" {
		base = "/var/tmp/hf-"
	}
	return base + name
}

// carryOut plans a change, approves the plan, kills the leader so many times on the way, and holds the outcome against the plan.
func (c *cluster) carryOut(t *testing.T, client *coordinatorapi.Client, ceph realceph.Cluster, kills int, change ...string) {
	t.Helper()
	admin := []string{"--certs", filepath.Join(c.dir, "init", "admin")}
	settle(t, ceph)
	before := pgDump(t, ceph)
	var proposed struct {
		Plan plan.Plan `json:"plan"`
	}
	read(t, c.holdfast(slices.Concat(change, []string{"--wave-backfills", waveBackfills(), "-o", "json"}, admin)...), &proposed)
	p := proposed.Plan
	t.Logf("%v: plan %s: %d steps, %s; %v", change, p.ID, len(p.Steps), p.Sync, p.Notes)
	c.holdfast(slices.Concat([]string{"plan", "approve", string(p.ID), "--token", p.Token()}, admin)...)
	f := c.follow(t, client, p, kills)
	settle(t, ceph)
	if f.likely > 0 {
		t.Logf("forecast %v at %.0f %% of the bytes; it took %v more: %+.0f %%", f.likely, 100*f.part, f.took, 100*(f.likely.Seconds()/f.took.Seconds()-1))
	}
	var want rebalance.State
	if err := json.Unmarshal(p.State, &want); err != nil {
		t.Fatal(err)
	}
	if got := upmapsOf(t, ceph); !maps.EqualFunc(got, want.Upmaps, slices.Equal[[][2]int32]) {
		t.Errorf("the upmaps are %v, and the plan said %v", got, want.Upmaps)
	}
	after := pgDump(t, ceph)
	bytes := moved(before, after)
	t.Logf("moved %d bytes by pg dump, %d by the plan", bytes, p.Sync)
	if off := math.Abs(float64(bytes-int64(p.Sync))) / float64(p.Sync); off > 0.02 {
		t.Errorf("%d bytes have moved by pg dump, and the plan said %d", bytes, p.Sync)
	}
}

// forecast is what a plan said after a tenth of its bytes.
type forecast struct {
	part         float64
	likely, took time.Duration
}

// follow waits for a plan's end. Leaders are killed from the second step on.
func (c *cluster) follow(t *testing.T, client *coordinatorapi.Client, p plan.Plan, kills int) (f forecast) {
	t.Helper()
	var since time.Time
	for at := 2; ; time.Sleep(200 * time.Millisecond) {
		phase, s := c.statusOf(client, p.ID)
		switch {
		case phase == string(fsm.Completed):
			if !since.IsZero() {
				f.took = time.Since(since)
			}
			if kills > 0 {
				t.Errorf("the plan was over before %d more leaders could be killed", kills)
			}
			return f
		case phase != string(fsm.Approved) && phase != string(fsm.Running):
			t.Fatalf("the plan is %s: %s\n%s", phase, s, c.logs())
		case since.IsZero() && s.Ahead != nil && 10*s.Ahead.Left <= 9*p.Sync:
			since = time.Now()
			f.likely, f.part = time.Duration(s.Ahead.Likely)*time.Second, 1-float64(s.Ahead.Left)/float64(p.Sync)
			t.Log(s)
		case kills > 0 && s.Step >= at:
			leader := c.leader(client)
			c.end(leader, syscall.SIGKILL)
			t.Logf("killed %s in step %d", leader, s.Step+1)
			c.leader(client, leader)
			c.run(leader)
			kills, at = kills-1, s.Step+1
		}
	}
}

// statusOf is where a plan is.
func (c *cluster) statusOf(client *coordinatorapi.Client, id plan.ID) (string, executor.Status) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	m, err := coordinatorapi.Call(ctx, client, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.Plan, error) {
		return api.GetPlan(ctx, &coordinatorv1.GetPlanRequest{Id: string(id)}, o...)
	})
	if err != nil {
		c.t.Fatalf("%v\n%s", err, c.logs())
	}
	var status executor.Status
	if err := json.Unmarshal(m.GetStatus(), &status); err != nil {
		c.t.Fatal(err)
	}
	return m.GetPhase(), status
}
