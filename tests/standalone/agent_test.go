package standalone

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// TestTheAgentBesideACluster has the supervisor look after the agent, too.
func TestTheAgentBesideACluster(t *testing.T) {
	c := newCluster(t)
	c.must(append(small, "--no-csi", "--agent")...)
	st := requireHealthy(t, c)
	if out := c.must("agent", "status"); !strings.Contains(out, "none runs") {
		t.Error(out)
	}
	if out := c.must("osd", "list", "-o", "json"); !strings.Contains(out, "[") {
		t.Error(out)
	}
	if out := c.must("agent", "status", "-o", "json"); !strings.Contains(out, `"coordinated": true`) {
		t.Errorf("the agent takes orders over its socket: %s", out)
	}
	pid := daemonNamed(st, "agent").PID
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.await("the agent is started again", func(st *localapi.Status) bool {
		d := daemonNamed(st, "agent")
		return d.State == localapi.DaemonRunning && d.PID != pid
	})
	c.must("down", "--wipe", "--yes")
	if left := c.left(); len(left) > 0 {
		t.Fatalf("still running: %v", left)
	}
}
