package osds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/machine"
	"github.com/holdfast-storage/holdfast/pkg/osd"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// A run of a plan in a process of its own, which kills itself: how often it is told of something before, by environment.
const (
	envDir     = "HOLDFAST_TEST_RUN_DIR"
	envPlan    = "HOLDFAST_TEST_RUN_PLAN"
	envDevices = "HOLDFAST_TEST_RUN_DEVICES"
	envKill    = "HOLDFAST_TEST_RUN_KILL"
)

func TestMain(m *testing.M) {
	if os.Getenv(envDir) == "" {
		os.Exit(m.Run())
	}
	if err := runAndDie(); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// runAndDie runs a plan and kills its own process when it has been told of so many events.
func runAndDie() error {
	dialer := native.NewDialer()
	defer dialer.Close()
	osds := osdsOf(dialer, os.Getenv(envDir), strings.Fields(os.Getenv(envDevices)))
	left, err := strconv.Atoi(os.Getenv(envKill))
	if err != nil {
		return err
	}
	m := &machine.Machine{Ledger: bookOf(os.Getenv(envDir), osds), More: osds.Registry()}
	return m.Run(context.Background(), plan.ID(os.Getenv(envPlan)), func(executor.Status) {
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	})
}

func bookOf(dir string, osds *machine.OSDs) ledger.Ledger {
	book := ledger.Of(dir)
	book.Fresh = func(p plan.Plan) error { return osds.Fresh(context.Background(), p) }
	return book
}

func osdsOf(dialer *native.Dialer, dir string, devices []string) *machine.OSDs {
	paths := daemon.Paths{Dir: dir}
	return &machine.OSDs{
		Paths: paths, Disks: disk.Config{MinSize: gib, Asked: devices}, Dial: machine.Administrator(dialer, paths),
		Tune: func(n *osd.Node) { n.Wait, n.Settle = 2*time.Minute, 4*time.Second },
	}
}

// devices are the loop devices that count as disks.
func (b *bench) devices() []string {
	var list []string
	for _, loop := range b.loops {
		list = append(list, loop)
	}
	return list
}

// killed runs a plan in processes that are killed after each step, by turns before its successor is begun and after that, until one
// comes to the plan's end.
func (b *bench) killed(t *testing.T, osds *machine.OSDs, r agentapi.OSDRequest) {
	t.Helper()
	p, err := osds.Plan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	book := bookOf(b.ceph.Dir, osds)
	if err := book.Approve(p, p.Token()); err != nil {
		t.Fatal(err)
	}
	kills := 0
	for {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), envDir+"="+b.ceph.Dir, envPlan+"="+string(p.ID), envDevices+"="+strings.Join(b.devices(), " "), envKill+"="+strconv.Itoa(2+kills%2))
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		err := cmd.Run()
		if err == nil {
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%v: %s", err, output.Bytes())
		}
		if kills++; kills > 2*len(p.Steps) {
			t.Fatal("it comes to no end")
		}
	}
	e, err := book.Find(p.ID)
	if err != nil || e.Status.Phase != executor.Succeeded || kills < len(p.Steps)/2 {
		t.Fatalf("%+v, %v after %d kills", e.Status, err, kills)
	}
	t.Logf("%s: %d steps, %d kills", p.What, len(p.Steps), kills)
}

func TestOSDPlansOutliveKillsBetweenSteps(t *testing.T) {
	b := newBench(t)
	data := b.write(t)
	first, second := b.disk("first", 4*gib), b.disk("second", 4*gib)
	dialer := native.NewDialer()
	t.Cleanup(dialer.Close)
	osds := osdsOf(dialer, b.ceph.Dir, b.devices())
	b.killed(t, osds, agentapi.OSDRequest{Do: "prepare", Disk: string(first), Class: "ssd"})
	if n, ok := b.tree(t, 3); !ok || n.Status != "up" || n.Class != "ssd" {
		t.Fatalf("it is %+v", n)
	}
	b.healthy(t)
	b.loopGrows(t, "first", 6*gib)
	b.killed(t, osds, agentapi.OSDRequest{Do: "grow", ID: 3})
	stale, err := osds.Plan(t.Context(), agentapi.OSDRequest{Do: "remove", ID: 3})
	if err != nil {
		t.Fatal(err)
	}
	_, err = osds.Plan(t.Context(), agentapi.OSDRequest{Do: "replace", ID: 3, Disk: string(second), Wipe: "wipe it"})
	want := "wipe " + strings.TrimPrefix(string(first), "serial.") + " of " + b.fsid()
	if !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), want) {
		t.Fatalf("another token: %v", err)
	}
	b.killed(t, osds, agentapi.OSDRequest{Do: "replace", ID: 3, Disk: string(second), Wipe: want})
	if d, err := b.node().Disks.Find(t.Context(), first); err != nil || !d.Free() {
		t.Errorf("the old disk is %v, %v", d, err)
	}
	if err := bookOf(b.ceph.Dir, osds).Approve(stale, stale.Token()); !errors.Is(err, fault.Precondition) {
		t.Errorf("a plan of the OSD that was: %v", err)
	}
	b.killed(t, osds, agentapi.OSDRequest{Do: "remove", ID: 3})
	if _, ok := b.tree(t, 3); ok {
		t.Error("it is still in the tree")
	}
	b.read(t, data)
}

// loopGrows enlarges a disk.
func (b *bench) loopGrows(t *testing.T, name string, size int64) {
	t.Helper()
	file := filepath.Join(b.dir, name)
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	b.run("losetup", "--set-capacity", b.loops[file])
}

// agent starts the agent and returns its process.
func (b *bench) agent(t *testing.T) *exec.Cmd {
	t.Helper()
	args := []string{"agent", "--data-dir", b.ceph.Dir, "--min-size", "1GiB", "--rescan", "2s", "--metrics-listen", "127.0.0.1:0"}
	for _, d := range b.devices() {
		args = append(args, "--device", d)
	}
	log, err := os.OpenFile(filepath.Join(b.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(realceph.Binary(t, "holdfastd"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if s, err := agentapi.NewClient(b.ceph.Dir).Status(t.Context()); err == nil && s.Waiting == "" {
			return cmd
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("the agent does not answer: %s", text)
		}
	}
}

// holdfast runs the command line.
func (b *bench) holdfast(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.tryHoldfast(t, args...)
	if err != nil {
		text, _ := os.ReadFile(filepath.Join(b.dir, "agent.log"))
		t.Fatalf("holdfast %v: %v\n%s\nagent: %s", args, err, out, text)
	}
	return out
}

func (b *bench) tryHoldfast(t *testing.T, args ...string) (string, error) {
	out, err := exec.CommandContext(t.Context(), realceph.Binary(t, "holdfast"), append([]string{"--data-dir", b.ceph.Dir}, args...)...).CombinedOutput()
	return string(out), err
}

func TestTheAgentLooksAfterOSDs(t *testing.T) {
	b := newBench(t)
	first := b.disk("first", 4*gib)
	if out, err := b.tryHoldfast(t, "osd", "list"); err == nil || !strings.Contains(out, "holdfastd agent") {
		t.Fatalf("without an agent: %v %s", err, out)
	}
	a := b.agent(t)
	if out := b.holdfast(t, "osd", "prepare", string(first), "--class", "hdd"); !strings.Contains(out, "+ disk "+string(first)) || !strings.Contains(out, "nothing was done") {
		t.Fatal(out)
	}
	if d, err := b.node().Disks.Find(t.Context(), first); err != nil || !d.Free() {
		t.Fatalf("a dry run did something: %v, %v", d, err)
	}
	t.Log(b.holdfast(t, "osd", "prepare", string(first), "--class", "hdd", "--yes"))
	var list []agentapi.OSD
	if err := json.Unmarshal([]byte(b.holdfast(t, "osd", "list", "-o", "json")), &list); err != nil || len(list) != 1 || list[0].State != "up" || list[0].Keeper != "agent" || list[0].Class != "hdd" {
		t.Fatalf("%+v, %v", list, err)
	}
	if out, err := b.tryHoldfast(t, "osd", "prepare", string(first)); err == nil || !strings.Contains(out, "is not free") {
		t.Errorf("the same disk again: %v %s", err, out)
	}

	// The OSD dies with the machine, so to speak: its process, its store, and the agent. The disk alone is not started before somebody says that it is to be here.
	_ = a.Process.Kill()
	_ = a.Wait()
	if err := b.daemons().Stop(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(b.paths().Data(daemon.OSDRef(3))); err != nil {
		t.Fatal(err)
	}
	b.agent(t)
	if out, err := b.tryHoldfast(t, "osd", "activate"); err == nil || !strings.Contains(out, "osd adopt") {
		t.Errorf("activate without a store: %v %s", err, out)
	}
	t.Log(b.holdfast(t, "osd", "adopt", string(first), "--yes"))
	b.awaitUp(t)
	if err := b.daemons().Stop(t.Context(), 3); err != nil { // and once more, under the agent
		t.Fatal(err)
	}
	b.awaitUp(t)
	b.healthy(t)
	b.growthIsProposed(t)
	token := "wipe " + strings.TrimPrefix(string(first), "serial.") + " of " + b.fsid()
	if out := b.holdfast(t, "osd", "remove", "3"); !strings.Contains(out, token) {
		t.Fatal(out)
	}
	t.Log(b.holdfast(t, "osd", "remove", "3", "--wipe", token, "--yes"))
	if d, err := b.node().Disks.Find(t.Context(), first); err != nil || !d.Free() {
		t.Errorf("the disk is %v, %v", d, err)
	}
	if entries, err := journal.List(filepath.Join(b.ceph.Dir, "plans")); err != nil || len(entries) != 4 {
		t.Errorf("%d journals, %v", len(entries), err)
	}
}

// growthIsProposed enlarges the disk of OSD 3 under the agent, and lets what it proposes then be done.
func (b *bench) growthIsProposed(t *testing.T) {
	t.Helper()
	b.loopGrows(t, "first", 6*gib)
	var proposal plan.ID
	for deadline := time.Now().Add(2 * time.Minute); proposal == ""; time.Sleep(200 * time.Millisecond) {
		list, err := agentapi.NewClient(b.ceph.Dir).Plans(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			if p.Status.Phase == executor.Proposed && p.Plan.Subject == "osd 3" && p.Plan.After == 6*gib {
				proposal = p.Plan.ID
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody proposes to use what the disk has grown by")
		}
	}
	b.holdfast(t, "plan", "approve", string(proposal), "--token", string(proposal))
	t.Log(b.holdfast(t, "plan", "watch", string(proposal)))
	if n, ok := b.tree(t, 3); !ok || n.Weight < 5.9/1024 || n.Weight > 6.1/1024 {
		t.Errorf("%+v", n)
	}
}

// awaitUp waits until the agent has started OSD 3.
func (b *bench) awaitUp(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		running, err := b.daemons().Running(3)
		if err != nil {
			t.Fatal(err)
		}
		if n, ok := b.tree(t, 3); running && ok && n.Status == "up" {
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(b.dir, "agent.log"))
			output, _ := os.ReadFile(filepath.Join(b.paths().Log(), "osd.3.out"))
			t.Fatalf("the agent does not start the OSD: %s\nOSD: %s", text, output)
		}
	}
}
