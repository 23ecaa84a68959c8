package crash

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/tests/realceph"
	"github.com/holdfast-storage/holdfast/tests/services"
)

// All OSDs stand still under a volume that a pod uses. Each RPC of the node ends within
// its deadline, the pod's directory can be unmounted, other volumes work when the OSDs are
// back, and what was fsynced before is there.
func TestHungClusterUnderANode(t *testing.T) {
	if os.Geteuid() != 0 {
		realceph.Missing(t, "mounting needs root")
	}
	b := newBed(t)
	drivers := []string{"rbd"}
	if all() {
		drivers = append(drivers, "cephfs")
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			r := &nodeRun{bed: b, driver: driver, step: 2, subject: subject{driver: driver, name: "hung " + driver}}
			r.s = services.Start(t, b.cluster, services.Options{Services: "node", Drivers: driver, Attach: true})
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(r.make())
			must(r.persist("stage", r.stage))
			must(r.persist("publish", r.publish))
			must(r.write())
			b.hang(t, r)
			must(r.finish())
			must(r.fromOutside(t))
			must(r.persist("delete", func(ctx context.Context) error { return r.away(ctx, r.healthy.Controller(driver), &r.subject) }))
		})
	}
	b.nothingLeft()
}

// deadline is what kubelet would give a call, shortened.
const deadline = 5 * time.Second

// hang stops the OSDs and calls each RPC of the node.
func (b *bed) hang(t *testing.T, r *nodeRun) {
	t.Helper()
	osds := b.osds(t)
	signal := func(s unix.Signal) {
		for _, pid := range osds {
			if err := unix.Kill(pid, s); err != nil {
				t.Error(err)
			}
		}
	}
	signal(unix.SIGSTOP)
	defer signal(unix.SIGCONT)
	for _, step := range []struct {
		what string
		call func(context.Context) error
	}{
		{"stats", r.stats}, {"expand", r.expand}, {"stage again", r.stage}, {"publish again", r.publish},
		{"unpublish", r.unpublish}, {"unstage", r.unstage}, {"unstage again", r.unstage},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		start := time.Now()
		err := step.call(ctx)
		cancel()
		took := time.Since(start)
		t.Logf("OSDs stopped, %s: %v after %v", step.what, err, took.Round(time.Millisecond))
		if took > deadline+2*time.Second {
			t.Errorf("%s did not end within its deadline: %v", step.what, took)
		}
		if step.what == "unpublish" && err != nil {
			t.Errorf("unpublish needs no cluster: %v", err)
		}
	}
}

// osds are the pids of the OSDs.
func (b *bed) osds(t *testing.T) []int {
	t.Helper()
	var pids []int
	for name, pid := range b.daemons() {
		if strings.HasPrefix(name, "osd.") {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		t.Fatal("there is no OSD in the status")
	}
	return pids
}

// fromOutside reads an image without Holdfast: exported by rbd, mounted from the file.
func (r *nodeRun) fromOutside(t *testing.T) error {
	if r.driver != "rbd" {
		return nil
	}
	record, err := r.record(t.Context(), &r.subject)
	if err != nil {
		return err
	}
	file, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if _, err := r.cluster.TryTool("rbd", "export", "--no-progress", "rbd/"+record.BackendName(), file); err != nil {
		return err
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop,ro,norecovery", file, at).CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	data, err := os.ReadFile(filepath.Join(at, "data"))
	if err == nil && string(data) != words {
		err = errors.New("the exported image holds other data")
	}
	return errors.Join(err, exec.Command("umount", at).Run())
}
