package coordinator_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stallingDisk is an ext4 that can be frozen: a write to it does not return then until it is thawed, as on a disk that
// hangs.
type stallingDisk struct{ dir string }

func newStallingDisk(t *testing.T) *stallingDisk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	base := t.TempDir()
	file, dir := filepath.Join(base, "file"), filepath.Join(base, "mnt")
	run(t, "truncate", "-s", "256M", file)
	run(t, "mkfs.ext4", "-q", file)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-o", "loop", file, dir)
	d := &stallingDisk{dir}
	t.Cleanup(func() {
		_ = exec.Command("fsfreeze", "-u", dir).Run()
		_ = exec.Command("umount", dir).Run()
	})
	return d
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (d *stallingDisk) hang(t testing.TB) {
	t.Helper()
	run(t, "fsfreeze", "-f", d.dir)
}

func (d *stallingDisk) goOn(t testing.TB) {
	t.Helper()
	run(t, "fsfreeze", "-u", d.dir)
}

// TestALeaderWhoseDiskHangsIsReplaced: its heartbeats are cut, another leads, nothing that was acknowledged is lost, and the process
// ends by itself.
func TestALeaderWhoseDiskHangsIsReplaced(t *testing.T) {
	disk := newStallingDisk(t)
	c := start(t, 3, map[string]string{"c1": filepath.Join(disk.dir, "c1")})
	t.Cleanup(func() { _ = exec.Command("fsfreeze", "-u", disk.dir).Run() }) // before the processes end: one may hang in it
	admin := c.client(c.open("admin"))
	for c.leader(admin) != "c1" {
		c.holdfast("coordinator", "transfer", "c1", "--certs", c.certs("admin"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i := 1; i <= 20; i++ {
		if err := set(ctx, admin, "before", i); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.leader(admin); got != "c1" {
		t.Fatalf("%s leads, and c1 was to", got)
	}
	disk.hang(t)
	since := time.Now()
	if err := set(ctx, admin, "after", 1); err != nil { // waits on the hung leader first, then on the next
		t.Fatalf("%v\n%s", err, c.logs())
	}
	t.Logf("next commit %v after the disk began to hang, by %s", time.Since(since).Round(time.Millisecond), c.leader(admin, "c1"))
	values, err := get(ctx, admin)
	if err != nil || values["before"] != 20 || values["after"] != 1 {
		t.Errorf("%v, %v", values, err)
	}
	disk.goOn(t)
	if err := c.running["c1"].Wait(); err == nil || c.running["c1"].ProcessState.ExitCode() != 3 {
		t.Errorf("the process with the hung disk ended with %v", err)
	}
	c.run("c1")
	if err := set(ctx, admin, "again", 1); err != nil {
		t.Fatal(err)
	}
}
