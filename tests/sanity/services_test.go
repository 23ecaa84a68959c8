package sanity

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// services is a `holdfastd csi` of the test's own on the shared cluster, with a
// `holdfastd attach` beside it.
type services struct {
	t      *testing.T
	dir    string
	config []string
	csi    *exec.Cmd
	log    *os.File
}

func startServices(t *testing.T, cluster realceph.Cluster) *services {
	t.Helper()
	// A short path: Unix sockets end at 107 bytes.
	dir, err := os.MkdirTemp("/var/tmp", "hfs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("holdfastd:\n%s", tail(text, 20_000))
		}
		_ = log.Close()
	})
	s := &services{t: t, dir: dir, log: log}
	s.config = []string{
		"csi", "--config", cluster.Config, "--credentials-dir", filepath.Join(cluster.Dir, "csi", "credentials"),
		"--rbd-endpoint", "unix://" + s.socket("rbd"), "--cephfs-endpoint", "unix://" + s.socket("cephfs"),
		"--state-dir", filepath.Join(dir, "state"), "--attach-socket", filepath.Join(dir, "attach.sock"),
	}
	attach := s.start("attach", "--socket", filepath.Join(dir, "attach.sock"), "--state-dir", filepath.Join(dir, "attach"))
	t.Cleanup(func() { stop(attach) })
	s.wait(filepath.Join(dir, "attach.sock"))
	s.csi = s.start(s.config...)
	t.Cleanup(func() { stop(s.csi) })
	s.waitBoth()
	return s
}

func tail(text []byte, n int) []byte { return text[max(0, len(text)-n):] }

func (s *services) socket(driver string) string { return filepath.Join(s.dir, driver+".sock") }

func (s *services) start(args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(realceph.Binary(s.t, "holdfastd"), args...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd
}

func stop(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
}

// restart kills the CSI services without warning and starts them anew.
func (s *services) restart() {
	_ = s.csi.Process.Kill()
	_ = s.csi.Wait()
	s.csi = s.start(s.config...)
	s.waitBoth()
}

func (s *services) waitBoth() {
	s.wait(s.socket("rbd"))
	s.wait(s.socket("cephfs"))
}

// wait returns when somebody listens on the socket.
func (s *services) wait(socket string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("nobody listens on %s: %v", socket, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
