package controller_test

import (
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The manager is asked late, by a controller that stood still while another one finished the volume, expanded it,
// and had it used: Ceph would set quota, mode and owner anew.
func TestALateCreationChangesNothingOfAVolumeThatAnotherFinished(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	request := b.request("v", storage.GiB)
	b.standStill(t, "Subvolumes.Create ", func(other *bench) string {
		other.mustCreate(t, request)
		other.grow(t, other.id("v"), 2*storage.GiB)
		return other.id("v")
	}, func() { _, _ = b.CreateVolume(t.Context(), request) })
	b.asked.volumes["v"] = request
	b.clear(t)
}

func TestALateExpansionDoesNotTakeBackALargerOne(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	id := b.make(t, "v").GetVolumeId()
	b.standStill(t, "Subvolumes.SetQuota ", func(other *bench) string {
		other.grow(t, id, 4*storage.GiB)
		return id
	}, func() {
		_, _ = b.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
			VolumeId: id, Secrets: secrets, CapacityRange: &csi.CapacityRange{RequiredBytes: int64(2 * storage.GiB)},
		})
	})
}

// The volume was there before: whatever its record looks like afterwards, it is nothing that a call left behind.
func TestAFailedExpansionTakesNoVolumeBack(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	id := b.make(t, "v").GetVolumeId()
	b.fake.Hook(func(op string) error {
		if strings.HasPrefix(op, "Subvolumes.") {
			return fault.New(fault.Unavailable, "no manager")
		}
		return nil
	})
	_, err := b.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
		VolumeId: id, Secrets: secrets, CapacityRange: &csi.CapacityRange{RequiredBytes: int64(2 * storage.GiB)},
	})
	if err == nil {
		t.Fatal("the expansion worked")
	}
	b.Tidy(t.Context()) // a look that fails: the next one goes by the cluster map as it is then
	write(t, b.config, `[{"clusterID":"`+cluster+`","monitors":["127.0.0.1:1"],"radosNamespace":"elsewhere"}]`)
	b.fake.Hook(nil)
	for range 10 {
		time.Sleep(5 * time.Millisecond)
		b.Tidy(t.Context())
	}
	h, err := volumeid.Parse(id)
	b.must(t, err)
	_, err = b.fake.Connect().Subvolumes("cephfs", "csi").Info(t.Context(), volumeid.BackendName(h.Incarnation))
	b.must(t, err)
}

func (b *bench) grow(t *testing.T, id string, to storage.Bytes) {
	t.Helper()
	_, err := b.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
		VolumeId: id, Secrets: secrets, CapacityRange: &csi.CapacityRange{RequiredBytes: int64(to)},
	})
	b.must(t, err)
}

// standStill makes call stand still before the operation for longer than its lease, while another controller does
// its work on the volume whose id it returns, and a pod changes the mode of its root. What call does then must change
// neither that nor the quota.
func (b *bench) standStill(t *testing.T, before string, work func(*bench) string, call func()) {
	t.Helper()
	var id string
	var as ceph.SubvolumeInfo
	subvolumes := b.fake.Connect().Subvolumes("cephfs", "csi")
	look := func() (ceph.SubvolumeInfo, uint32) {
		h, err := volumeid.Parse(id)
		b.must(t, err)
		info, err := subvolumes.Info(t.Context(), volumeid.BackendName(h.Incarnation))
		b.must(t, err)
		return info, b.fake.Mode("cephfs", "csi", volumeid.BackendName(h.Incarnation))
	}
	b.fake.Hook(func(op string) error {
		if !strings.HasPrefix(op, before) {
			return nil
		}
		b.fake.Hook(nil)
		b.fake.Advance(time.Minute)
		id = work(b.another(t))
		h, err := volumeid.Parse(id)
		b.must(t, err)
		b.fake.SetMode("cephfs", "csi", volumeid.BackendName(h.Incarnation), 0o2770)
		as, _ = look()
		return nil
	})
	call()
	b.fake.Hook(nil)
	if id == "" {
		t.Fatal("the call did not come so far")
	}
	if info, mode := look(); info.Quota != as.Quota || mode != 0o2770 {
		t.Errorf("quota %s and mode %o, want %s and %o", info.Quota, mode, as.Quota, 0o2770)
	}
	b.Tidy(t.Context())
	if info, mode := look(); info.Quota != as.Quota || mode != 0o2770 {
		t.Errorf("afterwards: quota %s and mode %o, want %s and %o", info.Quota, mode, as.Quota, 0o2770)
	}
	list, err := subvolumes.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("subvolumes %v, %v: want the one", list, err)
	}
}
