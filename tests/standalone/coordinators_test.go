package standalone

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// TestTheCoordinatorsOfACluster has the supervisor look after three coordinators, also of a cluster that was made before there were any.
func TestTheCoordinatorsOfACluster(t *testing.T) {
	c := newCluster(t)
	c.must(append(small, "--no-csi", "--agent", "--coordinators", "3")...)
	st := requireHealthy(t, c)
	admin := filepath.Join(c.dir, "coordinator", "admin")
	if out := c.must("coordinator", "status", "--certs", admin); strings.Count(out, "follower") != 2 || strings.Count(out, "leader") != 1 {
		t.Error(out)
	}
	err := filepath.WalkDir(filepath.Join(c.dir, "coordinator"), func(path string, d fs.DirEntry, err error) error {
		if info, err := os.Stat(path); err == nil && !d.IsDir() && info.Mode().Perm()&0o077 != 0 && !strings.Contains(path, "snapshots") {
			t.Errorf("%s is open to others: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	c.await("a coordinator knows the cluster", func(*localapi.Status) bool {
		out, _ := c.run("coordinator", "rebalance") // with the certificate of the directory
		return strings.Contains(out, "as balanced as the rules allow")
	})
	if out := c.must("pool", "create", "vms", "--bytes", "1GB", "--failure-domain", "osd", "--yes", "--certs", admin); !strings.Contains(out, "completed") {
		t.Errorf("the coordinators' user cannot make a pool: %s", out)
	}
	pid := daemonNamed(st, "coordinator.c2").PID
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.await("the coordinator is started again", func(st *localapi.Status) bool {
		d := daemonNamed(st, "coordinator.c2")
		return d.State == localapi.DaemonRunning && d.PID != pid
	})
	c.must("down")
	if left := c.left(); len(left) > 0 {
		t.Fatalf("still running: %v", left)
	}
	c.refused([]string{"--coordinators 1", "made with 3"}, "up", "--coordinators", "1")
	c.upWithoutCoordinators(t)
	c.upgraded(t)
	c.must("down", "--wipe", "--yes")
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// upWithoutCoordinators brings up a cluster whose CA cannot be read, and that of one of whose coordinators another program has the port.
func (c *cluster) upWithoutCoordinators(t *testing.T) {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", fmt.Sprint(c.state(t).Coordinators[1].Port))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ca := filepath.Join(c.dir, "coordinator", "ca")
	if err := errors.Join(os.Rename(ca, ca+".away"), os.WriteFile(ca, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	c.refused([]string{"coordinators", ca}, "up")
	c.await("all OSDs are up without certificates", func(st *localapi.Status) bool {
		return st.OSDs.Up == 3 && check(st, "HF-UP-INCOMPLETE")
	})
	// At once: where it finds none, the next attempt makes a CA.
	if err := errors.Join(unix.Renameat2(unix.AT_FDCWD, ca, unix.AT_FDCWD, ca+".away", unix.RENAME_EXCHANGE), os.Remove(ca+".away")); err != nil {
		t.Fatal(err)
	}
	st := c.await("it is up, and says what is missing", func(st *localapi.Status) bool {
		return st.State == localapi.StateUp && (check(st, "HF-DAEMON-DOWN") || check(st, "HF-DAEMON-CRASHLOOP"))
	})
	if daemonNamed(st, "coordinator.c2").State == localapi.DaemonRunning || daemonNamed(st, "agent").State != localapi.DaemonRunning {
		t.Errorf("%+v", st.Daemons)
	}
}

// upgraded makes of a running cluster what an earlier version left, which knew no coordinators, and takes that up.
func (c *cluster) upgraded(t *testing.T) {
	t.Helper()
	for _, role := range []string{"standalone", "coordinator", "agent"} { // the supervisor first: it would start the others again
		c.kill(func(line string) bool { return strings.Contains(line, "holdfastd "+role) })
	}
	if err := os.RemoveAll(filepath.Join(c.dir, "coordinator")); err != nil {
		t.Fatal(err)
	}
	state := c.state(t)
	high := state.PortHigh + len(state.Coordinators)
	c.rewrite(t, high)
	old := c.oldAgent(t)
	c.must("up")
	requireHealthy(t, c)
	admin := filepath.Join(c.dir, "coordinator", "admin")
	if out := c.must("coordinator", "status", "--certs", admin); strings.Count(out, "leader") != 1 || strings.Contains(out, "follower") {
		t.Error(out)
	}
	if state := c.state(t); state.PortHigh != high-1 || state.Coordinators[0].Port != high {
		t.Errorf("the window ends at %d, and the coordinators are %+v: want %d within it", state.PortHigh, state.Coordinators, high)
	}
	var agents []int
	for pid, line := range c.pids() {
		if strings.Contains(line, "holdfastd agent") {
			agents = append(agents, pid)
		}
	}
	if len(agents) != 1 || agents[0] == old {
		t.Errorf("agents %v run; the old one was %d", agents, old)
	}
	if out := c.must("agent", "status", "-o", "json"); !strings.Contains(out, `"coordinated": true`) {
		t.Errorf("the agent takes orders over its socket: %s", out)
	}
}

// oldAgent starts an agent as the earlier version did, with its record.
func (c *cluster) oldAgent(t *testing.T) int {
	t.Helper()
	cmd := exec.Command(filepath.Join(filepath.Dir(c.holdfast), "holdfastd"), "agent", "--data-dir", c.dir, "--metrics-listen", "127.0.0.1:0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if out, err := c.run("agent", "status"); err == nil && strings.Contains(out, "none runs") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the old agent does not answer: %v %s", err, out)
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	start, err := strconv.ParseUint(strings.Fields(after)[19], 10, 64) // proc(5): field 22
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(map[string]any{"pid": cmd.Process.Pid, "boot": strings.TrimSpace(string(boot)), "start_ticks": start, "args": cmd.Args})
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, "run", "agent.pid"), record, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// ports are what the state of a cluster has of them.
type ports struct {
	PortHigh     int `json:"port_high"`
	Coordinators []struct {
		Port int `json:"port"`
	} `json:"coordinators"`
}

func (c *cluster) state(t *testing.T) ports {
	t.Helper()
	var p ports
	data, err := os.ReadFile(localapi.StateFile(c.dir))
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rewrite takes the coordinators out of the state of a cluster, which then has all ports to one.
func (c *cluster) rewrite(t *testing.T, high int) {
	t.Helper()
	data, err := os.ReadFile(localapi.StateFile(c.dir))
	if err != nil {
		t.Fatal(err)
	}
	var state map[string]any
	if err := json.Unmarshal(data, &state); err != nil {
		t.Fatal(err)
	}
	delete(state, "coordinators")
	state["port_high"] = high
	if data, err = json.Marshal(state); err == nil {
		err = os.WriteFile(localapi.StateFile(c.dir), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
