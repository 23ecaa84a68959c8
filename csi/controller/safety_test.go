package controller_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// What must never happen: a volume forgotten while its data stays, or one deleted by the
// handle of another.

func TestVolumeOfARenamedPoolIsStillFoundAndDeleted(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.make(t, "v")
	b.fake.RenamePool("rbd", "renamed")
	got, err := b.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})
	if err != nil || got.GetStatus().GetVolumeCondition().GetAbnormal() {
		t.Fatalf("get: %v, %v", got, err)
	}
	if err := b.remove(t, v.GetVolumeId()); err != nil {
		t.Fatal(err)
	}
	b.fake.RenamePool("renamed", "rbd")
	if left := b.left(t); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}

func TestVolumeStaysInTheGroupItWasMadeIn(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	v := b.make(t, "v")
	b.edit(t, `[{"clusterID":"`+cluster+`","monitors":["127.0.0.1:1"],"cephFS":{"subvolumeGroup":"other"}}]`)
	if err := b.remove(t, v.GetVolumeId()); err != nil {
		t.Fatal(err)
	}
	if left := b.left(t); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}

func TestMissingRecordPoolIsNoProofThatAVolumeIsGone(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "v")
		b.fake.RenamePool(record.Pool, "elsewhere")
		wantClass(t, b.remove(t, v.GetVolumeId()), fault.Precondition)
	})
}

func TestTwoEntriesOfOneClusterDoNotSeeEachOthersVolumes(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "v")
		b.edit(t, `[{"clusterID":"`+cluster+`","monitors":["127.0.0.1:1"]},{"clusterID":"c2","monitors":["127.0.0.1:1"],"cephFS":{"subvolumeGroup":"b"}}]`)
		list, err := b.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		if err != nil || len(list.GetEntries()) != 1 {
			t.Fatalf("listed %v, %v", list.GetEntries(), err)
		}
		if err := b.remove(t, strings.Replace(v.GetVolumeId(), "."+cluster+".", ".c2.", 1)); err != nil {
			t.Fatal(err)
		}
		if left := b.left(t); len(left) != 2 {
			t.Fatalf("want the volume and its record, there is %v", left)
		}
	})
}

func TestUndoThatFailsIsNotAFinalAnswer(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		b.fake.Hook(func(op string) error {
			switch {
			case strings.HasPrefix(op, "Images.Create"), strings.HasPrefix(op, "Subvolumes.Create"):
				return fault.New(fault.Invalid, "injected")
			case strings.HasPrefix(op, "Images.Snapshots"), strings.HasPrefix(op, "Subvolumes.Remove"):
				return fault.New(fault.Unavailable, "injected")
			}
			return nil
		})
		_, err := b.CreateVolume(t.Context(), b.request("v", storage.GiB))
		wantClass(t, err, fault.Unavailable)
		if code := fault.Code(err); code.String() != "Unavailable" {
			t.Fatalf("code %v: a provisioner would forget the volume", code)
		}
	})
}

func TestListingTellsWhatItCouldNotLookAt(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		b.make(t, "v")
		b.fake.Hook(func(op string) error {
			if strings.HasPrefix(op, "Images.List") || strings.HasPrefix(op, "Subvolumes.List") {
				return fault.New(fault.Unavailable, "injected")
			}
			return nil
		})
		list, err := b.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		if err != nil || len(list.GetEntries()) != 1 {
			t.Fatalf("listed %v, %v", list, err)
		}
		condition := list.GetEntries()[0].GetStatus().GetVolumeCondition()
		if !condition.GetAbnormal() || !strings.Contains(condition.GetMessage(), "unknown") {
			t.Fatalf("condition %v", condition)
		}
	})
}

func TestValidationComparesWhatItIsTold(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "v")
		ask := func(change func(*csi.ValidateVolumeCapabilitiesRequest)) bool {
			request := &csi.ValidateVolumeCapabilitiesRequest{
				VolumeId: v.GetVolumeId(), Secrets: secrets, VolumeContext: v.GetVolumeContext(),
				Parameters: b.request("v", 1).GetParameters(), VolumeCapabilities: []*csi.VolumeCapability{mount(writer)},
			}
			change(request)
			response, err := b.ValidateVolumeCapabilities(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			if response.GetConfirmed() == nil && response.GetMessage() == "" {
				t.Error("refused without a word")
			}
			return response.GetConfirmed() != nil
		}
		if !ask(func(*csi.ValidateVolumeCapabilitiesRequest) {}) {
			t.Error("the volume's own description was refused")
		}
		if ask(func(r *csi.ValidateVolumeCapabilitiesRequest) { r.Parameters = map[string]string{"clusterID": "x"} }) {
			t.Error("other parameters were confirmed")
		}
		if ask(func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeContext = map[string]string{"name": "x"} }) {
			t.Error("another context was confirmed")
		}
	})
}

func TestExpandWithoutASizeChangesNothing(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		response, err := b.CreateVolume(t.Context(), b.request("v", 100*storage.MiB))
		if err != nil {
			t.Fatal(err)
		}
		id := response.GetVolume().GetVolumeId()
		_, err = b.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{VolumeId: id, Secrets: secrets, CapacityRange: &csi.CapacityRange{}})
		wantClass(t, err, fault.Invalid)
		grown, err := b.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
			VolumeId: id, Secrets: secrets, CapacityRange: &csi.CapacityRange{LimitBytes: int64(2 * storage.GiB)},
		})
		if err != nil || grown.GetCapacityBytes() != int64(100*storage.MiB) {
			t.Fatalf("got %v, %v", grown, err)
		}
	})
}

func TestPublishOfTheOtherKindOfAccessIsRefused(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	request := b.request("v", storage.GiB)
	request.VolumeCapabilities[0].AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	response, err := b.CreateVolume(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: response.GetVolume().GetVolumeId(), NodeId: "hf1:a", VolumeCapability: mount(writer), Secrets: secrets,
	})
	wantClass(t, err, fault.Invalid)
}

func TestFileSystemAskedForAtCreationIsTheNodesToMake(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	request := b.request("v", storage.GiB)
	request.VolumeCapabilities[0].GetMount().FsType = "ext4"
	response, err := b.CreateVolume(t.Context(), request)
	if err != nil || response.GetVolume().GetVolumeContext()["fsType"] != "ext4" {
		t.Fatalf("got %v, %v", response, err)
	}
	request.VolumeCapabilities[0].GetMount().FsType = "xfs"
	_, err = b.CreateVolume(t.Context(), request)
	wantClass(t, err, fault.Exists)
}

func TestOneAnswerHoldsABoundedPage(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	store := record.NewStore(b.fake.Connect().Objects(record.Pool, "cephfs"), "test")
	for i := range 1100 {
		key := strings.Repeat("0", 28) + string([]byte{hexDigit(i >> 12), hexDigit(i >> 8), hexDigit(i >> 4), hexDigit(i)})
		_, held, _, err := store.Acquire(t.Context(), key, &record.Record{
			Version: 1, Kind: record.KindVolume, Driver: storage.CephFS, State: record.Ready, Name: key,
			Context: map[string]string{"clusterID": cluster, "fsName": "cephfs"}, Group: "csi",
		})
		if err != nil {
			t.Fatal(err)
		}
		held.Release(t.Context())
	}
	first, err := b.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil || len(first.GetEntries()) != 1000 || first.GetNextToken() == "" {
		t.Fatalf("first page of %d, token %q, %v", len(first.GetEntries()), first.GetNextToken(), err)
	}
	second, err := b.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: first.GetNextToken()})
	if err != nil || len(second.GetEntries()) != 100 || second.GetNextToken() != "" {
		t.Fatalf("second page of %d, %v", len(second.GetEntries()), err)
	}
	if slices.ContainsFunc(first.GetEntries(), func(e *csi.ListVolumesResponse_Entry) bool { return !e.GetStatus().GetVolumeCondition().GetAbnormal() }) {
		t.Error("a volume without a subvolume is called well")
	}
}

func hexDigit(n int) byte { return "0123456789abcdef"[n&15] }
