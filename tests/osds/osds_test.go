// Package osds holds the test of pkg/osd: real OSDs of a real cluster, on loop devices.
package osds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/osd"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

const gib = 1 << 30

// bench is a cluster with three OSDs of its own, and disks beside it.
type bench struct {
	t       *testing.T
	ceph    realceph.Cluster
	cluster ceph.Cluster
	dir     string
	loops   map[string]string // by file
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if _, err := exec.LookPath("losetup"); err != nil {
		realceph.Missing(t, "needs losetup: apt-get install mount")
	}
	dir, err := os.MkdirTemp("/var/tmp", "hfo") // short: Unix sockets
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: dir, loops: map[string]string{}}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b.ceph = realceph.Own(t, filepath.Join(dir, "c"))
	t.Cleanup(func() { // before the cluster goes
		for id := 3; id < 10; id++ {
			_ = b.daemons().Stop(context.Background(), id)
			_ = os.RemoveAll(b.paths().Data(daemon.OSDRef(id)))
		}
		for _, loop := range b.loops {
			_ = exec.Command("losetup", "--detach", loop).Run()
		}
	})
	keyring, err := os.ReadFile(b.paths().Keyring(daemon.Admin))
	if err != nil {
		t.Fatal(err)
	}
	key, err := daemon.ParseKeyring(keyring, daemon.Admin)
	if err != nil {
		t.Fatal(err)
	}
	dialer := native.NewDialer()
	t.Cleanup(dialer.Close)
	b.cluster, err = dialer.Dial(t.Context(), ceph.Endpoint{Monitors: b.ceph.Entry.Monitors}, ceph.Credentials{User: "admin", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) paths() daemon.Paths    { return daemon.Paths{Dir: b.ceph.Dir} }
func (b *bench) daemons() osd.Processes { return osd.Processes{Paths: b.paths()} }
func (b *bench) fsid() string           { return strings.TrimSpace(b.ceph.Tool(b.t, "ceph", "fsid")) }

// node is a node with all loop devices that there are now.
func (b *bench) node() *osd.Node {
	fsid := b.fsid()
	scanner := disk.NewScanner(disk.Config{MinSize: gib, FSID: fsid, Asked: b.devices()})
	return &osd.Node{Cluster: b.cluster, Daemons: b.daemons(), Run: command.System{}, Disks: scanner, FSID: fsid, Paths: b.paths(), Wait: 2 * time.Minute, Settle: 4 * time.Second}
}

// disk makes a blank disk and returns its identity.
func (b *bench) disk(name string, size int64) storage.DiskID {
	b.t.Helper()
	file := filepath.Join(b.dir, name)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		b.t.Fatal(err)
	}
	b.attach(file)
	return storage.DiskID("serial." + file)
}

func (b *bench) attach(file string) {
	b.t.Helper()
	b.loops[file] = strings.TrimSpace(b.run("losetup", "--find", "--show", file))
}

func (b *bench) run(argv ...string) string {
	b.t.Helper()
	out, err := exec.CommandContext(b.t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

// do runs steps that must work and returns what was not done before.
func (b *bench) do(t *testing.T, steps []osd.Step, err error) []string {
	t.Helper()
	var notes []string
	begin := time.Now()
	if err == nil {
		err = osd.Run(t.Context(), steps, func(what string) { notes = append(notes, what) })
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v: %s", time.Since(begin).Round(100*time.Millisecond), strings.Join(notes, "; "))
	return notes
}

type treeNode struct {
	ID     int     `json:"id"`
	Class  string  `json:"device_class"`
	Weight float64 `json:"crush_weight"`
	Status string  `json:"status"`
}

// tree returns an OSD of `ceph osd tree`.
func (b *bench) tree(t *testing.T, id int) (treeNode, bool) {
	t.Helper()
	var tree struct{ Nodes []treeNode }
	if err := json.Unmarshal([]byte(b.ceph.Tool(t, "ceph", "osd", "tree", "--format", "json")), &tree); err != nil {
		t.Fatal(err)
	}
	for _, n := range tree.Nodes {
		if n.ID == id {
			return n, true
		}
	}
	return treeNode{}, false
}

func uuid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", n) }

func TestAnOSDsLifeOnDisks(t *testing.T) {
	b := newBench(t)
	data := b.write(t)
	first := b.disk("first", 4*gib)
	request := osd.Request{UUID: uuid(1), Disk: first, Class: "ssd"}
	t.Run("prepare", func(t *testing.T) { b.prepare(t, request) })
	t.Run("a run that is cut off after any step goes on", func(t *testing.T) { b.cutOff(t) })
	t.Run("activate after a reboot, under another name", func(t *testing.T) { b.reboot(t, first) })
	t.Run("grow", func(t *testing.T) { b.grow(t, first) })
	t.Run("replace, keeping the id", func(t *testing.T) { b.replace(t, first) })
	t.Run("a foreign OSD is not touched", func(t *testing.T) { b.foreign(t) })
	t.Run("remove", func(t *testing.T) { b.remove(t, 3) })
	t.Run("no byte was lost", func(t *testing.T) { b.read(t, data) })
}

// objects is how many objects of 4 MiB lie in the cluster while OSDs come and go.
const objects = 24

// write fills a pool and returns the file that every object is a copy of.
func (b *bench) write(t *testing.T) string {
	t.Helper()
	file := filepath.Join(b.dir, "data")
	noise := make([]byte, 4<<20)
	_, _ = rand.New(rand.NewSource(1)).Read(noise)
	if err := os.WriteFile(file, noise, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range objects {
		b.ceph.Tool(t, "rados", "--pool", "rbd", "put", fmt.Sprintf("object%d", i), file)
	}
	return file
}

func (b *bench) read(t *testing.T, file string) {
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range objects {
		b.ceph.Tool(t, "rados", "--pool", "rbd", "get", fmt.Sprintf("object%d", i), file+".back")
		if got, err := os.ReadFile(file + ".back"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("object%d is other than it was: %v", i, err)
		}
	}
}

func (b *bench) prepare(t *testing.T, r osd.Request) {
	steps, err := b.node().Prepare(r)
	b.do(t, steps, err)
	b.healthy(t)
	if n, ok := b.tree(t, 3); !ok || n.Status != "up" || n.Class != "ssd" || math.Abs(n.Weight-4./1024) > 1e-4 {
		t.Errorf("it is %+v", n)
	}
	if d, err := b.node().Disks.Find(t.Context(), r.Disk); err != nil || d.Free() || d.Contents[0].OSD == nil || !strings.Contains(d.Why(), "OSD 3 of Ceph cluster "+b.fsid()+", which is this one") {
		t.Errorf("the disk is %v, %v", d, err)
	}
	steps, err = b.node().Prepare(r)
	if notes := b.do(t, steps, err); len(notes) > 1 || len(notes) == 1 && notes[0] != "start the OSD" {
		t.Errorf("the same again did %v", notes)
	}
	second := r
	second.UUID = uuid(9)
	if steps, err = b.node().Prepare(second); err == nil {
		err = osd.Run(t.Context(), steps, nil)
	}
	if !errors.Is(err, fault.Precondition) {
		t.Errorf("another OSD on the same disk: %v", err)
	}
}

// healthy waits until all PGs have all their copies where CRUSH wants them, on the new OSD too.
func (b *bench) healthy(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		out := b.ceph.Tool(t, "ceph", "pg", "stat")
		if !strings.Contains(out, "peering") && !strings.Contains(out, "remapped") && !strings.Contains(out, "degraded") && !strings.Contains(out, "undersized") && strings.Contains(out, "active+clean") {
			t.Log(strings.TrimSpace(out))
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the data does not settle: %s", out)
		}
	}
}

// cutOff makes an OSD with a new Node for every step, each of which runs twice.
func (b *bench) cutOff(t *testing.T) {
	r := osd.Request{UUID: uuid(2), Disk: b.disk("second", 4*gib)}
	steps, err := b.node().Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	for i := range steps {
		for range 2 {
			again, err := b.node().Prepare(r)
			if err == nil {
				_, err = again[i].Check(t.Context())
			}
			if err == nil {
				err = again[i].Do(t.Context())
			}
			if err != nil && again[i].Kind != "osd-claim" && again[i].Kind != "osd-mkfs" {
				t.Fatalf("%s: %v", again[i].Kind, err)
			}
		}
	}
	b.do(t, steps, nil)
	if n, ok := b.tree(t, 4); !ok || n.Status != "up" {
		t.Errorf("it is %+v", n)
	}
	b.remove(t, 4)
}

func (b *bench) reboot(t *testing.T, id storage.DiskID) {
	if err := b.daemons().Stop(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	store, file := b.paths().Data(daemon.OSDRef(3)), filepath.Join(b.dir, "first")
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	b.rename(t, "first", "between")
	started, err := b.node().ActivateAll(t.Context())
	if err != nil || len(started) != 1 || started[0] != 3 {
		t.Fatalf("started %v, %v", started, err)
	}
	if link, err := os.Readlink(filepath.Join(store, "block")); err != nil || link != b.loops[file] {
		t.Errorf("its device is %s, %v", link, err)
	}
}

// rename gives a disk, which nothing has open, another name; a new disk takes the old one.
func (b *bench) rename(t *testing.T, name, between string) {
	t.Helper()
	file := filepath.Join(b.dir, name)
	old := b.loops[file]
	b.run("losetup", "--detach", old)
	b.disk(between, 2*gib)
	b.attach(file)
	if b.loops[file] == old {
		t.Fatalf("it has the same name, %s", old)
	}
}

// noExpansion is a ceph-bluestore-tool that does not expand.
type noExpansion struct{ command.Runner }

func (r noExpansion) Run(ctx context.Context, cmd command.Cmd) (command.Result, error) {
	if slices.Contains(cmd.Args, "bluefs-bdev-expand") {
		return command.Result{}, errNoExpansion
	}
	return r.Runner.Run(ctx, cmd)
}

var errNoExpansion = errors.New("it does not expand")

func (b *bench) growth(t *testing.T) ([]osd.Step, error) {
	g, err := b.node().PlanGrowth(t.Context(), 3)
	return b.node().Grow(g), err
}

func (b *bench) grow(t *testing.T, id storage.DiskID) {
	steps, err := b.growth(t)
	if notes := b.do(t, steps, err); strings.Contains(strings.Join(notes, ";"), "new space") {
		t.Errorf("nothing grew, and it did %v", notes)
	}
	b.loopGrows(t, "first", 6*gib)
	g, err := b.node().PlanGrowth(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	n := b.node()
	n.Run = noExpansion{n.Run}
	if err := osd.Run(t.Context(), n.Grow(g), nil); !errors.Is(err, errNoExpansion) {
		t.Errorf("the tool fails: %v", err)
	}
	if running, err := b.daemons().Running(3); err != nil || !running {
		t.Errorf("it does not run as it was: %v", err)
	}
	// The power goes while it is stopped for that.
	if err := b.daemons().Stop(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	b.rename(t, "first", "grown")
	b.do(t, b.node().Grow(g), nil)
	if n, _ := b.tree(t, 3); n.Status != "up" || math.Abs(n.Weight-6./1024) > 1e-4 {
		t.Errorf("it is %+v", n)
	}
	d, err := b.node().Disks.Find(t.Context(), id)
	if err != nil || d.Contents[0].OSD.Size != 6*gib {
		t.Errorf("the disk is %v, %v", d, err)
	}
}

// replace puts another disk in the place of the first: the id stays.
func (b *bench) replace(t *testing.T, old storage.DiskID) {
	plan, token, err := b.node().PlanRemoval(t.Context(), 3, true)
	if err != nil || plan.Disk != old {
		t.Fatalf("got %v, %v", plan, err)
	}
	plan.Token = token
	b.do(t, b.node().Remove(plan), nil)
	if d, err := b.node().Disks.Find(t.Context(), old); err != nil || !d.Free() {
		t.Errorf("the old disk is %v, %v", d, err)
	}
	id, third := 3, b.disk("third", 4*gib)
	steps, err := b.node().Prepare(osd.Request{UUID: uuid(5), Disk: third, Replace: &id})
	b.do(t, steps, err)
	if n, ok := b.tree(t, 3); !ok || n.Status != "up" {
		t.Errorf("it is %+v", n)
	}
}

func (b *bench) foreign(t *testing.T) {
	const fsid = "99999999-8888-4777-8666-555555555555"
	data := filepath.Join(b.dir, "foreign-data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	id := b.disk("foreign", 4*gib)
	if err := os.Symlink(b.loops[filepath.Join(b.dir, "foreign")], filepath.Join(data, "block")); err != nil {
		t.Fatal(err)
	}
	b.run("ceph-osd", "-i", "7", "--mkfs", "--osd-data", data, "--osd-objectstore", "bluestore", "--osd-uuid", uuid(7), "--fsid", fsid,
		"--no-mon-config", "--conf", "/dev/null", "--log-file", "/dev/null", "--mkkey", "--keyring", filepath.Join(data, "keyring"))
	n := b.node()
	steps, err := n.Prepare(osd.Request{UUID: uuid(8), Disk: id})
	if err == nil {
		err = osd.Run(t.Context(), steps, nil)
	}
	if !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), fsid) {
		t.Errorf("prepare: %v", err)
	}
	if _, err := n.PlanAdoption(t.Context(), id); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), fsid) {
		t.Errorf("adopt: %v", err)
	}
	if started, err := n.ActivateAll(t.Context()); err != nil || len(started) != 1 || started[0] != 3 {
		t.Errorf("activated %v, %v", started, err)
	}
	serial := strings.TrimPrefix(string(id), "serial.")
	if err := n.Zap(t.Context(), id, "wipe "+serial); !errors.Is(err, fault.Denied) {
		t.Errorf("wipe without the cluster's name: %v", err)
	}
	if err := n.Zap(t.Context(), id, "wipe "+serial+" of "+fsid); err != nil {
		t.Errorf("wipe: %v", err)
	}
	if d, err := b.node().Disks.Find(t.Context(), id); err != nil || !d.Free() {
		t.Errorf("the disk is %v, %v", d, err)
	}
}

// remove removes an OSD in two runs; before it, its disk must not be wiped, and afterwards it
// must not be adopted.
func (b *bench) remove(t *testing.T, id int) {
	n := b.node()
	plan, token, err := n.PlanRemoval(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Zap(t.Context(), plan.Disk, token); !errors.Is(err, fault.Precondition) {
		t.Errorf("wipe while it is there: %v", err)
	}
	b.do(t, n.Remove(plan), nil)
	if _, ok := b.tree(t, id); ok {
		t.Error("it is still in the tree")
	}
	if _, err := n.PlanAdoption(t.Context(), plan.Disk); !errors.Is(err, fault.Precondition) {
		t.Errorf("adopt what was removed: %v", err)
	}
	plan.Token = token
	if notes := b.do(t, n.Remove(plan), nil); len(notes) != 1 {
		t.Errorf("the second run did %v", notes)
	}
	if d, err := n.Disks.Find(t.Context(), plan.Disk); err != nil || !d.Free() {
		t.Errorf("the disk is %v, %v", d, err)
	}
}
