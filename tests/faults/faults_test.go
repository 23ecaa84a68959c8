// Package faults breaks a real cluster under the CSI services and looks at what callers
// get: in time, with the right code, and nothing left behind.
package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// bed is a cluster of the test's own, which it may break.
type bed struct {
	dir      string
	holdfast string
	drivers  map[storage.Driver]csi.ControllerClient
	params   map[storage.Driver]map[string]string
	secrets  map[string]map[string]string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		realceph.Missing(t, "needs root")
	}
	b := &bed{
		dir: "/var/tmp/hf-faults", holdfast: realceph.Binary(t, "holdfast"),
		drivers: map[storage.Driver]csi.ControllerClient{}, params: map[storage.Driver]map[string]string{},
	}
	_ = exec.Command(b.holdfast, "down", "--data-dir", b.dir, "--wipe", "--yes", "--force").Run()
	b.run(t, "up", "--osds", "3", "--osd-size", "4GiB")
	t.Cleanup(func() { b.run(t, "down", "--wipe", "--yes", "--force") })
	for driver, name := range map[storage.Driver]string{storage.RBD: "rbd", storage.CephFS: "cephfs"} {
		conn, err := grpc.NewClient("unix://"+filepath.Join(b.dir, "csi", name+".sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		b.drivers[driver] = csi.NewControllerClient(conn)
		var params map[string]string
		b.read(t, name+"-params.yaml", &params)
		b.params[driver] = params
	}
	b.read(t, "secrets.yaml", &b.secrets)
	return b
}

func (b *bed) read(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, "csi", name))
	if err == nil {
		err = yaml.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bed) run(t *testing.T, verb string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(b.holdfast, append([]string{verb, "--data-dir", b.dir}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("holdfast %s: %v\n%s", verb, err, stderr.String())
	}
	return out
}

func (b *bed) ceph(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("ceph", append([]string{"--conf", filepath.Join(b.dir, "ceph.conf"), "--connect-timeout", "10"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ceph %v: %v", args, err)
	}
	return string(out)
}

// create asks for a volume with a deadline and returns the code and how long it took.
func (b *bed) create(t *testing.T, driver storage.Driver, name string, deadline time.Duration) (string, codes.Code, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	start := time.Now()
	response, err := b.drivers[driver].CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: name, Parameters: b.params[driver], Secrets: b.secrets["CreateVolumeSecret"],
		CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 30},
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
	})
	took := time.Since(start)
	t.Logf("%s CreateVolume %s: %v after %v", driver, name, err, took.Round(time.Millisecond))
	return response.GetVolume().GetVolumeId(), status.Code(err), took
}

func (b *bed) delete(t *testing.T, driver storage.Driver, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := b.drivers[driver].DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id, Secrets: b.secrets["DeleteVolumeSecret"]}); err != nil {
		t.Fatalf("delete %s: %v", id, err)
	}
}

// left lists images, subvolumes and records by Ceph's own tools.
func (b *bed) left(t *testing.T) (all []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // the background work looks again after 30 s
	defer cancel()
	_ = poll.Until(ctx, 500*time.Millisecond, func() (bool, error) {
		all = b.leftNow(t)
		return len(all) == 0, nil
	})
	return all
}

func (b *bed) leftNow(t *testing.T) []string {
	t.Helper()
	conf := filepath.Join(b.dir, "ceph.conf")
	var all []string
	for _, argv := range [][]string{
		{"rbd", "--conf", conf, "ls", "rbd"},
		{"rbd", "--conf", conf, "trash", "ls", "rbd"},
		{"rados", "--conf", conf, "-p", ".holdfast", "ls", "--all"},
	} {
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
		all = append(all, strings.Fields(string(out))...)
	}
	var volumes []struct{ Name string }
	if err := json.Unmarshal([]byte(b.ceph(t, "fs", "subvolume", "ls", "cephfs", "--group_name", "csi", "-f", "json")), &volumes); err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes {
		all = append(all, v.Name)
	}
	return all
}

// pids returns the processes of the daemons whose name begins with prefix.
func (b *bed) pids(t *testing.T, prefix string) []int {
	t.Helper()
	var s struct {
		Daemons []struct {
			Name string `json:"name"`
			PID  int    `json:"pid"`
		} `json:"daemons"`
	}
	if err := json.Unmarshal(b.run(t, "status", "-o", "json"), &s); err != nil {
		t.Fatal(err)
	}
	var list []int
	for _, d := range s.Daemons {
		if strings.HasPrefix(d.Name, prefix) && d.PID > 0 {
			list = append(list, d.PID)
		}
	}
	if len(list) == 0 {
		t.Fatalf("no daemon %s* in the status", prefix)
	}
	return list
}

func (b *bed) signal(t *testing.T, pids []int, s syscall.Signal) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil {
			t.Fatal(err)
		}
	}
}

// isFull reports whether the cluster refuses writes for want of space.
func (b *bed) isFull(t *testing.T) bool {
	health := b.ceph(t, "health", "detail") // OSD_NEARFULL and OSD_BACKFILLFULL refuse nothing
	return strings.Contains(health, "OSD_FULL") || strings.Contains(health, "POOL_FULL")
}

func (b *bed) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(300 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s: the cluster is not %s", what)
		}
	}
}

func both() []storage.Driver { return []storage.Driver{storage.RBD, storage.CephFS} }

func TestBrokenCluster(t *testing.T) {
	b := newBed(t)
	t.Run("callers of a cluster that hangs get UNAVAILABLE in time, and a retry afterwards finishes", func(t *testing.T) { hangs(t, b) })
	t.Run("a manager that answers late does not take the services down", func(t *testing.T) { lateManager(t, b) })
	t.Run("a deleted volume's snapshot that was taken by hand keeps its data, and all goes with it", func(t *testing.T) { kept(t, b) })
	t.Run("a full cluster gives RESOURCE_EXHAUSTED, and volumes can still be deleted", func(t *testing.T) { full(t, b) })
	t.Run("many volumes at once, each name asked for three times, make one volume a name", func(t *testing.T) { many(t, b) })
	t.Run("no key stands in a log or in a process's arguments", func(t *testing.T) { secrets(t, b) })
}

func hangs(t *testing.T, b *bed) {
	for what, prefix := range map[string]string{"OSDs": "osd.", "monitors": "mon."} {
		pids := b.pids(t, prefix)
		b.signal(t, pids, syscall.SIGSTOP)
		time.Sleep(1500 * time.Millisecond) // what is known of the pools is a second old at most
		for _, driver := range both() {
			const deadline = 4 * time.Second
			_, code, took := b.create(t, driver, "hang-"+prefix, deadline)
			if code != codes.Unavailable || took > deadline {
				t.Errorf("%s stopped, %s: got %v after %v, want Unavailable within %v", what, driver, code, took, deadline)
			}
		}
		b.signal(t, pids, syscall.SIGCONT)
		for _, driver := range both() {
			id, code, _ := b.create(t, driver, "hang-"+prefix, time.Minute)
			if code != codes.OK {
				t.Fatalf("%s run again, %s: %v", what, driver, code)
			}
			b.delete(t, driver, id)
		}
	}
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// lateManager holds the MDS up for longer than a manager command is waited for: its
// answer comes when nobody listens any more.
func lateManager(t *testing.T, b *bed) {
	before := b.pids(t, "csi")
	mds := b.pids(t, "mds.")
	b.signal(t, mds, syscall.SIGSTOP)
	var callers sync.WaitGroup
	for i := range 2 {
		callers.Go(func() {
			if _, code, _ := b.create(t, storage.CephFS, fmt.Sprintf("late-%d", i), 30*time.Second); code != codes.Unavailable {
				t.Errorf("got %v, want Unavailable", code)
			}
		})
	}
	callers.Wait()
	b.signal(t, mds, syscall.SIGCONT)
	for i := range 2 {
		id, code, _ := b.create(t, storage.CephFS, fmt.Sprintf("late-%d", i), time.Minute)
		if code != codes.OK {
			t.Fatalf("after the MDS came back: %v", code)
		}
		b.delete(t, storage.CephFS, id)
	}
	if after := b.pids(t, "csi"); !slices.Equal(before, after) {
		t.Errorf("the CSI services died: pid %v, then %v", before, after)
	}
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func kept(t *testing.T, b *bed) {
	id, code, _ := b.create(t, storage.RBD, "kept", time.Minute)
	if code != codes.OK {
		t.Fatal(code)
	}
	image := "rbd/hf-" + id[strings.LastIndex(id, ".")+1:]
	rbd := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("rbd", append([]string{"--conf", filepath.Join(b.dir, "ceph.conf")}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("rbd %v: %v\n%s", args, err, out)
		}
	}
	rbd("snap", "create", image+"@by-hand")
	b.delete(t, storage.RBD, id)
	again, code, _ := b.create(t, storage.RBD, "kept", time.Minute)
	if code != codes.OK || again == id {
		t.Errorf("the name is not free: %v", code)
	}
	tombstone := strings.Replace(image, "/hf-", "/hf-gone-", 1)
	rbd("info", tombstone+"@by-hand") // nothing of it is lost
	rbd("snap", "rm", tombstone+"@by-hand")
	b.delete(t, storage.RBD, again)
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func full(t *testing.T, b *bed) {
	ids := map[storage.Driver]string{}
	for _, driver := range both() {
		id, code, _ := b.create(t, driver, "before", time.Minute)
		if code != codes.OK {
			t.Fatal(code)
		}
		ids[driver] = id
	}
	b.ceph(t, "osd", "set-nearfull-ratio", "0.0001")
	b.ceph(t, "osd", "set-backfillfull-ratio", "0.0002")
	b.ceph(t, "osd", "set-full-ratio", "0.0003")
	defer func() {
		b.ceph(t, "osd", "set-full-ratio", "0.95")
		b.ceph(t, "osd", "set-backfillfull-ratio", "0.90")
		b.ceph(t, "osd", "set-nearfull-ratio", "0.85")
		b.await(t, "not full", func() bool { return !b.isFull(t) })
	}()
	b.await(t, "full", func() bool { return b.isFull(t) })
	for _, driver := range both() {
		if _, code, took := b.create(t, driver, "too-much", 10*time.Second); code != codes.ResourceExhausted || took > 10*time.Second {
			t.Errorf("%s: got %v after %v", driver, code, took)
		}
		b.delete(t, driver, ids[driver])
	}
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func many(t *testing.T, b *bed) {
	for _, driver := range both() {
		const volumes, callers = 20, 3
		var mu sync.Mutex
		ids := map[string]map[string]bool{}
		var work sync.WaitGroup
		for i := range volumes * callers {
			work.Go(func() {
				name := fmt.Sprintf("많은-%d", i%volumes)
				id, code, _ := b.create(t, driver, name, time.Minute)
				if code != codes.OK {
					t.Errorf("%s: %v", name, code)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if ids[name] == nil {
					ids[name] = map[string]bool{}
				}
				ids[name][id] = true
			})
		}
		work.Wait()
		for name, set := range ids {
			if len(set) != 1 {
				t.Errorf("%s was made %d times", name, len(set))
			}
			for id := range set {
				b.delete(t, driver, id)
			}
		}
	}
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// secrets looks for every key of the cluster in all logs and in all command lines.
func secrets(t *testing.T, b *bed) {
	keys := map[string]bool{}
	_ = filepath.WalkDir(filepath.Join(b.dir, "keys"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, word := range strings.Fields(string(text)) {
			if strings.HasPrefix(word, "AQ") && strings.HasSuffix(word, "==") {
				keys[word] = true
			}
		}
		return err
	})
	if len(keys) < 6 {
		t.Fatalf("found only %d keys to look for", len(keys))
	}
	logs, _ := filepath.Glob(filepath.Join(b.dir, "log", "*"))
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	if len(logs) < 3 {
		t.Fatalf("found only the logs %v", logs)
	}
	for _, path := range append(append(logs, lines...), environs...) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a process that ended
		}
		for key := range keys {
			if bytes.Contains(text, []byte(key)) {
				t.Errorf("%s holds a key", path)
			}
		}
	}
}
