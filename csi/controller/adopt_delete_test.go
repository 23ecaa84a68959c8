package controller_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// failing makes operations that begin with op fail.
func (b *bench) failing(op string, with error) {
	b.fake.Hook(func(now string) error {
		if strings.HasPrefix(now, op) {
			return with
		}
		return nil
	})
}

// used has a node have the volume for a moment: there is a record of it then.
func (b *bench) used(t *testing.T, id string) {
	t.Helper()
	b.must(t, b.publishTo(t, id, "hf1:n1"))
	b.must(t, b.unpublishFrom(t, id, "hf1:n1"))
}

func TestADeletionThatNeverBeganLeavesAForeignVolumeUsable(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.legacy(t, nil)
		b.used(t, v.id)
		for _, op := range []string{"Pools", "Objects.Pairs csi.volume." + oldUUID, "Objects.Pairs csi.volumes.default"} {
			b.failing(op, fault.Unavailable)
			wantClass(t, b.remove(t, v.id), fault.Unavailable)
			b.fake.Hook(nil)
			b.used(t, v.id)
		}
		if b.driver == storage.RBD {
			b.failing("Images.Info "+oldImage, fault.Unavailable)
			wantClass(t, b.remove(t, v.id), fault.Unavailable)
			b.fake.Hook(nil)
			b.used(t, v.id)
		}
		b.must(t, b.remove(t, v.id))
	})
}

func TestAForeignVolumeWhoseDeletionBeganIsNotUsedAgain(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.legacy(t, nil)
	temp := oldImage + "-temp"
	b.must(t, b.fake.Connect().Images("rbd", "").Create(t.Context(), temp, ceph.ImageSpec{Size: storage.GiB}))
	b.used(t, v.id)
	b.failing("Images.Rename "+temp, fault.Busy)
	if err := b.remove(t, v.id); !errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Busy) {
		t.Errorf("its image is gone, and got %v", err)
	}
	b.fake.Hook(nil)
	wantClass(t, b.publishTo(t, v.id, "hf1:n1"), fault.NotFound)
	b.must(t, b.remove(t, v.id))
	if found, left := b.journal(t, v), b.things(t); len(found)+len(left) != 0 {
		t.Errorf("left %v, and of the journal %v", left, found)
	}
}

func TestAForeignSnapshotWhoseDeletionBeganIsNotRestored(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.legacy(t, nil)
	id := b.legacySnapshot(t, v)
	b.failing("Images.Rename csi-snap-", fault.Busy)
	if err := b.dropSnapshot(t, id); !errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Busy) {
		t.Errorf("the snapshot in its image is gone, and got %v", err)
	}
	b.fake.Hook(nil)
	wantClass(t, b.create(t, b.copyRequest("r", storage.GiB, id, "")), fault.NotFound)
	b.must(t, b.dropSnapshot(t, id))
	b.must(t, b.remove(t, v.id))
	left := slices.DeleteFunc(b.things(t), func(thing string) bool { return strings.Contains(thing, "csi.snaps.default") })
	if len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestAForeignSnapshotThatIsOpenStays(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	id := b.legacySnapshot(t, b.legacy(t, nil))
	device := b.fake.Open(t, "rbd", "", "csi-snap-"+oldSnapshot)
	err := b.dropSnapshot(t, id)
	if wantClass(t, err, fault.Busy); !strings.Contains(err.Error(), "in use by the client at") {
		t.Errorf("got %v", err)
	}
	device.Close(t)
	b.mustCreate(t, b.copyRequest("r", storage.GiB, id, ""))
}

func TestASnapshotThatAForeignVolumeShowsIsNotDeleted(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	v := b.legacy(t, nil)
	id := b.legacySnapshot(t, v)
	// ceph-csi calls the cluster by one name, the VolumeSnapshotContent by another.
	b.edit(t, `[{"clusterID":"`+cluster+`","monitors":["127.0.0.1:1"],"cephCSI":{"clusterIDs":["xx"]}}]`)
	other := strings.Replace(id, "-"+cluster+"-", "-xx-", 1)
	maps := b.fake.Connect().Omaps(v.pool, v.namespace)
	for name, deleted := range map[string]string{"by the same name": id, "by another name": other} {
		tracker := "rt-backingsnapshot-" + id
		b.fake.SetOmap(t, v.pool, v.namespace, tracker, map[string]string{id: "\x00\x00\x00\x01", "csi-vol-showing": "\x00\x00\x00\x01"})
		err := b.dropSnapshot(t, deleted)
		if wantClass(t, err, fault.Precondition); !strings.Contains(err.Error(), "csi-vol-showing") {
			t.Errorf("%s: got %v", name, err)
		}
		b.failing("Objects.Pairs "+tracker, fault.Unavailable)
		wantClass(t, b.dropSnapshot(t, deleted), fault.Unavailable)
		b.fake.Hook(nil)
	}
	b.mustCreate(t, b.copyRequest("r", storage.GiB, id, "")) // it is as usable as before
	// When the last of the volumes is deleted, the count has the snapshot itself left.
	b.must(t, maps.RemoveKey(t.Context(), "rt-backingsnapshot-"+id, "csi-vol-showing"))
	b.must(t, b.dropSnapshot(t, id))
	if left := b.things(t); slices.ContainsFunc(left, func(thing string) bool { return strings.Contains(thing, "rt-backing") }) {
		t.Errorf("left %v", left)
	}
	if list, err := b.fake.Connect().Subvolumes("cephfs", "csi").Snapshots(t.Context(), oldImage); err != nil || len(list) != 0 {
		t.Errorf("the subvolume has the snapshots %v, %v", list, err)
	}
}

func TestACountThatCannotBeReadKeepsASnapshot(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	v := b.legacy(t, nil)
	id := b.legacySnapshot(t, v)
	b.fake.SetOmap(t, v.pool, v.namespace, "rt-backingsnapshot-"+id, nil)
	wantClass(t, b.dropSnapshot(t, id), fault.Precondition)
}

// librbd says of a clone without its parent, too, that it is not found.
func TestAForeignImageThatCannotBeOpenedIsNotTakenForGone(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.legacy(t, nil)
	for _, known := range []bool{false, true} {
		b.failing("Images.Info "+oldImage, fault.NotFound)
		list, err := b.Adoptable(t.Context())
		b.must(t, err)
		for _, a := range list.Volumes {
			if a.ID == v.id && !known && !strings.Contains(a.Refused, "cannot be opened") {
				t.Errorf("listed %+v", a)
			}
		}
		wantClass(t, b.remove(t, v.id), fault.Precondition)
		b.fake.Hook(nil)
		if found := b.journal(t, v); len(found) != 2 {
			t.Fatalf("the image is there, and the journal has %v", found)
		}
		b.used(t, v.id)
	}
	b.must(t, b.remove(t, v.id))
}

func TestAnOrphanSaysWhatFinishingAForeignDeletionDeletes(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.legacy(t, nil)
		b.failing(map[storage.Driver]string{storage.RBD: "Images.Rename ", storage.CephFS: "Subvolumes.Remove "}[b.driver], fault.Unavailable)
		wantClass(t, b.remove(t, v.id), fault.Unavailable)
		b.fake.Hook(nil)
		found := b.patient(t).orphans(t)
		if len(found) != 1 || !strings.Contains(found[0].Effect, "deletes "+oldImage+", which ceph-csi made, and all data in it") {
			t.Errorf("orphans %+v", found)
		}
		b.must(t, b.remove(t, v.id))
	})
}
