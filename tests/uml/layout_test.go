package uml_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

// needLayouts skips, or fails in CI, without what guests with disks need.
func needLayouts(t *testing.T) {
	t.Helper()
	var missing []string
	for program, pkg := range map[string]string{"linux.uml": "user-mode-linux", "mdadm": "mdadm", "lvm": "lvm2", "sfdisk": "fdisk", "mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	if os.Geteuid() != 0 {
		missing = append(missing, "(and root)")
	}
	switch {
	case len(missing) == 0:
	case os.Getenv("CI") == "true":
		t.Fatal("needs", missing)
	default:
		t.Skip("needs ", missing)
	}
}

// bench is one set of disks with the plans for them.
type bench struct {
	t       *testing.T
	dir     string
	machine *uml.Machine
	program string
	stack   stack.Stack
	plans   []plan.Plan
	job     layoutrun.Job
	refused string        // part of the error that the guest may end with
	delay   time.Duration // from a guest's wish to die to its death
}

// guestModules are what the kernel of a guest needs for stacks.
func guestModules() []string {
	return []string{"md-mod", "raid1", "raid456", "dm-mod", "ext4", "xfs"}
}

// newBench begins a test that runs beside others: a guest keeps one processor busy.
func newBench(t *testing.T) *bench {
	t.Helper()
	t.Parallel()
	return loneBench(t)
}

func loneBench(t *testing.T) *bench {
	t.Helper()
	needLayouts(t)
	dir, err := os.MkdirTemp("/var/tmp", "hfl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	b := &bench{t: t, dir: dir, job: layoutrun.Job{Rate: 50}}
	b.machine = &uml.Machine{Init: built(t, "guest"), Memory: 512, Dir: dir, Modules: guestModules()}
	b.program = filepath.Join(dir, "layoutguest") // the guest sees nothing else of what can be written
	if err := os.Link(built(t, "layoutguest"), b.program); err != nil {
		t.Fatal(err)
	}
	return b
}

// building lets one test at a time compile.
var building sync.Mutex

// built compiles one of the guest's programs, once a run of the tests.
func built(t *testing.T, name string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	path := filepath.Join(programs(t), name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}

// programs is the directory of the guest's programs: one a process, removed by TestMain.
func programs(t *testing.T) string {
	t.Helper()
	dir := programsDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// disk makes a disk of so many MiB and returns it as the planner sees it.
func (b *bench) disk(mib int) layout.Disk {
	b.t.Helper()
	n := len(b.machine.Disks) + 1
	d := uml.Disk{Path: filepath.Join(b.dir, fmt.Sprintf("disk%d", n)), Serial: fmt.Sprintf("HF-%04d", n)}
	f, err := os.Create(d.Path)
	if err == nil {
		err = errors.Join(f.Truncate(int64(mib)<<20), f.Close())
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.machine.Disks = append(b.machine.Disks, d)
	b.job.Disks = append(b.job.Disks, layoutrun.Disk{
		ID: plan.DiskID(d.Serial), Path: "/dev/ubd" + string(rune('a'+n-1)), Size: storage.Bytes(mib) * storage.MiB,
	})
	return layout.Disk{ID: d.Serial, Size: storage.Bytes(mib) * storage.MiB}
}

// rate is only for forecasts.
const rate = 50 * storage.MiB

// reserve is what is left out of each of the small disks: room for seven slices.
const reserve = 7*stack.Head + 2*stack.Edge

func (b *bench) create(p layout.Policy, fs string, disks ...layout.Disk) {
	b.t.Helper()
	p.Reserve = reserve
	s, made, err := stack.New("t", "6a5f3c2e-0000-4000-8000-000000000001", disks, p, stack.Volume{FileSystem: fs, MountPoint: "/mnt/pool"}, rate)
	if err != nil {
		b.t.Fatal(err)
	}
	b.take(s, made)
}

func (b *bench) grow(c layout.Change) {
	b.t.Helper()
	s, made, err := b.stack.Grow(c, rate)
	if err != nil {
		b.t.Fatal(err)
	}
	b.take(s, made)
}

// take writes a plan where the guest finds it.
func (b *bench) take(s stack.Stack, p plan.Plan) {
	b.t.Helper()
	name := fmt.Sprintf("plan%d.json", len(b.plans))
	data, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, name), data, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.stack, b.plans, b.job.Plans = s, append(b.plans, p), append(b.job.Plans, name)
}

// boot runs the guest until it ends or asks to be killed; died says why it did, or is its output if it was refused.
func (b *bench) boot(kill layoutrun.Kill) (died string) {
	b.t.Helper()
	b.job.Kill = kill
	data, err := json.Marshal(b.job)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, layoutrun.JobFile), data, 0o600)
	}
	die := filepath.Join(b.dir, layoutrun.DieFile)
	_ = os.Remove(die)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Minute)
	defer cancel()
	env := []string{"DM_DISABLE_UDEV=1"}
	g, err := b.machine.Boot(ctx, "b", []string{b.program, "-dir", b.dir}, env)
	if err != nil {
		b.t.Fatal(err)
	}
	for ticker := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-g.Ended():
		case <-ticker.C:
			if why, err := os.ReadFile(die); err == nil {
				ticker.Stop()
				time.Sleep(b.delay)
				g.Stop()
				return string(why)
			}
			continue
		case <-ctx.Done():
		}
		ticker.Stop()
		break
	}
	output, code, err := g.Wait(ctx)
	if b.refused != "" && err == nil && code == 1 && strings.Contains(output, b.refused) {
		b.t.Log(strings.TrimSpace(output))
		return output
	}
	if err != nil || code != 0 {
		b.t.Fatalf("in the guest: exit code %d, %v\n%s\n%s", code, err, output, g.Console())
	}
	b.t.Log(strings.TrimSpace(output))
	return ""
}

// holds compares what the guest found with the plan.
func (b *bench) holds() layoutrun.Report {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, layoutrun.ReportFile))
	var r layoutrun.Report
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	want := b.plans[len(b.plans)-1].After
	if r.Volume != want || r.FileSystem > want || r.FileSystem < want-16*storage.MiB {
		b.t.Errorf("volume of %d bytes, file system of %d; planned %d", r.Volume, r.FileSystem, want)
	}
	for i, a := range b.stack.Arrays {
		got := r.Arrays[i]
		if got.Capacity != a.Capacity() || got.Disks != len(a.Members) || got.Degraded != 0 || got.Consistency != string(a.Consistency) {
			b.t.Errorf("array %s: %+v; planned %s of %d, %d bytes, %s", a.Name, got, a.Level, len(a.Members), a.Capacity(), a.Consistency)
		}
		if got.Mismatches != 0 && a.Level != layout.RAID1 { // md counts what a mirror is still writing
			b.t.Errorf("array %s: %d sectors of parity do not match", a.Name, got.Mismatches)
		}
	}
	if b.job.Rate > 0 && r.Blocks == 0 {
		b.t.Error("nothing was written")
	}
	b.t.Logf("volume %s, %d writes acknowledged in the last boot, %d blocks compared, %s", r.Volume, r.Written, r.Blocks, b.stack.Layout.Picture())
	return r
}

// TestAnOwnersWholeLife takes a disk to four, as the owner of a bought NAS did over the years.
func TestAnOwnersWholeLife(t *testing.T) {
	b := newBench(t)
	first := b.disk(256)
	b.create(layout.Policy{Tolerance: 1}, "ext4", first)
	b.grow(layout.Change{Add: []layout.Disk{b.disk(384)}})
	b.grow(layout.Change{Replace: []layout.Replacement{{Old: first.ID, New: b.disk(384)}}})
	b.grow(layout.Change{Add: []layout.Disk{b.disk(384), b.disk(384)}})
	b.boot(layoutrun.Kill{})
	b.holds()
}
