package cephtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Clients are two connections to one cluster, which need the pools "rbd" and
// ".holdfast" and the file system "cephfs"; C is a third one, which is of no use afterwards.
type Clients struct {
	A, B, C ceph.Cluster
	Outside Outside
}

// Outside is what the suite needs of the world beyond the contract.
type Outside interface {
	// Open opens an image as a client of its own.
	Open(t *testing.T, pool, namespace, image string) Device
	// Namespace makes a RADOS namespace for images in a pool, for as long as t runs.
	Namespace(t *testing.T, pool string) string
	// HalfRename does to an image what a renaming does that is cut off: it has both names then.
	HalfRename(t *testing.T, pool, image, to string)
	// DelayCopies makes copies of subvolumes stay pending for a few seconds, until resume.
	DelayCopies(t *testing.T) (resume func())
	// SetOmap puts pairs into the map of an object, which is made if need be.
	SetOmap(t *testing.T, pool, namespace, name string, pairs map[string]string)
}

// Device is an opened image.
type Device interface {
	Write(t *testing.T, offset, length uint64)
	Discard(t *testing.T, offset, length uint64)
	Close(t *testing.T)
}

// Conformance runs the suite. What it makes has random names and is removed.
func Conformance(t *testing.T, clients Clients) {
	t.Run("objects", func(t *testing.T) { conformObjects(t, clients) })
	t.Run("images", func(t *testing.T) { conformImages(t, clients) })
	t.Run("images kept open", func(t *testing.T) { conformOpen(t, clients) })
	t.Run("image snapshots", func(t *testing.T) { conformSnapshots(t, clients) })
	t.Run("image clones", func(t *testing.T) { conformClones(t, clients) })
	t.Run("image trash", func(t *testing.T) { conformTrash(t, clients) })
	t.Run("image trash and back", func(t *testing.T) { conformRestore(t, clients) })
	t.Run("image names", func(t *testing.T) { conformRename(t, clients) })
	t.Run("images in use", func(t *testing.T) { conformUse(t, clients) })
	t.Run("image differences", func(t *testing.T) { conformDiff(t, clients) })
	t.Run("subvolumes", func(t *testing.T) { conformSubvolumes(t, clients) })
	t.Run("subvolume snapshots", func(t *testing.T) { conformSubvolumeSnapshots(t, clients) })
	t.Run("subvolume clones", func(t *testing.T) { conformSubvolumeClones(t, clients) })
	t.Run("retired subvolumes", func(t *testing.T) { conformRetired(t, clients) })
	t.Run("cluster", func(t *testing.T) { conformCluster(t, clients) })
	t.Run("notes", func(t *testing.T) { conformNotes(t, clients) })
	t.Run("omaps", func(t *testing.T) { conformOmaps(t, clients) })
	t.Run("fencing", func(t *testing.T) { conformFencing(t, clients) })
}

func want(t *testing.T, what string, got, class error) {
	t.Helper()
	if class == nil && got != nil || class != nil && !errors.Is(got, class) {
		t.Fatalf("%s: got error %v, want %v", what, got, class)
	}
}

func lease(cookie string) ceph.Lease {
	return ceph.Lease{Name: "holdfast", Cookie: cookie, Description: "conformance", TTL: time.Minute}
}

func conformObjects(t *testing.T, clients Clients) {
	ctx := t.Context()
	a := clients.A.Objects(".holdfast", "conformance")
	b := clients.B.Objects(".holdfast", "conformance")
	name := "o-" + rand.Text()

	_, err := a.Read(ctx, name)
	want(t, "read of an absent object", err, fault.NotFound)
	want(t, "lock of an absent object", a.Lock(ctx, name, lease("1")), fault.NotFound)
	want(t, "write of an absent object", a.WriteLocked(ctx, name, []byte("x"), lease("1")), fault.NotFound)
	want(t, "create", a.CreateLocked(ctx, name, []byte("first"), lease("1")), nil)
	want(t, "second create", b.CreateLocked(ctx, name, []byte("x"), lease("2")), fault.Exists)
	want(t, "lock held by another client", b.Lock(ctx, name, lease("1")), fault.Busy)
	want(t, "lock held by another cookie", a.Lock(ctx, name, lease("2")), fault.Busy)
	want(t, "renewal", a.Renew(ctx, name, lease("1")), nil)
	conformLeaseOn(t, b, name, true)
	want(t, "renewal by another cookie", a.Renew(ctx, name, lease("2")), fault.Aborted)
	want(t, "renewal by another client", b.Renew(ctx, name, lease("1")), fault.Aborted)
	want(t, "renewal on an absent object", a.Renew(ctx, name+"x", lease("1")), fault.Aborted)
	want(t, "write without the lease", b.WriteLocked(ctx, name, []byte("x"), lease("1")), fault.Aborted)
	want(t, "removal without the lease", b.RemoveLocked(ctx, name, lease("2")), fault.Aborted)
	want(t, "write", a.WriteLocked(ctx, name, []byte("한글 🗄"), lease("1")), nil)
	data, err := b.Read(ctx, name)
	want(t, "read", err, nil)
	if string(data) != "한글 🗄" {
		t.Fatalf("read %q", data)
	}
	names, err := b.List(ctx)
	want(t, "list", err, nil)
	if !contains(names, name) {
		t.Fatalf("list %v lacks %s", names, name)
	}
	want(t, "unlock", a.Unlock(ctx, name, lease("1")), nil)
	want(t, "unlock again", a.Unlock(ctx, name, lease("1")), fault.NotFound)
	conformLeaseOn(t, b, name, false)
	want(t, "write after unlock", a.WriteLocked(ctx, name, []byte("x"), lease("1")), fault.Aborted)

	short := lease("3")
	short.TTL = time.Second
	want(t, "lock for a second", a.Lock(ctx, name, short), nil)
	time.Sleep(short.TTL + 500*time.Millisecond)
	conformLeaseOn(t, b, name, false)
	want(t, "renewal of a lease that ran out and nobody took", a.Renew(ctx, name, short), fault.Aborted)
	want(t, "lock after it ran out", b.Lock(ctx, name, lease("4")), nil)
	want(t, "renewal of a lease that somebody took", a.Renew(ctx, name, short), fault.Aborted)
	want(t, "write after the lease ran out", a.WriteLocked(ctx, name, []byte("x"), short), fault.Aborted)
	want(t, "write and unlock without the lease", a.WriteUnlock(ctx, name, []byte("no"), lease("4")), fault.Aborted)
	want(t, "write and unlock", b.WriteUnlock(ctx, name, []byte("last"), lease("4")), nil)
	want(t, "write after that", b.WriteLocked(ctx, name, []byte("no"), lease("4")), fault.Aborted)
	want(t, "lock after that", b.Lock(ctx, name, lease("4")), nil)
	if data, err := b.Read(ctx, name); err != nil || string(data) != "last" {
		t.Errorf("read back %q, %v", data, err)
	}
	conformLockAfter(t, clients, name)
	want(t, "remove", b.RemoveLocked(ctx, name, lease("4")), nil)
	_, err = a.Read(ctx, name)
	want(t, "read after removal", err, fault.NotFound)
	want(t, "unlock after removal", b.Unlock(ctx, name, lease("4")), fault.NotFound)
}

// conformLockAfter takes leases one after the other, on an object that B holds under "4" and has again afterwards.
func conformLockAfter(t *testing.T, clients Clients, name string) {
	t.Helper()
	ctx := t.Context()
	a := clients.A.Objects(".holdfast", "conformance")
	b := clients.B.Objects(".holdfast", "conformance")
	former, err := clients.A.Self(ctx)
	want(t, "own address", err, nil)
	after := func(what string, cookie string, fenced, lapsed ceph.ClientAddress, class error) {
		t.Helper()
		got, err := b.LockAfter(ctx, name, lease(cookie), fenced)
		want(t, what, err, class)
		if got != lapsed {
			t.Fatalf("%s: lapsed is %q, want %q", what, got, lapsed)
		}
	}
	_, err = a.LockAfter(ctx, name+"x", lease("5"), "")
	want(t, "lock after nobody of an absent object", err, fault.NotFound)
	_, err = a.LockAfter(ctx, name, lease("5"), "")
	want(t, "lock after one that holds it", err, fault.Busy)
	want(t, "unlock", b.Unlock(ctx, name, lease("4")), nil)
	short := lease("5")
	short.TTL = time.Second
	_, err = a.LockAfter(ctx, name, short, "")
	want(t, "lock after one that let go", err, nil)
	after("lock after one that is fenced and holds it still", "4", former, "", fault.Busy)
	time.Sleep(short.TTL + 500*time.Millisecond)
	after("lock after one whose lease ran out", "4", "", former, nil)
	after("lock after one whose lease ran out, with another fenced", "4", "10.0.0.9:0/9", former, nil)
	want(t, "write without the lease", b.WriteLocked(ctx, name, []byte("no"), lease("4")), fault.Aborted)
	after("lock after one that is fenced", "4", former, "", nil)
	want(t, "write", b.WriteLocked(ctx, name, []byte("last"), lease("4")), nil)
}

// conformLeaseOn looks at the lease on an object that was worked on a moment ago.
func conformLeaseOn(t *testing.T, objects ceph.Objects, name string, held bool) {
	t.Helper()
	state, err := objects.LeaseOn(t.Context(), name, lease("").Name)
	want(t, "look at a lease", err, nil)
	if age := time.Since(state.Changed); age < -time.Minute || age > time.Minute {
		t.Errorf("the object was changed %s ago", age)
	}
	if state.Held != held || held && (state.Holder != lease("").Description || time.Until(state.Until) < 30*time.Second) {
		t.Errorf("lease %+v, want it held: %v", state, held)
	}
	other, err := objects.LeaseOn(t.Context(), name, "another")
	want(t, "look at a lease that nobody took", err, nil)
	if other.Held {
		t.Errorf("lease %+v, nobody took it", other)
	}
	_, err = objects.LeaseOn(t.Context(), name+"x", lease("").Name)
	want(t, "look at a lease on an absent object", err, fault.NotFound)
}

func conformImages(t *testing.T, clients Clients) {
	ctx := t.Context()
	images := clients.A.Images("rbd", "")
	name := "hf-conformance-" + rand.Text()
	spec := ceph.ImageSpec{Size: 64 * storage.MiB, Metadata: map[string]string{"key": "값"}}

	_, err := images.Info(ctx, name)
	want(t, "info of an absent image", err, fault.NotFound)
	_, err = images.Size(ctx, name)
	want(t, "size of an absent image", err, fault.NotFound)
	want(t, "removal of an absent image", images.Remove(ctx, name), fault.NotFound)
	want(t, "create in an absent pool", clients.A.Images("no-such-pool", "").Create(ctx, name, spec), fault.Precondition)
	want(t, "create", images.Create(ctx, name, spec), nil)
	want(t, "second create", images.Create(ctx, name, spec), fault.Exists)
	want(t, "resize", images.Resize(ctx, name, 96*storage.MiB), nil)
	want(t, "growth", images.Grow(ctx, name, 128*storage.MiB), nil)
	want(t, "growth to less than there is", images.Grow(ctx, name, 64*storage.MiB), nil)
	info, err := images.Info(ctx, name)
	want(t, "info", err, nil)
	if info.Size != 128*storage.MiB || info.ID == "" || info.DataPool <= 0 {
		t.Fatalf("info %+v", info)
	}
	size, err := images.Size(ctx, name)
	want(t, "size", err, nil)
	if size != info.Size {
		t.Fatalf("size %d, by its info %d", size, info.Size)
	}
	many := conformMetadata(t, images, name)
	want(t, "set metadata", images.SetMetadata(ctx, name, map[string]string{"other": "v"}), nil)
	pairs, err := images.Metadata(ctx, name)
	want(t, "metadata", err, nil)
	many["other"] = "v"
	if diff := cmp.Diff(many, pairs); diff != "" {
		t.Fatal(diff)
	}
	header := clients.B.Objects("rbd", "")
	want(t, "lease on the image", header.Lock(ctx, ceph.ImageObject(name), lease("1")), nil)
	want(t, "end of it", header.Unlock(ctx, ceph.ImageObject(name), lease("1")), nil)
	watchers, err := images.Watchers(ctx, name)
	want(t, "watchers", err, nil)
	if len(watchers) != 0 {
		t.Fatalf("watchers of an idle image: %v", watchers)
	}
	want(t, "unwatched", images.Unwatched(ctx, name), nil)
	want(t, "unwatched, not there", images.Unwatched(ctx, "none"), fault.NotFound)
	names, err := images.List(ctx)
	want(t, "list", err, nil)
	if !contains(names, name) {
		t.Fatalf("list %v lacks %s", names, name)
	}
	want(t, "remove", images.Remove(ctx, name), nil)
	_, err = images.Info(ctx, name)
	want(t, "info after removal", err, fault.NotFound)
}

// conformMetadata gives an image more metadata than one question is answered with, and returns all it has.
func conformMetadata(t *testing.T, images ceph.Images, name string) map[string]string {
	t.Helper()
	ctx := t.Context()
	many := map[string]string{"empty": ""}
	for i := range 130 {
		many[fmt.Sprintf("many.%03d", i)] = strings.Repeat("x", i)
	}
	want(t, "set many pairs of metadata", images.SetMetadata(ctx, name, many), nil)
	all, err := images.Metadata(ctx, name)
	want(t, "many pairs of metadata", err, nil)
	many["key"] = "값"
	if diff := cmp.Diff(many, all); diff != "" {
		t.Fatal(diff)
	}
	_, err = images.Metadata(ctx, name+"x")
	want(t, "metadata of an absent image", err, fault.NotFound)
	want(t, "set metadata of an absent image", images.SetMetadata(ctx, name+"x", many), fault.NotFound)
	return many
}

func conformSubvolumes(t *testing.T, clients Clients) {
	ctx := t.Context()
	group := clients.A.Subvolumes("cephfs", "csi")
	name := "hf-conformance-" + rand.Text()
	spec := ceph.SubvolumeSpec{Size: storage.GiB, Mode: 0o777}

	_, err := group.Info(ctx, name)
	want(t, "info of an absent subvolume", err, fault.NotFound)
	want(t, "removal of an absent subvolume", group.Remove(ctx, name), fault.NotFound)
	// A user who may use one file system alone is not told that another is not there.
	if err := clients.A.Subvolumes("nofs", "csi").Create(ctx, name, spec); !errors.Is(err, fault.Denied) {
		want(t, "create in an absent file system", err, fault.NotFound)
	}
	want(t, "create", group.Create(ctx, name, spec), nil)
	want(t, "create of a larger one", group.Create(ctx, name, ceph.SubvolumeSpec{Size: 4 * storage.GiB, Mode: 0o777}), nil)
	want(t, "second create", group.Create(ctx, name, spec), nil)
	if info, err := group.Info(ctx, name); err != nil || info.Quota != spec.Size {
		t.Fatalf("info after a second create %+v, %v", info, err)
	}
	want(t, "resize", group.Resize(ctx, name, 2*storage.GiB), nil)
	want(t, "shrink", group.Resize(ctx, name, storage.GiB), fault.Range)
	info, err := group.Info(ctx, name)
	want(t, "info", err, nil)
	if info.Quota != 2*storage.GiB || info.Path == "" || info.State != "complete" || info.DataPool != "cephfs.data" {
		t.Fatalf("info %+v", info)
	}
	names, err := group.List(ctx)
	want(t, "list", err, nil)
	if !contains(names, name) {
		t.Fatalf("list %v lacks %s", names, name)
	}
	want(t, "remove", group.Remove(ctx, name), nil)
	_, err = group.Info(ctx, name)
	want(t, "info after removal", err, fault.NotFound)
}

func conformCluster(t *testing.T, clients Clients) {
	ctx := t.Context()
	pools, err := clients.A.Pools(ctx)
	want(t, "pools", err, nil)
	var names []string
	for _, p := range pools {
		names = append(names, p.Name)
		if p.Name == "rbd" && (p.MaxAvail <= 0 || p.Size < 1 || p.PGs < 1 || p.Full) {
			t.Fatalf("pool %+v", p)
		}
	}
	if !contains(names, "rbd") || !contains(names, ".holdfast") {
		t.Fatalf("pools %v", names)
	}
	list, err := clients.A.Filesystems(ctx)
	want(t, "file systems", err, nil)
	if len(list) != 1 || list[0].Name != "cephfs" || len(list[0].DataPools) != 1 || list[0].ID < 1 {
		t.Fatalf("file systems %+v", list)
	}
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}
