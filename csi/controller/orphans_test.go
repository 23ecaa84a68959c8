package controller_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// stray is a name that no record has.
var stray = volumeid.BackendName(strings.Repeat("5", 32))

// drop puts a stray image or subvolume onto the cluster.
func (b *bench) drop(t *testing.T) {
	t.Helper()
	if b.driver == storage.RBD {
		b.must(t, b.fake.Connect().Images("rbd", "").Create(t.Context(), stray, ceph.ImageSpec{Size: storage.GiB}))
	} else {
		b.must(t, b.fake.Connect().Subvolumes("cephfs", "csi").Create(t.Context(), stray, ceph.SubvolumeSpec{Size: storage.GiB}))
	}
}

// patient returns a controller to which everything is an hour old.
func (b *bench) patient(t *testing.T) *bench {
	other := b.another(t)
	other.Now = func() time.Time { return time.Now().Add(time.Hour) }
	return other
}

func (b *bench) orphans(t *testing.T) []volumeapi.Orphan {
	t.Helper()
	found, err := b.Orphans(t.Context())
	b.must(t, err)
	if len(found.Problems) > 0 {
		t.Fatalf("problems: %v", found.Problems)
	}
	return found.Orphans
}

// sweep deletes all orphans and returns what stays, by id.
func (b *bench) sweep(t *testing.T) map[string]string {
	t.Helper()
	var ids []string
	for _, o := range b.orphans(t) {
		ids = append(ids, o.ID)
	}
	done, err := b.DeleteOrphans(t.Context(), ids)
	b.must(t, err)
	stays := map[string]string{}
	for _, d := range done {
		if d.Error != "" {
			stays[d.ID] = d.Error
		}
	}
	return stays
}

func TestWhatNoRecordKnowsIsAnOrphanAndGoes(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "v")
		b.snapshot(t, "s", v)
		b.mustCreate(t, b.copyRequest("c", storage.GiB, b.snapshotID("s"), ""))
		if found := b.patient(t).orphans(t); len(found) != 0 {
			t.Fatalf("orphans among what is in use: %+v", found)
		}
		b.drop(t)
		found := b.orphans(t)
		if len(found) != 1 || found[0].Name != stray || found[0].Why == "" || found[0].Effect == "" || found[0].Kept != "" {
			t.Fatalf("orphans %+v", found)
		}
		if stays := b.sweep(t); len(stays) != 0 {
			t.Fatalf("stays: %v", stays)
		}
		b.Tidy(t.Context())
		if found := b.orphans(t); len(found) != 0 {
			t.Errorf("left: %+v", found)
		}
		inventory, err := b.Inventory(t.Context())
		b.must(t, err)
		if len(inventory.Records) != 3 {
			t.Errorf("records %+v", inventory.Records)
		}
	})
}

func TestAnOrphanThatAClientHasOpenStays(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	b.drop(t)
	id := b.orphans(t)[0].ID
	b.fake.Watch("rbd", "", stray, ceph.Watcher{Address: "10.0.0.9:0/1", Client: 7})
	if kept := b.orphans(t)[0].Kept; !strings.Contains(kept, "10.0.0.9:0/1") {
		t.Errorf("kept because %q", kept)
	}
	done, err := b.DeleteOrphans(t.Context(), []string{id, "rbd.csi.holdfast.io/image/other", "cephfs.csi.holdfast.io/x"})
	b.must(t, err)
	if len(done) != 2 || done[0].Error == "" || done[1].Error == "" {
		t.Errorf("deletions %+v", done)
	}
	if _, err := b.fake.Connect().Images("rbd", "").Info(t.Context(), stray); err != nil {
		t.Error(err)
	}
}

func TestARecordThatNobodyFinishesIsAnOrphanAfterAWhile(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		b.fake.Hook(func(op string) error {
			if strings.HasPrefix(op, "Images.Create ") || strings.HasPrefix(op, "Subvolumes.Create ") {
				return fault.New(fault.Unavailable, "the cluster is away")
			}
			return nil
		})
		wantClass(t, b.create(t, b.request("v", storage.GiB)), fault.Unavailable)
		b.fake.Hook(nil)
		if found := b.orphans(t); len(found) != 0 {
			t.Fatalf("who made it comes back: %+v", found)
		}
		pending, err := b.Pending(t.Context(), "v")
		b.must(t, err)
		if len(pending) != 1 || pending[0].State != "creating" || !strings.Contains(pending[0].Reasons[1].What, "the cluster is away") {
			t.Errorf("pending %+v", pending)
		}
		later := b.patient(t)
		found := later.orphans(t)
		if len(found) != 1 || found[0].Kind != volumeapi.OrphanRecord || found[0].Name != "v" {
			t.Fatalf("orphans %+v", found)
		}
		if stays := later.sweep(t); len(stays) != 0 {
			t.Fatalf("stays: %v", stays)
		}
		later.Tidy(t.Context())
		if left := b.left(t); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestTheRecordOfALostVolumeIsAnOrphanUnlessANodeHasIt(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.make(t, "v")
	b.must(t, b.fake.Connect().Images("rbd", "").Remove(t.Context(), v.GetVolumeContext()["image"]))
	publish := &csi.ControllerPublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: "hf1:n", VolumeCapability: mount(writer), Secrets: secrets}
	if _, err := b.ControllerPublishVolume(t.Context(), publish); err != nil {
		t.Fatal(err)
	}
	later := b.patient(t)
	if found := later.orphans(t); len(found) != 1 || !strings.Contains(found[0].Kept, "hf1:n") || !strings.Contains(found[0].Why, "missing") {
		t.Fatalf("orphans %+v", found)
	}
	if stays := later.sweep(t); len(stays) != 1 {
		t.Fatalf("stays: %v", stays)
	}
	if _, err := b.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: "hf1:n", Secrets: secrets}); err != nil {
		t.Fatal(err)
	}
	if stays := later.sweep(t); len(stays) != 0 || len(b.left(t)) != 0 {
		t.Errorf("stays: %v, left: %v", stays, b.left(t))
	}
}

// Before each operation of a create a search deletes every orphan that it finds, and before each
// operation of a search and deletion a whole create runs: the volume is there in the end.
func TestNoCreateIsTakenForAnOrphan(t *testing.T) {
	for _, driver := range []storage.Driver{storage.RBD, storage.CephFS} {
		for _, within := range []string{"create", "search"} {
			t.Run(string(driver)+" within "+within, func(t *testing.T) {
				for at := 0; raced(t, driver, within, at); at++ {
				}
			})
		}
	}
}

// raced is false when the outer call has fewer operations than at.
func raced(t *testing.T, driver storage.Driver, within string, at int) bool {
	t.Helper()
	b := newBench(t, driver, cephtest.NewFake())
	other := b.patient(t)
	b.drop(t)
	outer, inner := func() { b.make(t, "v") }, func() { other.sweep(t) }
	if within == "search" {
		outer, inner = inner, outer
	}
	n, met := 0, false
	b.fake.Hook(func(string) error {
		if n++; n > at {
			b.fake.Hook(nil)
			met = true
			inner()
		}
		return nil
	})
	outer()
	b.fake.Hook(nil)
	if !met {
		return false
	}
	b.Tidy(t.Context())
	other.Tidy(t.Context())
	response, err := b.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: b.id("v")})
	if err != nil || response.GetStatus().GetVolumeCondition().GetAbnormal() {
		t.Fatalf("before operation %d: %v, %v", at, response.GetStatus(), err)
	}
	return true
}

func TestWhyPendingSaysWhatStandsInTheWay(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		parameter := map[storage.Driver]string{storage.RBD: "pool", storage.CephFS: "fsName"}[b.driver]
		bad := b.request("pvc-0815", storage.GiB)
		bad.Parameters[parameter] = "nope"
		bad.Parameters["csi.storage.k8s.io/pvc/name"], bad.Parameters["csi.storage.k8s.io/pvc/namespace"] = "data", "shop"
		wantClass(t, b.create(t, bad), fault.Invalid)
		for _, name := range []string{"pvc-0815", "0815", "data", "shop/data"} {
			found, err := b.Pending(t.Context(), name)
			b.must(t, err)
			if len(found) != 1 || found[0].State != "unknown" || !strings.Contains(found[0].Reasons[0].What, "nope") || found[0].Reasons[0].Next == "" {
				t.Errorf("%s: %+v", name, found)
			}
		}
		good := b.request("pvc-0815", storage.GiB)
		good.Parameters["csi.storage.k8s.io/pvc/name"], good.Parameters["csi.storage.k8s.io/pvc/namespace"] = "data", "shop"
		v := b.mustCreate(t, good)
		if _, err := b.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
			VolumeId: v.GetVolumeId(), NodeId: "hf1:n", VolumeCapability: mount(writer), Secrets: secrets,
		}); err != nil {
			t.Fatal(err)
		}
		b.fake.SetFull(true)
		defer b.fake.SetFull(false)
		found, err := b.Pending(t.Context(), "shop/data")
		b.must(t, err)
		if len(found) != 1 || found[0].State != "ready" || found[0].Claim.String() != "shop/data" {
			t.Fatalf("pending %+v", found)
		}
		said := ""
		for _, r := range found[0].Reasons {
			said += r.What + "\n"
		}
		for _, want := range []string{"is full", "node hf1:n has it"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q is not among:\n%s", want, said)
			}
		}
	})
}

func TestARewrappedKeyOpensWithTheNewPassphraseAlone(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.mustCreate(t, encrypted(b.request("v", storage.GiB)))
	s := b.snapshot(t, "s", v)
	fresh := maps.Clone(secrets)
	fresh[kms.Passphrase] = "another"
	_, err := b.Rewrap(t.Context(), v.GetVolumeId(), fresh)
	wantClass(t, err, fault.Denied)
	withOld := maps.Clone(fresh)
	withOld[kms.OldPassphrase] = "correct horse"
	for _, id := range []string{v.GetVolumeId(), s.GetSnapshotId()} {
		if _, err := b.Rewrap(t.Context(), id, withOld); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Rewrap(t.Context(), id, fresh); err != nil {
			t.Errorf("the new passphrase alone: %v", err)
		}
	}
	_, err = b.Rewrap(t.Context(), b.make(t, "plain").GetVolumeId(), fresh)
	wantClass(t, err, fault.Precondition)
	for _, c := range []struct {
		pass string
		want error
	}{{"correct horse", fault.Denied}, {"another", nil}} {
		r := encrypted(b.copyRequest("copy-"+c.pass[:4], storage.GiB, s.GetSnapshotId(), ""))
		r.Secrets[kms.Passphrase] = c.pass
		if err := b.create(t, r); c.want == nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.pass, err)
		}
	}
}

func TestSparsifyLeavesVolumesThatNodesHaveAlone(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.make(t, "v")
	if _, err := b.Sparsify(t.Context(), v.GetVolumeId()); err != nil {
		t.Fatal(err)
	}
	b.SparsifyAll(t.Context())
	if _, err := b.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: v.GetVolumeId(), NodeId: "hf1:n", VolumeCapability: mount(writer), Secrets: secrets,
	}); err != nil {
		t.Fatal(err)
	}
	_, err := b.Sparsify(t.Context(), v.GetVolumeId())
	wantClass(t, err, fault.Busy)
	e := b.mustCreate(t, encrypted(b.request("e", storage.GiB)))
	_, err = b.Sparsify(t.Context(), e.GetVolumeId())
	wantClass(t, err, fault.Unsupported)
}
