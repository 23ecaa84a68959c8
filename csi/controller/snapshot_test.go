package controller_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestSnapshotOutlivesItsVolumeAndCanBeRestoredThen(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "v")
		s := b.snapshot(t, "눈 📸", v)
		if !s.GetReadyToUse() || s.GetSizeBytes() != int64(storage.GiB) || s.GetSourceVolumeId() != v.GetVolumeId() {
			t.Fatalf("snapshot %v", s)
		}
		b.must(t, b.remove(t, v.GetVolumeId()))
		b.Tidy(t.Context())
		restored := b.mustCreate(t, b.copyRequest("r", 2*storage.GiB, s.GetSnapshotId(), ""))
		if restored.GetCapacityBytes() != int64(2*storage.GiB) || restored.GetContentSource().GetSnapshot().GetSnapshotId() != s.GetSnapshotId() {
			t.Fatalf("restored %v", restored)
		}
		b.must(t, b.dropSnapshot(t, s.GetSnapshotId()))
		b.must(t, b.remove(t, restored.GetVolumeId()))
		if left := b.left(t); len(left) != 0 {
			t.Fatalf("left %v", left)
		}
	})
}

func TestVolumeOfTheNameOfADeletedOneDoesNotMeetItsSnapshots(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		old := b.make(t, "v")
		s := b.snapshot(t, "s", old)
		b.must(t, b.remove(t, old.GetVolumeId()))
		fresh := b.make(t, "v")
		list, err := b.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SourceVolumeId: fresh.GetVolumeId()})
		b.must(t, err)
		if len(list.GetEntries()) != 0 {
			t.Fatalf("snapshots of the new volume: %v", list.GetEntries())
		}
		b.must(t, b.remove(t, fresh.GetVolumeId()))
		b.must(t, b.dropSnapshot(t, s.GetSnapshotId()))
		if left := b.left(t); len(left) != 0 {
			t.Fatalf("left %v", left)
		}
	})
}

func TestCloneOfAVolumeNeedsItNoMore(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "v")
		clone := b.mustCreate(t, b.copyRequest("c", storage.GiB, "", v.GetVolumeId()))
		second := b.mustCreate(t, b.copyRequest("d", storage.GiB, "", clone.GetVolumeId()))
		for _, id := range []string{v.GetVolumeId(), clone.GetVolumeId(), second.GetVolumeId()} {
			b.must(t, b.remove(t, id))
			b.Tidy(t.Context())
		}
		if left := b.left(t); len(left) != 0 {
			t.Fatalf("left %v", left)
		}
	})
}

func TestCopiesAreNeverSmallerThanTheirSource(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.mustCreate(t, b.request("v", 2*storage.GiB))
		_, err := b.CreateVolume(t.Context(), b.copyRequest("c", storage.GiB, "", v.GetVolumeId()))
		wantClass(t, err, fault.Range)
		anySize := b.copyRequest("c", 0, "", v.GetVolumeId())
		if c := b.mustCreate(t, anySize); c.GetCapacityBytes() != int64(2*storage.GiB) {
			t.Errorf("a copy without a size asked for has %d bytes", c.GetCapacityBytes())
		}
		again, err := b.CreateVolume(t.Context(), anySize)
		b.must(t, err)
		if again.GetVolume().GetVolumeId() != b.id("c") {
			t.Error("asked again, another volume came")
		}
		_, err = b.CreateVolume(t.Context(), b.request("c", 2*storage.GiB))
		wantClass(t, err, fault.Exists)
	})
}

func TestSnapshotNamesBelongToOneVolume(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		one, two := b.make(t, "one"), b.make(t, "two")
		s := b.snapshot(t, "s", one)
		if again := b.snapshot(t, "s", one); again.GetSnapshotId() != s.GetSnapshotId() {
			t.Error("asked again, another snapshot came")
		}
		_, err := b.CreateSnapshot(t.Context(), b.snapshotRequest("s", two.GetVolumeId()))
		wantClass(t, err, fault.Exists)
		_, err = b.CreateSnapshot(t.Context(), b.snapshotRequest("t", strings.Replace(one.GetVolumeId(), one.GetVolumeId()[len(one.GetVolumeId())-4:], "0000", 1)))
		wantClass(t, err, fault.NotFound)
		b.must(t, b.dropSnapshot(t, s.GetSnapshotId()))
		b.must(t, b.dropSnapshot(t, s.GetSnapshotId()))
		_, err = b.CreateVolume(t.Context(), b.copyRequest("r", storage.GiB, s.GetSnapshotId(), ""))
		wantClass(t, err, fault.NotFound)
	})
}

func TestListingPagesOverAllSnapshotsOnce(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		one, two := b.make(t, "one"), b.make(t, "two")
		var want []string
		for i := range 7 {
			v := one
			if i%2 == 1 {
				v = two
			}
			want = append(want, b.snapshot(t, "s"+string(rune('0'+i)), v).GetSnapshotId())
		}
		var got []string
		for token := ""; ; {
			page, err := b.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: 3, StartingToken: token})
			b.must(t, err)
			for _, e := range page.GetEntries() {
				got = append(got, e.GetSnapshot().GetSnapshotId())
			}
			if token = page.GetNextToken(); token == "" {
				break
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("listed %v, want %v", got, want)
		}
		ofOne, err := b.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SourceVolumeId: one.GetVolumeId()})
		b.must(t, err)
		if len(ofOne.GetEntries()) != 4 {
			t.Errorf("volume one has %d snapshots, want 4", len(ofOne.GetEntries()))
		}
		single, err := b.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SnapshotId: want[0]})
		b.must(t, err)
		if len(single.GetEntries()) != 1 {
			t.Errorf("asked for one snapshot, %d came", len(single.GetEntries()))
		}
		gone, err := b.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SnapshotId: "no such snapshot"})
		if err != nil || len(gone.GetEntries()) != 0 {
			t.Errorf("an unknown id: %v, %v", gone, err)
		}
	})
}

func TestTrashOfOthersIsLeftAlone(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.make(t, "v")
	images := b.fake.Connect().Images("rbd", "")
	names := mustList(t, images.List)
	b.must(t, images.Create(t.Context(), "somebody's", ceph.ImageSpec{Size: storage.MiB}))
	b.must(t, images.Trash(t.Context(), "somebody's"))
	b.must(t, images.Trash(t.Context(), names[0])) // by hand, of a volume that lives
	other := b.make(t, "other")
	b.must(t, b.remove(t, other.GetVolumeId()))
	b.another(t).Tidy(t.Context())
	if left := b.left(t); len(left) != 3 {
		t.Fatalf("want the record of %s and two images in the trash, there is %v", v.GetVolumeId(), left)
	}
}

func TestDeepChainsOfClonesAreFlattenedInTheBackground(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	source := b.make(t, "0")
	for i := 1; i <= 6; i++ {
		source = b.mustCreate(t, b.copyRequest(string(rune('0'+i)), storage.GiB, "", source.GetVolumeId()))
	}
	b.Tidy(t.Context())
	images := b.fake.Connect().Images("rbd", "")
	withParent := 0
	for _, name := range mustList(t, images.List) {
		info, err := images.Info(t.Context(), name)
		b.must(t, err)
		if info.Parent.Image != "" {
			withParent++
		}
	}
	if withParent != 3 { // the first three; from the fourth on they are flattened
		t.Fatalf("%d images have a parent, want 3", withParent)
	}
}

func TestSnapshotShownWithoutACopyIsKeptWhileItIs(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	s := b.snapshot(t, "s", b.make(t, "v"))
	request := b.copyRequest("r", storage.GiB, s.GetSnapshotId(), "")
	request.Parameters["backingSnapshot"] = "true"
	_, err := b.CreateVolume(t.Context(), request)
	wantClass(t, err, fault.Invalid) // not read only
	request.VolumeCapabilities = []*csi.VolumeCapability{mount(csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY)}
	shown := b.mustCreate(t, request)
	if path := shown.GetVolumeContext()["subvolumePath"]; !strings.Contains(path, "/.snap/") || shown.GetVolumeContext()["readOnly"] != "true" {
		t.Errorf("context %v", shown.GetVolumeContext())
	}
	_, err = b.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: shown.GetVolumeId(), NodeId: "hf1:a", VolumeCapability: mount(writer), Secrets: secrets,
	})
	wantClass(t, err, fault.Invalid)
	wantClass(t, b.dropSnapshot(t, s.GetSnapshotId()), fault.Precondition)
	b.must(t, b.remove(t, b.id("v"))) // the snapshot stays, and what shows it
	b.must(t, b.remove(t, shown.GetVolumeId()))
	b.must(t, b.dropSnapshot(t, s.GetSnapshotId()))
	if left := b.left(t); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}
