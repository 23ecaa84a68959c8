// Package standalone runs `holdfast up` and its kin as a user does: the two programs,
// real Ceph, directories of its own.
package standalone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// cluster is a directory with the program that looks after it.
type cluster struct {
	t        *testing.T
	dir      string
	holdfast string
}

// need skips (in CI: fails) where the suite cannot run.
func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		realceph.Missing(t, "needs root")
	}
	if _, err := exec.LookPath("ceph-osd"); err != nil {
		realceph.Missing(t, "needs Ceph: run `make deps`")
	}
}

// newCluster returns a place for a cluster, under a path short enough for sockets, and
// removes what the test leaves.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	need(t)
	base := os.Getenv("HOLDFAST_TEST_STATE")
	if base == "" {
		base = "/var/tmp/hf-test"
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(base, "s")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, holdfast: realceph.Binary(t, "holdfast")}
	realceph.Binary(t, "holdfastd")
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log", "holdfastd.log"))
			t.Logf("supervisor's log:\n%s", tail(log, 4000))
		}
		_, _ = c.run("down", "--wipe", "--yes", "--force")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return c
}

func tail(data []byte, n int) []byte { return data[max(0, len(data)-n):] }

// command bounds a program: what hangs fails the test instead of stopping it.
func (c *cluster) command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	c.t.Cleanup(cancel)
	return exec.CommandContext(ctx, name, args...)
}

// run runs a verb; the text is stdout and stderr together.
func (c *cluster) run(args ...string) (string, error) {
	cmd := c.command(c.holdfast, append(args, "--data-dir", c.dir)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *cluster) must(args ...string) string {
	c.t.Helper()
	out, err := c.run(args...)
	if err != nil {
		c.t.Fatalf("holdfast %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refused runs a verb that must fail with all of the texts in what it says.
func (c *cluster) refused(want []string, args ...string) {
	c.t.Helper()
	out, err := c.run(args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		c.t.Fatalf("holdfast %s was not refused: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, text := range want {
		if !strings.Contains(out, text) {
			c.t.Errorf("holdfast %s: the refusal lacks %q:\n%s", strings.Join(args, " "), text, out)
		}
	}
}

func (c *cluster) status() *localapi.Status {
	c.t.Helper()
	cmd := c.command(c.holdfast, "status", "-o", "json", "--data-dir", c.dir)
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("status: %v", err)
	}
	var st localapi.Status
	if err := json.Unmarshal(out, &st); err != nil {
		c.t.Fatalf("status: %v\n%s", err, out)
	}
	return &st
}

// await asks until the status is as wanted.
func (c *cluster) await(what string, ok func(*localapi.Status) bool) *localapi.Status {
	c.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		st := c.status()
		if ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			text, _ := json.MarshalIndent(st, "", " ")
			c.t.Fatalf("waited in vain until %s:\n%s", what, text)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// as runs one of Ceph's programs as a user of the cluster.
func (c *cluster) as(user string, name string, args ...string) (string, error) {
	all := append([]string{"--conf", filepath.Join(c.dir, "ceph.conf"), "--name", "client." + user}, args...)
	cmd := c.command(name, all...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *cluster) put(object, text string) {
	c.t.Helper()
	cmd := c.command("rados", "--conf", filepath.Join(c.dir, "ceph.conf"), "--name", "client.admin", "-p", "rbd", "put", object, "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("put: %v\n%s", err, out)
	}
}

func (c *cluster) get(object string) string {
	c.t.Helper()
	out, err := c.as("admin", "rados", "-p", "rbd", "get", object, "-")
	if err != nil {
		c.t.Fatalf("get: %v\n%s", err, out)
	}
	return out
}

// pids are the processes of the directory: every one whose command line names it.
func (c *cluster) pids() map[int]string {
	list := map[int]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, err := os.ReadFile(file)
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		if err == nil && bytes.Contains(data, []byte(c.dir)) && pid != os.Getpid() {
			list[pid] = strings.ReplaceAll(strings.TrimSuffix(string(data), "\x00"), "\x00", " ")
		}
	}
	return list
}

// left are the processes that stay after `down`; the supervisor, which let go of the
// directory, may take a moment to be gone.
func (c *cluster) left() map[int]string {
	deadline := time.Now().Add(3 * time.Second)
	for len(c.pids()) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	return c.pids()
}

// killAll kills until none is left: a process that is being started at that moment does not have its
// command line yet.
func (c *cluster) killAll() { c.kill(func(string) bool { return true }) }

// kill does that to those whose command line is one of a kind.
func (c *cluster) kill(kind func(line string) bool) {
	c.t.Helper()
	pids := func() map[int]string {
		list := c.pids()
		maps.DeleteFunc(list, func(_ int, line string) bool { return !kind(line) })
		return list
	}
	deadline := time.Now().Add(30 * time.Second)
	for list := pids(); len(list) > 0; list = pids() {
		if time.Now().After(deadline) {
			c.t.Fatalf("processes outlive SIGKILL: %v", list)
		}
		for pid := range list {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (c *cluster) supervisor() int {
	c.t.Helper()
	for pid, line := range c.pids() {
		if strings.Contains(line, "holdfastd standalone") {
			return pid
		}
	}
	c.t.Fatal("no supervisor runs")
	return 0
}

func daemonNamed(st *localapi.Status, name string) localapi.Daemon {
	for _, d := range st.Daemons {
		if d.Name == name {
			return d
		}
	}
	return localapi.Daemon{}
}

var small = []string{"up", "--osds", "3", "--osd-size", "1GiB"}

func healthy(st *localapi.Status) bool {
	return st.Health == localapi.HealthOK && st.State == localapi.StateUp
}

func requireHealthy(t *testing.T, c *cluster) *localapi.Status {
	t.Helper()
	st := c.status()
	if !healthy(st) {
		t.Fatalf("the cluster is %s, %s: %+v", st.Health, st.State, st.Checks)
	}
	return st
}

func check(st *localapi.Status, code string) bool {
	for _, c := range st.Checks {
		if c.Code == code {
			return true
		}
	}
	return false
}
