// Package placement holds plans against a real cluster: what a plan promises is what
// `ceph pg dump` says after its commands.
package placement

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// weights of the six OSDs.
var weights = []string{"1", "1", "2", "2", "3", "4"}

// cluster of six OSDs: that of HOLDFAST_TEST_CLUSTER, if it has as many, or one of its own.
func cluster(t *testing.T) realceph.Cluster {
	t.Helper()
	if os.Getenv("HOLDFAST_TEST_CLUSTER") != "" {
		c := realceph.Need(t)
		if n := len(strings.Fields(c.Tool(t, "ceph", "osd", "ls"))); n != len(weights) {
			t.Skipf("the cluster has %d OSDs, and the weights are for %d", n, len(weights))
		}
		return c
	}
	return realceph.Own(t, "/var/tmp/hf-placement", "--osds", strconv.Itoa(len(weights)), "--osd-size", "4GiB")
}

// mix gives the OSDs their weights, makes pools of two kinds and puts data into them.
func mix(t *testing.T, c realceph.Cluster) {
	t.Helper()
	for osd, w := range weights {
		c.Tool(t, "ceph", "osd", "crush", "reweight", "osd."+strconv.Itoa(osd), w)
	}
	c.Tool(t, "ceph", "balancer", "off")
	c.Tool(t, "ceph", "osd", "set-require-min-compat-client", "luminous", "--yes-i-really-mean-it")
	c.Tool(t, "ceph", "osd", "erasure-code-profile", "set", "plan21", "k=2", "m=1", "crush-failure-domain=osd")
	c.Tool(t, "ceph", "osd", "pool", "create", "plan-r", "64", "64", "replicated", "--autoscale-mode=off")
	c.Tool(t, "ceph", "osd", "pool", "create", "plan-e", "32", "32", "erasure", "plan21", "--autoscale-mode=off")
	for _, pool := range []string{"plan-r", "plan-e"} {
		c.Tool(t, "rados", "-p", pool, "bench", "3", "write", "-b", "65536", "--no-cleanup")
		t.Cleanup(func() {
			_, _ = c.TryTool("ceph", "config", "set", "mon", "mon_allow_pool_delete", "true")
			_, _ = c.TryTool("ceph", "osd", "pool", "delete", pool, pool, "--yes-i-really-really-mean-it")
		})
	}
}

// pgState is what `ceph pg dump` says of a PG.
type pgState struct {
	ID        string         `json:"pgid"`
	State     string         `json:"state"`
	Up        []crush.ItemID `json:"up"`
	Acting    []crush.ItemID `json:"acting"`
	UpPrimary crush.ItemID   `json:"up_primary"`
}

// settled waits until all PGs are active and clean, and returns them with the dump.
func settled(t *testing.T, c realceph.Cluster) ([]pgState, string) {
	t.Helper()
	deadline := time.NewTimer(3 * time.Minute)
	defer deadline.Stop()
	for {
		text := c.Tool(t, "ceph", "pg", "dump", "-f", "json")
		var dump struct {
			Map struct {
				PGs []pgState `json:"pg_stats"`
			} `json:"pg_map"`
		}
		if err := json.Unmarshal([]byte(text), &dump); err != nil {
			t.Fatal(err)
		}
		busy := slices.IndexFunc(dump.Map.PGs, func(p pgState) bool { return !strings.HasPrefix(p.State, "active+clean") })
		if busy < 0 {
			return dump.Map.PGs, text
		}
		select {
		case <-deadline.C:
			t.Fatalf("pg %s is %s", dump.Map.PGs[busy].ID, dump.Map.PGs[busy].State)
		case <-time.After(time.Second):
		}
	}
}

// dumps writes the three dumps that plans are made from and returns the command's flags.
func dumps(t *testing.T, c realceph.Cluster, pgs string) []string {
	t.Helper()
	dir := t.TempDir()
	osds, crushMap, pg := filepath.Join(dir, "osd.json"), filepath.Join(dir, "crush.bin"), filepath.Join(dir, "pg.json")
	c.Tool(t, "ceph", "osd", "getcrushmap", "-o", crushMap)
	for file, text := range map[string]string{osds: c.Tool(t, "ceph", "osd", "dump", "-f", "json"), pg: pgs} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"--osdmap", osds, "--crush", crushMap, "--pgs", pg}
}

func read(t *testing.T, flags []string) placement.Cluster {
	t.Helper()
	var data [3][]byte
	for i := range data {
		var err error
		if data[i], err = os.ReadFile(flags[2*i+1]); err != nil {
			t.Fatal(err)
		}
	}
	var c placement.Cluster
	var err error
	if c.OSDs, err = osdmap.Parse(data[0]); err != nil {
		t.Fatal(err)
	}
	if c.Crush, err = crush.Parse(data[1]); err != nil {
		t.Fatal(err)
	}
	if c.PGs, c.Disks, err = placement.ParsePGDump(data[2]); err != nil {
		t.Fatal(err)
	}
	return c
}

// differences are the PGs whose computed mapping is not what the cluster says.
func differences(t *testing.T, c placement.Cluster, pgs []pgState) (list []string) {
	t.Helper()
	mapper, err := osdmap.NewMapper(c.OSDs, c.Crush)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pgs {
		id, err := osdmap.ParsePG(p.ID)
		if err != nil {
			t.Fatal(err)
		}
		m, err := mapper.Map(id)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(m.Up, p.Up) || !slices.Equal(m.Acting, p.Acting) || m.UpPrimary != p.UpPrimary {
			list = append(list, fmt.Sprintf("pg %s is up on %v, acting %v; computed %v, %v", p.ID, p.Up, p.Acting, m.Up, m.Acting))
		}
	}
	return list
}

// same waits until the cluster is at the computed mappings, and returns its last dump: a PG tells of the newest map only
// some time after it has it.
func same(t *testing.T, when string, c placement.Cluster, cluster realceph.Cluster) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		pgs, text := settled(t, cluster)
		list := differences(t, c, pgs)
		if len(list) == 0 {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", when, strings.Join(list, "\n"))
		}
	}
}

// balance runs `holdfast placement balance`.
func balance(t *testing.T, flags []string, format string) string {
	t.Helper()
	args := append([]string{"placement", "balance", "-o", format}, flags...)
	out, err := exec.CommandContext(t.Context(), realceph.Binary(t, "holdfast"), args...).Output()
	if err != nil {
		t.Fatalf("holdfast placement balance: %v", err)
	}
	return string(out)
}

func TestACarriedOutPlanIsWhatTheClusterSays(t *testing.T) {
	c := cluster(t)
	mix(t, c)
	_, text := settled(t, c)
	text = same(t, "before", read(t, dumps(t, c, text)), c)
	flags := dumps(t, c, text)
	before := read(t, flags)

	var plan placement.Balance
	if err := json.Unmarshal([]byte(balance(t, flags, "json")), &plan); err != nil {
		t.Fatal(err)
	}
	commands := strings.Split(strings.TrimSpace(balance(t, flags, "commands")), "\n")
	t.Logf("usable %.2f %% -> %.2f %% (bound %.2f %%), %d moves (at least %d), %d commands; %s",
		plan.UsableBefore*100, plan.UsableAfter*100, plan.Bound*100, plan.Moves, plan.MovesLowerBound, len(commands), plan.LimitedBy)
	promised, err := placement.PlanBalance(before, placement.BalanceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range promised.Upmaps {
		if commands[i] != u.Command() {
			t.Fatalf("command %d is %q, the plan says %q", i, commands[i], u.Command())
		}
		before.OSDs.UpmapItems[u.PG] = u.Pairs
		c.Tool(t, strings.Fields(commands[i])...)
	}
	after := read(t, dumps(t, c, same(t, "planned", before, c)))
	same(t, "after", after, c)
	again, err := placement.PlanBalance(after, placement.BalanceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("afterwards usable %.2f %%, %d moves more", again.UsableBefore*100, again.Moves)
}

// TestWavesAreWhatTheClusterSays gives an OSD three times its weight, and carries out the plan
// for that in waves: after each step PGs are where the plan has them by then.
func TestWavesAreWhatTheClusterSays(t *testing.T) {
	c := cluster(t)
	mix(t, c)
	_, text := settled(t, c)
	text = same(t, "before", read(t, dumps(t, c, text)), c)
	edit := read(t, dumps(t, c, text)).Edit("")
	if err := edit.Replace(0, 3*storage.TiB); err != nil {
		t.Fatal(err)
	}
	path, err := edit.Path()
	if err != nil {
		t.Fatal(err)
	}
	// The disks are not what their weights say: how full they are is no matter here.
	path.Before.Disks, path.During.Disks, path.After.Disks = nil, nil, nil
	change, err := placement.PlanChange(path.Before, path.After, placement.PreferBytes)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := placement.PlanWaves(path, change, placement.WaveOptions{Backfills: 6})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range plan.Steps {
		for _, line := range step.Commands() {
			if strings.HasPrefix(line, "echo ") { // what is done by hand
				line = "ceph osd crush reweight osd.0 3"
			}
			c.Tool(t, strings.Fields(line)...)
		}
		text = same(t, fmt.Sprintf("step %d, %s", i+1, step), step.After, c)
	}
	t.Logf("%d moves (at least %d) in %d steps, %d PGs held back", change.Moves, change.MovesLowerBound, len(plan.Steps), plan.HeldBack)
	after := read(t, dumps(t, c, text))
	for _, u := range change.Upmaps {
		if have := after.OSDs.UpmapItems[u.PG]; !slices.Equal(ends(have), ends(u.Pairs)) {
			t.Errorf("%s has the upmaps %v in the end, the plan %v", u.PG, have, u.Pairs)
		}
	}
}

// ends are the OSDs that pairs take shards from, by number, then those that they give them to. Which goes to which is of no matter to the
// data, and a wave keeps the pairs of those before it.
func ends(pairs []osdmap.Pair) []crush.ItemID {
	var from, to []crush.ItemID
	for _, p := range pairs {
		from, to = append(from, p.From), append(to, p.To)
	}
	slices.Sort(from)
	slices.Sort(to)
	return append(from, to...)
}
