package controller_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/csi/luks"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// encrypted makes a request one for an encrypted volume.
func encrypted(r *csi.CreateVolumeRequest) *csi.CreateVolumeRequest {
	r.Parameters["encrypted"] = "true"
	r.Secrets = maps.Clone(r.GetSecrets())
	r.Secrets[kms.Passphrase] = "correct horse"
	return r
}

func TestTheHeaderOfAnEncryptedVolumeIsAddedToItsImage(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	plain := b.request("v", storage.GiB)
	plain.Parameters["encrypted"] = "true"
	_, err := b.CreateVolume(t.Context(), plain)
	wantClass(t, err, fault.Denied)
	if !strings.Contains(err.Error(), kms.Passphrase) {
		t.Errorf("the error does not name the secret: %v", err)
	}
	v := b.mustCreate(t, encrypted(b.request("v", storage.GiB)))
	if v.GetCapacityBytes() != int64(storage.GiB) || v.GetVolumeContext()["encrypted"] != "true" {
		t.Fatalf("volume %v", v)
	}
	s := b.snapshot(t, "s", v)
	copied := b.mustCreate(t, encrypted(b.copyRequest("c", 2*storage.GiB, s.GetSnapshotId(), "")))
	if _, err := b.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
		VolumeId: v.GetVolumeId(), CapacityRange: &csi.CapacityRange{RequiredBytes: int64(3 * storage.GiB)}, Secrets: secrets,
	}); err != nil {
		t.Fatal(err)
	}
	images := b.fake.Connect().Images("rbd", "")
	for id, want := range map[string]storage.Bytes{v.GetVolumeId(): 3 * storage.GiB, copied.GetVolumeId(): 2 * storage.GiB} {
		name := "hf-" + id[strings.LastIndex(id, ".")+1:]
		info, err := images.Info(t.Context(), name)
		b.must(t, err)
		meta, err := images.Metadata(t.Context(), name)
		b.must(t, err)
		if info.Size != want+luks.HeaderSize || meta[kms.ImageMetadata] == "" {
			t.Errorf("image %s has %d bytes and metadata %v, want %d and a wrapped key", name, info.Size, meta, want+luks.HeaderSize)
		}
	}
	_, err = b.CreateVolume(t.Context(), b.copyRequest("d", 2*storage.GiB, s.GetSnapshotId(), ""))
	wantClass(t, err, fault.Invalid) // not encrypted, while its source is
}

func TestACopyThatIsAskedForAgainAfterItsSourceGrewHoldsTheSourceAsItIs(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.mustCreate(t, encrypted(b.request("v", storage.GiB)))
	copied := encrypted(b.copyRequest("c", 5*storage.GiB, "", v.GetVolumeId()))
	b.fake.Hook(func(op string) error {
		if strings.HasPrefix(op, "Images.CreateSnapshot") {
			return fault.New(fault.Unavailable, "injected")
		}
		return nil
	})
	wantClass(t, b.create(t, copied), fault.Unavailable)
	b.fake.Hook(nil)
	_, err := b.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
		VolumeId: v.GetVolumeId(), CapacityRange: &csi.CapacityRange{RequiredBytes: int64(3 * storage.GiB)}, Secrets: secrets,
	})
	b.must(t, err)
	c := b.mustCreate(t, copied)
	images := b.fake.Connect().Images("rbd", "")
	b.must(t, images.CreateSnapshot(t.Context(), c.GetVolumeContext()["image"], "now"))
	var written []ceph.Extent
	b.must(t, images.Diff(t.Context(), c.GetVolumeContext()["image"], "", "now", uint64(storage.GiB), 0, func(e ceph.Extent) error {
		written = append(written, e)
		return nil
	}))
	want := []ceph.Extent{{Offset: uint64(3*storage.GiB + luks.HeaderSize), Length: uint64(luks.HeaderSize)}}
	if diff := cmp.Diff(want, written); diff != "" {
		t.Errorf("written behind the first GiB (-want +got): %s", diff)
	}
}
