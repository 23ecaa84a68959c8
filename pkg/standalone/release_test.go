package standalone

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func supervisorOf(dir string) *Supervisor {
	return &Supervisor{dir: dir, paths: daemon.Paths{Dir: dir}, tools: Tools{Log: slog.New(slog.DiscardHandler)}}
}

func TestStagingPathsOfBothDriversAreRead(t *testing.T) {
	s := supervisorOf(t.TempDir())
	for driver, path := range map[string]string{"rbd": "/a/stage", "cephfs": "/b/stage"} {
		dir := filepath.Join(s.nodeDir(), driver) // as package csi/node lays them out
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "0011.json"), []byte(`{"staging":"`+path+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.stagingPaths(); !got["/a/stage"] || !got["/b/stage"] || len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestVolumesOutOfSightAreToldByTheirHelpers(t *testing.T) {
	u := usage{helpers: []process{{PID: 12, Args: []string{"/usr/bin/ceph-fuse", "-f"}}}}
	if got := u.visible("/d"); !u.inUse() || len(got) != 1 || !strings.Contains(got[0], "ceph-fuse (pid 12)") {
		t.Errorf("in use %v, visible %v", u.inUse(), got)
	}
}

// TestAHelperIsKilledByForceAlone has one that does not heed SIGTERM.
func TestAHelperIsKilledByForceAlone(t *testing.T) {
	s := supervisorOf(t.TempDir())
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 0.05; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cmd.Wait() }()
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	err = s.endHelper(t.Context(), p, 100*time.Millisecond, false)
	if !errors.Is(err, fault.Busy) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("without force: %v", err)
	}
	if _, err := identify(p.PID); err != nil {
		t.Fatalf("it was ended all the same: %v", err)
	}
	if err := s.endHelper(t.Context(), p, 100*time.Millisecond, true); err != nil {
		t.Errorf("with force: %v", err)
	}
	if _, err := identify(p.PID); !errors.Is(err, fault.NotFound) {
		t.Errorf("it is still there: %v", err)
	}
}

// TestAContainersProcessIsNotOurs starts the same command line in namespaces of its own.
func TestAContainersProcessIsNotOurs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	const mark = "61.0418"
	cases := []struct {
		name  string
		argv  []string
		flags uintptr
		ours  bool
	}{
		{"in this world", []string{"sleep", mark}, 0, true},
		{"in another mount namespace that has the same directory, as below ip netns exec", []string{"sleep", mark}, syscall.CLONE_NEWNS, true},
		{"in another mount namespace that has another directory there", []string{"sh", "-c", "mount -t tmpfs none " + dir + " && exec sleep " + mark}, syscall.CLONE_NEWNS, false},
		{"in another pid namespace", []string{"sleep", mark}, syscall.CLONE_NEWPID, false},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command(test.argv[0], test.argv[1:]...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: test.flags}
			if test.flags&syscall.CLONE_NEWNS != 0 { // what it mounts stays there
				cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: test.flags}
			}
			if err := cmd.Start(); err != nil {
				t.Skipf("cannot make namespaces: %v", err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			if _, err := settled(t.Context(), cmd.Process.Pid, []string{"sleep", mark}); err != nil {
				t.Fatal(err)
			}
			list, err := processes(dir, func(p process) bool { return p.PID == cmd.Process.Pid })
			if err != nil || (len(list) == 1) != test.ours {
				t.Errorf("found %v, %v; ours: %v", list, err, test.ours)
			}
		})
	}
}
