// Package services runs `holdfastd csi` for a test, with a `holdfastd attach` beside it
// where asked for, and gives clients of their sockets. It can be killed and started anew.
package services

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// Options say what is started; the zero value is all services of both drivers.
type Options struct {
	Services, Drivers string   // as the flags; "" is the default
	Env               []string // besides the test's own
	Wrap              []string // a program and its arguments to run it under
	Attach            bool     // with an attach daemon beside it
	Quiet             bool     // its log is not shown when the test fails
}

// Services is a `holdfastd csi` of the test's own.
type Services struct {
	Dir string

	t       testing.TB
	quiet   bool
	closed  bool
	drivers []string
	config  []string
	attach  *exec.Cmd
	csi     *exec.Cmd
	log     *os.File
	conns   map[string]*grpc.ClientConn
}

// Start runs the services on cluster until the test ends.
func Start(t testing.TB, cluster realceph.Cluster, o Options) *Services {
	t.Helper()
	// A short path: Unix sockets end at 107 bytes.
	dir, err := os.MkdirTemp("/var/tmp", "hfs")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Services{t: t, Dir: dir, log: log, quiet: o.Quiet, drivers: []string{"rbd", "cephfs"}, conns: map[string]*grpc.ClientConn{}}
	t.Cleanup(s.Close)
	s.config = []string{
		"csi", "--config", cluster.Config, "--credentials-dir", filepath.Join(cluster.Dir, "csi", "credentials"),
		"--rbd-endpoint", "unix://" + s.Socket("rbd"), "--cephfs-endpoint", "unix://" + s.Socket("cephfs"),
		"--state-dir", filepath.Join(dir, "state"), "--attach-socket", filepath.Join(dir, "attach.sock"),
		"--node-id", filepath.Base(dir), // it has a state of its own, so it is a node of its own
	}
	if o.Services != "" {
		s.config = append(s.config, "--services", o.Services)
	}
	if o.Drivers != "" {
		s.config, s.drivers = append(s.config, "--drivers", o.Drivers), []string{o.Drivers}
	}
	if o.Attach {
		s.attach = s.start(nil, nil, "attach", "--socket", filepath.Join(dir, "attach.sock"), "--state-dir", filepath.Join(dir, "attach"))
		s.wait(filepath.Join(dir, "attach.sock"))
	}
	for _, driver := range s.drivers {
		conn, err := grpc.NewClient("unix://"+s.Socket(driver), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
		if err != nil {
			t.Fatal(err)
		}
		s.conns[driver] = conn
	}
	s.run(o.Wrap, o.Env)
	return s
}

// Close stops what was started; the test's end does so, too.
func (s *Services) Close() {
	if s.closed {
		return
	}
	s.closed = true
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	for _, cmd := range []*exec.Cmd{s.csi, s.attach} {
		if cmd != nil {
			_ = cmd.Process.Signal(os.Interrupt)
			_ = cmd.Wait()
		}
	}
	if text, _ := os.ReadFile(s.log.Name()); s.t.Failed() && !s.quiet {
		s.t.Logf("holdfastd:\n%s", tail(text, 20_000))
	}
	_ = s.log.Close()
	_ = os.RemoveAll(s.Dir)
}

func tail(text []byte, n int) []byte { return text[max(0, len(text)-n):] }

// Socket is where a driver ("rbd", "cephfs") listens.
func (s *Services) Socket(driver string) string { return filepath.Join(s.Dir, driver+".sock") }

// Controller returns a client of a driver's controller.
func (s *Services) Controller(driver string) csi.ControllerClient {
	return csi.NewControllerClient(s.conns[driver])
}

// Node returns a client of a driver's node service.
func (s *Services) Node(driver string) csi.NodeClient { return csi.NewNodeClient(s.conns[driver]) }

// Process is the one that runs now, or that was killed.
func (s *Services) Process() *os.Process { return s.csi.Process }

// Dead reports whether the process has ended.
func (s *Services) Dead() bool { return s.state() == "Z" || s.state() == "" }

// Stopped reports whether the process stands still by a signal.
func (s *Services) Stopped() bool { return s.state() == "T" }

// state is the letter that the kernel gives the process's state, "" when it is gone.
func (s *Services) state() string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.csi.Process.Pid))
	_, state, found := strings.Cut(string(status), "\nState:\t")
	if err != nil || !found {
		return ""
	}
	return state[:1]
}

// Wait waits for the end of the process.
func (s *Services) Wait() { _ = s.csi.Wait() }

func (s *Services) run(wrap, env []string) {
	s.t.Helper()
	s.csi = s.start(wrap, env, s.config...)
	for _, driver := range s.drivers {
		s.wait(s.Socket(driver))
	}
}

func (s *Services) start(wrap, env []string, args ...string) *exec.Cmd {
	s.t.Helper()
	argv := append(append(append([]string{}, wrap...), realceph.Binary(s.t, "holdfastd")), args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd
}

// Kill ends the CSI services without warning.
func (s *Services) Kill() {
	_ = s.csi.Process.Kill()
	_ = s.csi.Wait()
}

// Restart kills the CSI services and starts them anew, without what the options ran
// them under or told them by environment.
func (s *Services) Restart() {
	s.t.Helper()
	s.Kill()
	s.run(nil, nil)
}

// wait returns when somebody listens on the socket.
func (s *Services) wait(socket string) {
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
