package controller_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const (
	oldUUID  = "7957e938-405a-11eb-bfd0-0050563001a1"
	oldImage = "csi-vol-" + oldUUID
	oldName  = "pvc-1"
)

// legacy is a volume as ceph-csi leaves it on the fake. The ids are those of the fake's pool and file system.
type legacy struct {
	id, pool, namespace string
}

// legacy makes a volume of ceph-csi's, with more in its journal.
func (b *bench) legacy(t *testing.T, more map[string]string) legacy {
	t.Helper()
	v := legacy{pool: "rbd"}
	location := int64(4)
	if b.driver == storage.CephFS {
		v.pool, v.namespace, location = "cephfs.meta", "csi", 1
		b.must(t, b.fake.Connect().Subvolumes("cephfs", "csi").Create(t.Context(), oldImage, ceph.SubvolumeSpec{Size: storage.GiB}))
	} else {
		b.must(t, b.fake.Connect().Images("rbd", "").Create(t.Context(), oldImage, ceph.ImageSpec{Size: storage.GiB}))
	}
	v.id = volumeid.Foreign{Cluster: cluster, Location: location, UUID: oldUUID}.String()
	b.fake.SetOmap(t, v.pool, v.namespace, "csi.volumes.default", map[string]string{"csi.volume." + oldName: oldUUID, "csi.volume.other": "0" + oldUUID[1:]})
	b.fake.SetOmap(t, v.pool, v.namespace, "csi.volume."+oldUUID, map[string]string{"csi.volname": oldName, "csi.imagename": oldImage})
	b.fake.SetOmap(t, v.pool, v.namespace, "csi.volume."+oldUUID, more)
	b.asked.ids[oldName] = v.id
	return v
}

// journal is what the fake has of it.
func (b *bench) journal(t *testing.T, v legacy) (found []string) {
	t.Helper()
	maps := b.fake.Connect().Omaps(v.pool, v.namespace)
	if keys, err := maps.Pairs(t.Context(), "csi.volumes.default", ""); err != nil || keys["csi.volume.other"] == "" {
		t.Errorf("the entry of another volume is gone: %v, %v", keys, err)
	} else if keys["csi.volume."+oldName] != "" {
		found = append(found, "the name")
	}
	if _, err := maps.Pairs(t.Context(), "csi.volume."+oldUUID, ""); err == nil {
		found = append(found, "the object")
	}
	return found
}

// things are what is left beside ceph-csi's directory.
func (b *bench) things(t *testing.T) []string {
	return slices.DeleteFunc(b.left(t), func(thing string) bool { return strings.Contains(thing, "csi.volumes.default") })
}

func TestAForeignVolumeIsUsedLikeOneOfOurs(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		v := b.legacy(t, nil)
		list, err := b.Adoptable(ctx)
		b.must(t, err)
		for _, a := range list.Volumes {
			if own := a.ID == v.id; own != (a.Refused == "") || own && (a.Name != oldName || a.Backend != oldImage || a.Adopted) {
				t.Errorf("listed %+v", a)
			}
		}
		if len(list.Volumes) != 2 {
			t.Errorf("listed %+v", list)
		}
		got, err := b.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: v.id})
		b.must(t, err)
		if got.GetVolume().GetVolumeId() != v.id || got.GetVolume().GetCapacityBytes() != int64(storage.GiB) || got.GetStatus().GetVolumeCondition().GetAbnormal() {
			t.Fatalf("got %v", got)
		}
		if left := b.left(t); slices.ContainsFunc(left, func(s string) bool { return strings.Contains(s, "record") }) {
			t.Errorf("reading wrote a record: %v", left)
		}
		b.must(t, b.unpublishFrom(t, v.id, "hf1:n1"))
		b.must(t, b.publishTo(t, v.id, "hf1:n1"))
		if b.driver == storage.RBD { // the others are for many nodes
			wantClass(t, b.publishTo(t, v.id, "hf1:n2"), fault.Precondition)
		}
		wantClass(t, b.remove(t, v.id), fault.Busy)
		volumes, err := b.ListVolumes(ctx, &csi.ListVolumesRequest{})
		b.must(t, err)
		if e := volumes.GetEntries(); len(e) != 1 || e[0].GetVolume().GetVolumeId() != v.id || len(e[0].GetStatus().GetPublishedNodeIds()) != 1 {
			t.Fatalf("listed: %v", volumes)
		}
		confirmed, err := b.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: v.id, Secrets: secrets, VolumeCapabilities: []*csi.VolumeCapability{mount(writer)}, VolumeContext: map[string]string{"imageFormat": "2"},
		})
		if b.must(t, err); confirmed.GetConfirmed() == nil {
			t.Errorf("not confirmed: %v", confirmed)
		}
		grown, err := b.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
			VolumeId: v.id, Secrets: secrets, CapacityRange: &csi.CapacityRange{RequiredBytes: int64(2 * storage.GiB)},
		})
		if b.must(t, err); grown.GetCapacityBytes() != int64(2*storage.GiB) {
			t.Errorf("grown to %v", grown)
		}
		b.must(t, b.unpublishFrom(t, v.id, "hf1:n1"))
		if found := b.journal(t, v); len(found) != 2 {
			t.Errorf("ceph-csi's journal was changed; it has %v", found)
		}
		b.must(t, b.remove(t, v.id))
		b.must(t, b.remove(t, v.id))
		if found, left := b.journal(t, v), b.things(t); len(found)+len(left) != 0 {
			t.Errorf("left %v, and of the journal %v", left, found)
		}
	})
}

func TestADeletionOfAForeignVolumeCutOffAnywhereIsFinished(t *testing.T) {
	for _, driver := range []storage.Driver{storage.RBD, storage.CephFS} {
		act := func(t *testing.T, b *bench) error { return b.remove(t, b.id(oldName)) }
		c := scenario{"delete", func(t *testing.T, b *bench) { b.legacy(t, nil) }, act}
		for n := range c.operations(t, driver) {
			t.Run(fmt.Sprintf("%s/%d", driver, n), func(t *testing.T) {
				t.Parallel()
				b := c.cutAt(t, driver, n)
				b.must(t, act(t, b))
				v := legacy{pool: "rbd"}
				if driver == storage.CephFS {
					v = legacy{pool: "cephfs.meta", namespace: "csi"}
				}
				if found, left := b.journal(t, v), b.things(t); len(found)+len(left) != 0 {
					t.Errorf("left %v, and of the journal %v", left, found)
				}
			})
		}
	}
}

func TestWhatTheJournalDoesNotSayIsNotDeleted(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.legacy(t, nil)
		b.must(t, b.publishTo(t, v.id, "hf1:n1"))
		b.must(t, b.unpublishFrom(t, v.id, "hf1:n1"))
		for name, change := range map[string][2]string{
			"the entry names another image":    {"csi.volume." + oldUUID, "csi.imagename"},
			"the name belongs to another UUID": {"csi.volumes.default", "csi.volume." + oldName},
		} {
			pairs, err := b.fake.Connect().Omaps(v.pool, v.namespace).Pairs(t.Context(), change[0], "")
			b.must(t, err)
			b.fake.SetOmap(t, v.pool, v.namespace, change[0], map[string]string{change[1]: "1" + pairs[change[1]][1:]})
			if err := b.remove(t, v.id); err == nil || !strings.Contains(err.Error(), "says something else") {
				t.Errorf("%s: got %v", name, err)
			}
			b.must(t, b.publishTo(t, v.id, "hf1:n1")) // it is as usable as before
			b.must(t, b.unpublishFrom(t, v.id, "hf1:n1"))
			b.fake.SetOmap(t, v.pool, v.namespace, change[0], map[string]string{change[1]: pairs[change[1]]})
		}
		b.must(t, b.remove(t, v.id))
	})
}

func TestAForeignVolumeThatCannotBeAdoptedSaysWhy(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.legacy(t, map[string]string{"csi.volume.encryptKMS": "vault"})
		err := b.publishTo(t, v.id, "hf1:n1")
		if wantClass(t, err, fault.Precondition); !strings.Contains(err.Error(), "encrypted by ceph-csi") {
			t.Errorf("got %v", err)
		}
		wantClass(t, b.remove(t, v.id), fault.Precondition)
		b.must(t, b.unpublishFrom(t, v.id, "hf1:n1"))
		unknown := strings.Replace(v.id, "-"+cluster+"-", "-"+"xx"+"-", 1)
		err = b.remove(t, unknown)
		if wantClass(t, err, fault.Invalid); !strings.Contains(err.Error(), `"clusterIDs": ["xx"]`) {
			t.Errorf("an unknown cluster: %v", err)
		}
		b.edit(t, `[{"clusterID":"`+cluster+`","monitors":["127.0.0.1:1"],"cephCSI":{"clusterIDs":["xx"]}}]`)
		wantClass(t, b.remove(t, unknown), fault.Precondition)
	})
}

const oldSnapshot = "9957e938-405a-11eb-bfd0-0050563001a1"

// legacySnapshot is a snapshot of v as ceph-csi leaves it: of an image an image of its own.
func (b *bench) legacySnapshot(t *testing.T, v legacy) (id string) {
	t.Helper()
	ctx, name := t.Context(), "csi-snap-"+oldSnapshot
	if b.driver == storage.CephFS {
		b.must(t, b.fake.Connect().Subvolumes("cephfs", "csi").CreateSnapshot(ctx, oldImage, name))
	} else {
		images := b.fake.Connect().Images("rbd", "")
		b.must(t, images.CreateSnapshot(ctx, oldImage, name))
		b.must(t, images.Clone(ctx, name, ceph.ImageSnapshotRef{Pool: "rbd", Image: oldImage, Snapshot: name}, ceph.ImageSpec{}))
		b.must(t, images.RemoveSnapshot(ctx, oldImage, name))
		b.must(t, images.CreateSnapshot(ctx, name, name))
	}
	b.fake.SetOmap(t, v.pool, v.namespace, "csi.snaps.default", map[string]string{"csi.snap.snapshot-1": oldSnapshot})
	b.fake.SetOmap(t, v.pool, v.namespace, "csi.snap."+oldSnapshot, map[string]string{"csi.snapname": "snapshot-1", "csi.imagename": name, "csi.source": oldImage})
	return strings.Replace(v.id, oldUUID, oldSnapshot, 1)
}

func TestASnapshotOfCephCSIIsRestoredAndDeleted(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		v := b.legacy(t, nil)
		id := b.legacySnapshot(t, v)
		list, err := b.ListSnapshots(ctx, &csi.ListSnapshotsRequest{SnapshotId: id})
		b.must(t, err)
		if e := list.GetEntries(); len(e) != 1 || e[0].GetSnapshot().GetSnapshotId() != id || e[0].GetSnapshot().GetSourceVolumeId() != v.id || e[0].GetSnapshot().GetSizeBytes() != int64(storage.GiB) {
			t.Fatalf("listed %v", list)
		}
		b.must(t, b.remove(t, v.id)) // it outlives its volume
		b.mustCreate(t, b.copyRequest("r", storage.GiB, id, ""))
		b.must(t, b.dropSnapshot(t, id))
		b.must(t, b.dropSnapshot(t, id))
		list, err = b.ListSnapshots(ctx, &csi.ListSnapshotsRequest{SnapshotId: id})
		if b.must(t, err); len(list.GetEntries()) != 0 {
			t.Errorf("listed %v", list)
		}
		b.must(t, b.remove(t, b.id("r")))
		left := slices.DeleteFunc(b.things(t), func(thing string) bool { return strings.Contains(thing, "csi.snaps.default") })
		if len(left) != 0 {
			t.Errorf("left %v", left)
		}
		if keys, err := b.fake.Connect().Omaps(v.pool, v.namespace).Pairs(ctx, "csi.snaps.default", ""); err != nil || len(keys) != 0 {
			t.Errorf("the journal has %v, %v", keys, err)
		}
	})
}

func TestADeletionOfASnapshotOfCephCSICutOffAnywhereIsFinished(t *testing.T) {
	for _, driver := range []storage.Driver{storage.RBD, storage.CephFS} {
		act := func(t *testing.T, b *bench) error { return b.dropSnapshot(t, b.asked.snapshots["old"]) }
		prepare := func(t *testing.T, b *bench) {
			v := b.legacy(t, nil)
			b.asked.snapshots["old"] = b.legacySnapshot(t, v)
		}
		c := scenario{"delete snapshot", prepare, act}
		for n := range c.operations(t, driver) {
			t.Run(fmt.Sprintf("%s/%d", driver, n), func(t *testing.T) {
				t.Parallel()
				b := c.cutAt(t, driver, n)
				b.must(t, act(t, b))
				b.must(t, b.remove(t, b.id(oldName)))
				if left := b.things(t); slices.ContainsFunc(left, func(s string) bool { return !strings.Contains(s, "csi.snaps.default") }) {
					t.Errorf("left %v", left)
				}
			})
		}
	}
}

func TestAForeignVolumeHasSnapshotsAndClonesLikeOneOfOurs(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.legacy(t, nil)
		s := b.snapshot(t, "s", &csi.Volume{VolumeId: v.id})
		if s.GetSourceVolumeId() != v.id || s.GetSizeBytes() != int64(storage.GiB) {
			t.Errorf("snapshot %v", s)
		}
		b.mustCreate(t, b.copyRequest("clone", 2*storage.GiB, "", v.id))
		b.must(t, b.remove(t, v.id))
		b.mustCreate(t, b.copyRequest("restored", 2*storage.GiB, s.GetSnapshotId(), ""))
		b.must(t, b.dropSnapshot(t, s.GetSnapshotId()))
		b.must(t, b.remove(t, b.id("clone")))
		b.must(t, b.remove(t, b.id("restored")))
		if found, left := b.journal(t, v), b.things(t); len(found)+len(left) != 0 {
			t.Errorf("left %v, and of the journal %v", left, found)
		}
	})
}

func TestASnapshotOfAForeignBlockVolumeIsRestoredAsOne(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.legacy(t, nil)
	s := b.snapshot(t, "s", &csi.Volume{VolumeId: v.id}) // before anybody said how the volume is used
	asBlock := func(name, snapshot string) *csi.CreateVolumeRequest {
		request := b.copyRequest(name, storage.GiB, snapshot, "")
		request.VolumeCapabilities = []*csi.VolumeCapability{{
			AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: writer},
		}}
		return request
	}
	b.mustCreate(t, asBlock("block", s.GetSnapshotId()))
	b.mustCreate(t, b.copyRequest("files", storage.GiB, s.GetSnapshotId(), ""))
	own := b.snapshot(t, "own", b.make(t, "v"))
	wantClass(t, b.create(t, asBlock("other", own.GetSnapshotId())), fault.Invalid)
}

func TestOneForeignVolumeThatCannotBeLookedAtHidesNoOther(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.legacy(t, nil)
		b.failing("Objects.Pairs csi.volume.0"+oldUUID[1:], fault.Unavailable)
		list, err := b.Adoptable(t.Context())
		b.must(t, err)
		if len(list.Volumes) != 2 {
			t.Fatalf("listed %+v", list)
		}
		for _, a := range list.Volumes {
			if own := a.ID == v.id; own != (a.Refused == "") || own != (a.Name == oldName) || !own && !strings.Contains(a.Refused, "unavailable") {
				t.Errorf("listed %+v", a)
			}
		}
	})
}

func TestAnImageThatCephCSIWillEncryptIsNotAdopted(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.legacy(t, nil)
	images := b.fake.Connect().Images("rbd", "")
	b.must(t, images.SetMetadata(t.Context(), oldImage, map[string]string{".rbd.csi.ceph.com/encrypted": "requiresEncryption"}))
	err := b.publishTo(t, v.id, "hf1:n1")
	if wantClass(t, err, fault.Precondition); !strings.Contains(err.Error(), "encrypted by ceph-csi (.rbd.csi.ceph.com/encrypted is requiresEncryption)") {
		t.Errorf("got %v", err)
	}
}

func TestAMirroredImageIsNeitherAdoptedNorDeleted(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.legacy(t, nil)
	info, err := b.fake.Connect().Images("rbd", "").Info(t.Context(), oldImage)
	b.must(t, err)
	b.fake.SetOmap(t, "rbd", "", "rbd_mirroring", map[string]string{"image_" + info.ID + "0": "another's", "mirror_mode": "\x01"})
	b.used(t, v.id)
	b.fake.SetOmap(t, "rbd", "", "rbd_mirroring", map[string]string{"image_" + info.ID: "\x02"})
	if err := b.remove(t, v.id); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "is mirrored") {
		t.Errorf("got %v", err)
	}
	b.used(t, v.id) // it is as usable as before
	fresh := newBench(t, storage.RBD, cephtest.NewFake())
	v = fresh.legacy(t, nil)
	fresh.fake.SetOmap(t, "rbd", "", "rbd_mirroring", map[string]string{"image_" + info.ID: "\x02"})
	wantClass(t, fresh.publishTo(t, v.id, "hf1:n1"), fault.Precondition)
}

func TestAForeignImageThatClonesNeedStaysUntilTheyAreGone(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	ctx := t.Context()
	v := b.legacy(t, nil)
	images := b.fake.Connect().Images("rbd", "")
	temp := oldImage + "-temp" // as ceph-csi leaves it when it clones a volume
	b.must(t, images.Create(ctx, temp, ceph.ImageSpec{Size: storage.GiB}))
	// A snapshot of ceph-csi's: an image of its own, cloned from a snapshot that is removed at once.
	b.must(t, images.CreateSnapshot(ctx, oldImage, "csi-snap-1"))
	b.must(t, images.Clone(ctx, "csi-snap-1", ceph.ImageSnapshotRef{Pool: "rbd", Image: oldImage, Snapshot: "csi-snap-1"}, ceph.ImageSpec{}))
	b.must(t, images.RemoveSnapshot(ctx, oldImage, "csi-snap-1"))
	b.must(t, b.remove(t, v.id))
	left := b.things(t)
	if _, err := images.Info(ctx, "csi-snap-1"); err != nil || len(left) != 2 {
		t.Fatalf("left %v; the snapshot: %v", left, err)
	}
	info, err := images.Info(ctx, "csi-snap-1")
	if b.must(t, err); !strings.HasPrefix(info.Parent.Image, "hf-gone-") {
		t.Errorf("its parent is %+v", info.Parent)
	}
	b.must(t, images.Remove(ctx, "csi-snap-1"))
	b.must(t, b.remove(t, b.make(t, "v").GetVolumeId())) // which wakes the janitor
	if left := b.things(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestANodeThatKeepsAForeignVolumeIsFenced(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.legacy(t, nil)
		b.must(t, b.publishTo(t, v.id, "hf1:a"))
		b.note(t, v.id, "hf1:a", "10.0.0.1:0/7")
		b.must(t, b.unpublishFrom(t, v.id, "hf1:a"))
		if got := b.fake.Fenced(); len(got) != 1 {
			t.Fatalf("on the blocklist: %v", got)
		}
		b.forget(t, v.id, "hf1:a")
		b.must(t, b.SweepFences(t.Context()))
		if got := b.fake.Fenced(); len(got) != 0 {
			t.Errorf("on the blocklist: %v", got)
		}
	})
}
