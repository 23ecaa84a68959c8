package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-storage/holdfast/tests/realceph"
)

const (
	// lives run side by side.
	lives = 6
	// killEvery is the pause between two kills, in seconds. A busy machine needs a longer one: daemons
	// that are killed before they are up again leave no cluster to work on.
	killEvery = 4
)

// Volumes live their whole lives while daemons and services are killed at random. At the
// end nothing is left, and a controller that was never killed has not grown.
// HOLDFAST_SOAK_VOLUMES and HOLDFAST_SOAK_SEED say how many and which chance, HOLDFAST_SOAK_PAUSE
// how many seconds are between two kills.
func TestSoak(t *testing.T) {
	volumes := fromEnv(t, "HOLDFAST_SOAK_VOLUMES", 0)
	if volumes == 0 {
		t.Skip("HOLDFAST_SOAK_VOLUMES says how many volumes: run `make soak`")
	}
	if os.Geteuid() != 0 {
		realceph.Missing(t, "mounting needs root")
	}
	seed := fromEnv(t, "HOLDFAST_SOAK_SEED", int(time.Now().UnixNano()%1_000_000))
	t.Logf("seed %d", seed)
	s := newSoak(t, seed)
	started := time.Now()
	ctx, end := context.WithCancel(t.Context())
	var killing sync.WaitGroup
	killing.Go(func() { s.kill(ctx) })
	numbers := make([]int, volumes)
	for i := range numbers {
		numbers[i] = i
	}
	together(numbers, lives, s.life)
	end()
	killing.Wait()
	s.await()
	s.nothingLeft()
	if err := nothingBelow(s.dir); err != nil {
		t.Error(err)
	}
	if left := below(s.cluster.Dir); len(left) > 0 {
		t.Errorf("left by the cluster's own attach daemon: %v", left)
	}
	t.Logf("%d volumes (%d mounted, %d snapshots, %d clones) in %v; killed: %v", volumes, s.mounted.Load(), s.snapshots.Load(), s.clones.Load(),
		time.Since(started).Round(time.Second), s.killed)
	first, last := s.firstRSS.Load(), s.rss()
	t.Logf("RSS of the controller that was not killed: %d MiB after a tenth of the volumes, %d MiB at the end", first>>20, last>>20)
	if volumes >= 100 && last > first+10<<20 {
		t.Errorf("the controller grew by %d MiB", (last-first)>>20)
	}
}

// soak has two controllers: the cluster's own, which is killed, and the test's, which is not.
type soak struct {
	*bed
	dir       string
	seed      int
	own       map[string]*grpc.ClientConn // the cluster's CSI services
	killed    map[string]int
	done      atomic.Int64
	mounted   atomic.Int64
	snapshots atomic.Int64
	clones    atomic.Int64
	firstRSS  atomic.Int64
}

func newSoak(t *testing.T, seed int) *soak {
	dir, err := os.MkdirTemp("/var/tmp", "hfk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &soak{bed: newBed(t), dir: dir, seed: seed, own: map[string]*grpc.ClientConn{}, killed: map[string]int{}}
	for driver := range domain {
		conn, err := grpc.NewClient("unix://"+filepath.Join(s.cluster.Dir, "csi", driver+".sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		s.own[driver] = conn
	}
	return s
}

// controller is one of the two, by chance.
func (s *soak) controller(chance *rand.Rand, driver string) csi.ControllerClient {
	if chance.IntN(2) == 0 {
		return s.healthy.Controller(driver)
	}
	return csi.NewControllerClient(s.own[driver])
}

// life takes one volume from creation to deletion.
func (s *soak) life(number int) {
	chance := rand.New(rand.NewPCG(uint64(s.seed), uint64(number)))
	v := &subject{driver: []string{"rbd", "cephfs"}[chance.IntN(2)], name: fmt.Sprintf("soak %d", number)}
	do := func(what string, call func(context.Context, csi.ControllerClient, *subject) error, of *subject) bool {
		err := s.persist(what, func(ctx context.Context) error { return call(ctx, s.controller(chance, v.driver), of) })
		if err != nil {
			s.t.Errorf("%s (%s): %v", v.name, v.driver, err)
		}
		return err == nil
	}
	var clone *subject
	ok := do("create", s.create, v) && (chance.IntN(3) > 0 || s.mount(v))
	if ok && chance.IntN(2) == 0 && do("snapshot", s.snap, v) {
		s.snapshots.Add(1)
		if v.driver == "rbd" || chance.IntN(4) == 0 { // CephFS copies, at its leisure
			clone = &subject{driver: v.driver, name: v.name + " clone", content: &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
				Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: v.snapshot},
			}}}
			ok = do("clone", s.create, clone)
			s.clones.Add(1)
		}
	}
	ok = ok && do("expand", func(ctx context.Context, c csi.ControllerClient, v *subject) error { return s.expand(ctx, c, v, grown) }, v)
	if ok {
		s.persistent(v.name, func(ctx context.Context) error { return s.whole(ctx, v) })
	}
	if clone != nil {
		do("delete the clone", s.away, clone)
	}
	do("delete", s.awayWithSnapshot, v)
	if s.done.Add(1) == int64(max(1, fromEnv(s.t, "HOLDFAST_SOAK_VOLUMES", 1)/10)) {
		s.firstRSS.Store(s.rss())
	}
}

func (s *soak) persistent(name string, call func(context.Context) error) {
	if err := s.persist("look at it", call); err != nil {
		s.t.Errorf("%s: %v", name, err)
	}
}

// mount stages and publishes the volume, writes, takes it down, and reads what it wrote.
func (s *soak) mount(v *subject) bool {
	s.mounted.Add(1)
	node := csi.NewNodeClient(s.own[v.driver])
	at := filepath.Join(s.dir, strings.ReplaceAll(v.name, " ", "-"))
	staging, target := filepath.Join(at, "staging"), filepath.Join(at, "pod", "mount")
	r, err := s.record(s.t.Context(), v)
	if err == nil {
		err = errors.Join(os.MkdirAll(staging, 0o750), os.MkdirAll(filepath.Dir(target), 0o750))
	}
	if err != nil {
		s.t.Errorf("%s: %v", v.name, err)
		return false
	}
	up := func(ctx context.Context) error {
		info, err := node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
		if err != nil {
			return err
		}
		published, err := s.healthy.Controller(v.driver).ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
			VolumeId: v.id, NodeId: info.GetNodeId(), VolumeCapability: mountCap(), Secrets: s.secrets, VolumeContext: r.Context,
		})
		if err != nil {
			return err
		}
		if _, err := node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: v.id, StagingTargetPath: staging, VolumeCapability: mountCap(), VolumeContext: r.Context, Secrets: s.node,
			PublishContext: published.GetPublishContext(),
		}); err != nil {
			return err
		}
		_, err = node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: v.id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: mountCap(), VolumeContext: r.Context,
		})
		return err
	}
	down := func(ctx context.Context) error {
		if _, err := node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: target}); err != nil {
			return err
		}
		_, err := node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: staging})
		return err
	}
	file := filepath.Join(target, "data")
	write := func(context.Context) error {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		_, err = f.WriteString(v.name)
		return errors.Join(err, f.Sync(), f.Close())
	}
	read := func(context.Context) error {
		data, err := os.ReadFile(file)
		if err == nil && string(data) != v.name {
			err = fmt.Errorf("the file holds %q", data)
		}
		return err
	}
	ok := true
	for _, step := range []struct {
		what string
		call func(context.Context) error
	}{{"mount", up}, {"write", write}, {"unmount", down}, {"mount again", up}, {"read", read}, {"unmount again", down}} {
		if err := s.persist(step.what, step.call); err != nil {
			s.t.Errorf("%s (%s): %v", v.name, v.driver, err)
			ok = false
		}
	}
	return ok
}

// kill ends a daemon or service by chance, again and again. The supervisor of
// `holdfast up` starts it anew.
func (s *soak) kill(ctx context.Context) {
	chance := rand.New(rand.NewPCG(uint64(s.seed), 1<<40))
	pause := time.Duration(fromEnv(s.t, "HOLDFAST_SOAK_PAUSE", killEvery)) * time.Second
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		daemons := s.daemons()
		names := slices.Sorted(maps.Keys(daemons))
		if len(names) == 0 {
			continue
		}
		name := names[chance.IntN(len(names))]
		if unix.Kill(daemons[name], unix.SIGKILL) == nil {
			s.killed[strings.SplitN(name, ".", 2)[0]]++
		}
	}
}

// daemons are the pids of what runs, but for the attach daemon: what it keeps ends with it
// only where it is a container.
func (b *bed) daemons() map[string]int {
	// It ends with an error when the cluster is not well, and says what there is all the same.
	out, _ := exec.Command(realceph.Binary(b.t, "holdfast"), "status", "--data-dir", b.cluster.Dir, "-o", "json").Output()
	var status struct {
		Daemons []struct {
			Name string `json:"name"`
			PID  int    `json:"pid"`
		} `json:"daemons"`
	}
	if json.Unmarshal(out, &status) != nil {
		return nil
	}
	pids := map[string]int{}
	for _, d := range status.Daemons {
		if d.PID > 0 && !strings.HasPrefix(d.Name, "attach") {
			pids[d.Name] = d.PID
		}
	}
	return pids
}

// await waits until the cluster is well again.
func (s *soak) await() {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if health, err := s.cluster.TryTool("ceph", "--connect-timeout", "10", "pg", "stat"); err == nil && !strings.Contains(health, "peering") && !strings.Contains(health, "down") {
			return
		}
	}
}

// rss is what the controller that is not killed has in memory, in bytes.
func (s *soak) rss() int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.healthy.Process().Pid))
	for line := range strings.SplitSeq(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}
