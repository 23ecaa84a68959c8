package controller_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/goleak"

	"github.com/holdfast-storage/holdfast/csi/cephfs"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/controller"
	"github.com/holdfast-storage/holdfast/csi/rbd"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const cluster = "c1"

var secrets = map[string]string{"userID": "admin", "userKey": "key"}

// bench is a controller on a fake cluster.
type bench struct {
	*controller.Server
	fake   *cephtest.Fake
	driver storage.Driver
	config string // path of the cluster map
	asked  *asked
}

// asked is what a caller of the controller keeps in mind: requests by name, and answers.
type asked struct {
	volumes          map[string]*csi.CreateVolumeRequest
	ids              map[string]string
	snapshots        map[string]string // ids by name
	snapshotRequests map[string]*csi.CreateSnapshotRequest
}

// edit replaces the cluster map.
func (b *bench) edit(t *testing.T, text string) {
	t.Helper()
	for _, id := range []string{"c2"} { // what an entry that is new needs
		write(t, filepath.Join(filepath.Dir(b.config), "credentials", id, "userID"), "admin")
		write(t, filepath.Join(filepath.Dir(b.config), "credentials", id, "userKey"), "key")
	}
	write(t, b.config, text)
}

// another returns a second controller on the same cluster, as after a failover.
func (b *bench) another(t *testing.T) *bench {
	next := newBench(t, b.driver, b.fake)
	next.asked = b.asked
	return next
}

func newBench(t *testing.T, driver storage.Driver, fake *cephtest.Fake) *bench {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	write(t, path, `[{"clusterID":"`+cluster+`","monitors":["127.0.0.1:1"]}]`)
	write(t, filepath.Join(dir, "credentials", cluster, "userID"), "admin")
	write(t, filepath.Join(dir, "credentials", cluster, "userKey"), "key")
	clusters, err := clustermap.Open(path, filepath.Join(dir, "credentials"))
	if err != nil {
		t.Fatal(err)
	}
	var backend controller.Backend = &rbd.Backend{Runner: command.System{}}
	if driver == storage.CephFS {
		backend = &cephfs.Backend{}
	}
	s := controller.New(controller.Config{
		Backend: backend, Dialer: fake.Dialer(), Clusters: clusters, Owner: "test",
		Log: slog.New(slog.DiscardHandler), Now: time.Now, LookAgain: time.Millisecond,
	})
	t.Cleanup(s.Close)
	return &bench{Server: s, fake: fake, driver: driver, config: path, asked: &asked{
		volumes: map[string]*csi.CreateVolumeRequest{}, ids: map[string]string{},
		snapshots: map[string]string{}, snapshotRequests: map[string]*csi.CreateSnapshotRequest{},
	}}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// both runs a test for each driver.
func both(t *testing.T, test func(*testing.T, *bench)) {
	for _, driver := range []storage.Driver{storage.RBD, storage.CephFS} {
		t.Run(string(driver), func(t *testing.T) { test(t, newBench(t, driver, cephtest.NewFake())) })
	}
}

func mount(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

const writer = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER

func (b *bench) request(name string, size storage.Bytes) *csi.CreateVolumeRequest {
	r := &csi.CreateVolumeRequest{
		Name: name, Secrets: secrets, Parameters: map[string]string{"clusterID": cluster},
		CapacityRange:      &csi.CapacityRange{RequiredBytes: int64(size)},
		VolumeCapabilities: []*csi.VolumeCapability{mount(writer)},
	}
	if b.driver == storage.RBD {
		r.Parameters["pool"] = "rbd"
	}
	return r
}

func (b *bench) make(t *testing.T, name string) *csi.Volume {
	t.Helper()
	return b.mustCreate(t, b.request(name, storage.GiB))
}

func (b *bench) mustCreate(t *testing.T, request *csi.CreateVolumeRequest) *csi.Volume {
	t.Helper()
	b.asked.volumes[request.GetName()] = request
	response, err := b.CreateVolume(t.Context(), request)
	b.must(t, err)
	b.asked.ids[request.GetName()] = response.GetVolume().GetVolumeId()
	return response.GetVolume()
}

func (b *bench) create(t *testing.T, request *csi.CreateVolumeRequest) error {
	t.Helper()
	b.asked.volumes[request.GetName()] = request
	_, err := b.CreateVolume(t.Context(), request)
	return err
}

// id returns the id of a volume by its name.
func (b *bench) id(name string) string         { return b.asked.ids[name] }
func (b *bench) snapshotID(name string) string { return b.asked.snapshots[name] }

func (b *bench) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copyRequest asks for a volume from a snapshot or a volume.
func (b *bench) copyRequest(name string, size storage.Bytes, snapshot, volume string) *csi.CreateVolumeRequest {
	r := b.request(name, size)
	if snapshot != "" {
		r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot},
		}}
	} else {
		r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: volume},
		}}
	}
	return r
}

func (b *bench) snapshotRequest(name, volume string) *csi.CreateSnapshotRequest {
	return &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume, Secrets: secrets}
}

func (b *bench) snapshot(t *testing.T, name string, v *csi.Volume) *csi.Snapshot {
	t.Helper()
	response, err := b.CreateSnapshot(t.Context(), b.snapshotRequest(name, v.GetVolumeId()))
	b.must(t, err)
	b.asked.snapshots[name] = response.GetSnapshot().GetSnapshotId()
	return response.GetSnapshot()
}

func (b *bench) dropSnapshot(t *testing.T, id string) error {
	t.Helper()
	_, err := b.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: id, Secrets: secrets})
	return err
}

func (b *bench) remove(t *testing.T, id string) error {
	t.Helper()
	_, err := b.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id, Secrets: secrets})
	return err
}

// left lists everything that the cluster holds of Holdfast when the background work is done.
func (b *bench) left(t *testing.T) (all []string) {
	t.Helper()
	for range 5 { // what others left is looked at twice, and a connection that was cut off is noticed by one that fails
		b.Tidy(t.Context())
		if all = b.there(t); len(all) == 0 {
			return nil
		}
		<-time.After(5 * time.Millisecond)
	}
	return all
}

// there lists everything that the cluster holds of Holdfast now.
func (b *bench) there(t *testing.T) []string {
	t.Helper()
	c := b.fake.Connect()
	var all []string
	for what, list := range map[string]func() ([]string, error){
		"rbd records":    func() ([]string, error) { return c.Objects(record.Pool, "rbd").List(t.Context()) },
		"cephfs records": func() ([]string, error) { return c.Objects(record.Pool, "cephfs").List(t.Context()) },
		"rbd snapshot records": func() ([]string, error) {
			return c.Objects(record.Pool, "rbd:snapshots").List(t.Context())
		},
		"cephfs snapshot records": func() ([]string, error) {
			return c.Objects(record.Pool, "cephfs:snapshots").List(t.Context())
		},
		"trash": func() ([]string, error) {
			list, err := c.Images("rbd", "").Trashed(t.Context())
			names := make([]string, len(list))
			for i, image := range list {
				names[i] = image.Name
			}
			return names, err
		},
		"images":     func() ([]string, error) { return c.Images("rbd", "").List(t.Context()) },
		"subvolumes": func() ([]string, error) { return c.Subvolumes("cephfs", "csi").List(t.Context()) },
	} {
		names, err := list()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			all = append(all, what+" "+n)
		}
	}
	slices.Sort(all)
	return all
}

func wantClass(t *testing.T, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("got error %v, want %v", err, class)
	}
}

func TestVolumeLivesAndLeavesNothing(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "시험 볼륨 🗄")
		if v.GetVolumeContext()["name"] != "시험 볼륨 🗄" {
			t.Errorf("context %v", v.GetVolumeContext())
		}
		if again := b.make(t, "시험 볼륨 🗄"); again.GetVolumeId() != v.GetVolumeId() {
			t.Errorf("the same name gave %s, then %s", v.GetVolumeId(), again.GetVolumeId())
		}
		grown, err := b.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
			VolumeId: v.GetVolumeId(), Secrets: secrets, CapacityRange: &csi.CapacityRange{RequiredBytes: int64(3 * storage.GiB)},
		})
		if err != nil || grown.GetCapacityBytes() != int64(3*storage.GiB) {
			t.Fatalf("expand: %v, %v", grown, err)
		}
		if err := b.remove(t, v.GetVolumeId()); err != nil {
			t.Fatal(err)
		}
		if err := b.remove(t, v.GetVolumeId()); err != nil {
			t.Fatalf("second delete: %v", err)
		}
		if left := b.left(t); len(left) != 0 {
			t.Fatalf("left %v", left)
		}
	})
}

func TestSameNameWithOtherWishesIsRefused(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		b.make(t, "v")
		larger := b.request("v", 2*storage.GiB)
		_, err := b.CreateVolume(t.Context(), larger)
		wantClass(t, err, fault.Exists)
		other := b.request("v", storage.GiB)
		other.Parameters["mounter"] = "auto"
		_, err = b.CreateVolume(t.Context(), other)
		wantClass(t, err, fault.Exists)
	})
}

func TestLateDeleteOfAnOldVolumeSparesTheNewOneOfItsName(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		old := b.make(t, "v")
		if err := b.remove(t, old.GetVolumeId()); err != nil {
			t.Fatal(err)
		}
		fresh := b.make(t, "v")
		if err := b.remove(t, old.GetVolumeId()); err != nil {
			t.Fatal(err)
		}
		_, err := b.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: old.GetVolumeId()})
		wantClass(t, err, fault.NotFound)
		if _, err := b.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: fresh.GetVolumeId()}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestManyCallsOfOneNameMakeOneVolume(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		second := b.another(t)
		ids := make([]string, 32)
		var callers sync.WaitGroup
		for i := range ids {
			callers.Go(func() {
				on := []*bench{b, second}[i%2]
				response, err := on.CreateVolume(t.Context(), on.request("v", storage.GiB))
				if err != nil {
					t.Error(err)
				}
				ids[i] = response.GetVolume().GetVolumeId()
			})
		}
		callers.Wait()
		if distinct := slices.Compact(slices.Sorted(slices.Values(ids))); len(distinct) != 1 {
			t.Fatalf("got %d volumes: %v", len(distinct), distinct)
		}
		if left := b.left(t); len(left) != 2 {
			t.Fatalf("want a record and what it describes, there is %v", left)
		}
	})
}

// failAt makes the n-th operation from now on, and all after it, fail as a dead cluster does.
func failAt(fake *cephtest.Fake, n int) {
	var mu sync.Mutex
	fake.Hook(func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if n--; n < 0 {
			return fault.New(fault.Unavailable, "injected")
		}
		return nil
	})
}

func (b *bench) expireLeases() { b.fake.Advance(time.Hour) }

func TestDeletionCutOffThenCreateOfTheNameMakesANewVolume(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		old := b.make(t, "v")
		b.fake.Hook(func(op string) error {
			if strings.HasPrefix(op, "Images.Trash") || strings.HasPrefix(op, "Subvolumes.Remove") {
				return fault.New(fault.Unavailable, "injected")
			}
			return nil
		})
		wantClass(t, b.remove(t, old.GetVolumeId()), fault.Unavailable)
		b.fake.Hook(nil)
		fresh := b.make(t, "v")
		if fresh.GetVolumeId() == old.GetVolumeId() {
			t.Fatal("the half deleted volume was handed out")
		}
		if left := b.left(t); len(left) != 2 {
			t.Fatalf("want one volume, there is %v", left)
		}
	})
}

func TestErrorThatNoRetryMendsLeavesNothing(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		b.fake.Hook(func(op string) error {
			if strings.HasPrefix(op, "Images.Create") || strings.HasPrefix(op, "Subvolumes.Create") {
				return fault.New(fault.Invalid, "injected")
			}
			return nil
		})
		_, err := b.CreateVolume(t.Context(), b.request("v", storage.GiB))
		wantClass(t, err, fault.Invalid)
		if left := b.left(t); len(left) != 0 {
			t.Fatalf("left %v", left)
		}
	})
}

func TestFullClusterIsExhaustedAndDeletesStillWork(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "before")
		b.fake.SetFull(true)
		_, err := b.CreateVolume(t.Context(), b.request("v", storage.GiB))
		wantClass(t, err, fault.Exhausted)
		if again := b.make(t, "before"); again.GetVolumeId() != v.GetVolumeId() {
			t.Error("the volume there is was not returned")
		}
		if err := b.remove(t, v.GetVolumeId()); err != nil {
			t.Fatal(err)
		}
		if left := b.left(t); len(left) != 0 {
			t.Fatalf("left %v", left)
		}
	})
}

func TestEndedContextReleasesTheCallerAndTheWorkFinishes(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		resume := b.fake.Hang()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := b.CreateVolume(ctx, b.request("v", storage.GiB))
		wantClass(t, err, context.DeadlineExceeded)
		resume()
		b.make(t, "v")
		if left := b.left(t); len(left) != 2 {
			t.Fatalf("want one volume, there is %v", left)
		}
	})
}

func TestVolumeInUseIsNotDeletedAndStaysUsable(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.make(t, "v")
	b.fake.Watch("rbd", "", v.GetVolumeContext()["image"], ceph.Watcher{Address: "10.0.0.7:0/1"})
	err := b.remove(t, v.GetVolumeId())
	wantClass(t, err, fault.Busy)
	if !strings.Contains(err.Error(), "10.0.0.7") {
		t.Errorf("the error does not name the client: %v", err)
	}
	if again := b.make(t, "v"); again.GetVolumeId() != v.GetVolumeId() {
		t.Error("the volume is not usable any more")
	}
}
