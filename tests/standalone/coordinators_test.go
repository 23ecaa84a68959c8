package standalone

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

	// As an earlier version left it.
	if err := os.RemoveAll(filepath.Join(c.dir, "coordinator")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(localapi.StateFile(c.dir))
	if err != nil {
		t.Fatal(err)
	}
	var state map[string]any
	if err := json.Unmarshal(data, &state); err != nil {
		t.Fatal(err)
	}
	delete(state, "coordinators")
	if data, err = json.Marshal(state); err == nil {
		err = os.WriteFile(localapi.StateFile(c.dir), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.must("up")
	requireHealthy(t, c)
	if out := c.must("coordinator", "status", "--certs", admin); strings.Count(out, "leader") != 1 || strings.Contains(out, "follower") {
		t.Error(out)
	}
	c.must("down", "--wipe", "--yes")
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}
