package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestBadRequestsAreRefusedWithWords(t *testing.T) {
	block := &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: writer},
	}
	shared := csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	param := func(name, value string) func(*csi.CreateVolumeRequest) {
		return func(r *csi.CreateVolumeRequest) { r.Parameters[name] = value }
	}
	for _, c := range []struct {
		name   string
		driver storage.Driver
		change func(*csi.CreateVolumeRequest)
		class  error
		words  string
	}{
		{"no name", storage.RBD, func(r *csi.CreateVolumeRequest) { r.Name = "" }, fault.Invalid, "name"},
		{"a name that is too long", storage.RBD, func(r *csi.CreateVolumeRequest) { r.Name = strings.Repeat("가", 50) }, fault.Invalid, "150 bytes"},
		{"a name with a newline", storage.RBD, func(r *csi.CreateVolumeRequest) { r.Name = "a\nb" }, fault.Invalid, "control"},
		{"no capabilities", storage.RBD, func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = nil }, fault.Invalid, "capabilities"},
		{"block and mount", storage.RBD, func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = append(r.VolumeCapabilities, block) }, fault.Invalid, "both"},
		{"block on cephfs", storage.CephFS, func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = []*csi.VolumeCapability{block} }, fault.Invalid, "RBD"},
		{"a shared file system on rbd", storage.RBD, func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = []*csi.VolumeCapability{mount(shared)} }, fault.Invalid, "CephFS"},
		{"an unknown parameter", storage.RBD, param("stripeunit", "1"), fault.Invalid, `"stripeunit"`},
		{"a bad feature", storage.RBD, param("imageFeatures", "object-map"), fault.Invalid, "exclusive-lock"},
		{"a bad mounter", storage.RBD, param("mounter", "rbd-nbd"), fault.Invalid, "fuse-loop"},
		{"a stripe unit alone", storage.RBD, param("stripeUnit", "65536"), fault.Invalid, "stripeCount"},
		{"an odd object size", storage.RBD, param("objectSize", "3MiB"), fault.Invalid, "power of two"},
		{"an absent pool", storage.RBD, param("pool", "nope"), fault.Invalid, ".holdfast, cephfs.data"},
		{"no pool", storage.RBD, func(r *csi.CreateVolumeRequest) { delete(r.Parameters, "pool") }, fault.Invalid, `"pool"`},
		{"an absent cluster", storage.RBD, param("clusterID", "nope"), fault.Invalid, "c1"},
		{"an absent file system", storage.CephFS, param("fsName", "nope"), fault.Invalid, "cephfs"},
		{"encryption on cephfs", storage.CephFS, param("encrypted", "true"), fault.Invalid, "fscrypt"},
		{"a wrong data pool", storage.CephFS, param("pool", "rbd"), fault.Invalid, "cephfs.data"},
		{"a limit under the size", storage.RBD, func(r *csi.CreateVolumeRequest) { r.CapacityRange.LimitBytes = 5 }, fault.Range, "limit_bytes"},
		{"a size that rounds over its limit", storage.RBD, func(r *csi.CreateVolumeRequest) {
			r.CapacityRange = &csi.CapacityRange{RequiredBytes: 1<<20 + 1, LimitBytes: 1<<20 + 2}
		}, fault.Range, "round up"},
		{"a negative size", storage.RBD, func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = -1 }, fault.Range, "negative"},
		{"a size at the end of 63 bits", storage.RBD, func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 1<<63 - 1 }, fault.Range, "round up"},
		{"secrets without a key", storage.RBD, func(r *csi.CreateVolumeRequest) { r.Secrets = map[string]string{"userID": "x"} }, fault.Denied, "userKey"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.driver, cephtest.NewFake())
			request := b.request("v", storage.GiB)
			c.change(request)
			_, err := b.CreateVolume(t.Context(), request)
			wantClass(t, err, c.class)
			if !strings.Contains(err.Error(), c.words) {
				t.Errorf("error %q lacks %q", err, c.words)
			}
			if left := b.left(t); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

func TestSizesRoundUp(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	for required, want := range map[storage.Bytes]storage.Bytes{0: storage.GiB, 1: storage.MiB, storage.MiB: storage.MiB, storage.MiB + 1: 2 * storage.MiB} {
		response, err := b.CreateVolume(t.Context(), b.request(fmt.Sprint(int64(required)), required))
		if err != nil || response.GetVolume().GetCapacityBytes() != int64(want) {
			t.Errorf("%d: got %v, %v, want %d", required, response.GetVolume().GetCapacityBytes(), err, want)
		}
	}
}

func TestListingPagesOverAllVolumesOnce(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		var made, seen []string
		for i := range 11 {
			made = append(made, b.make(t, fmt.Sprintf("v%d", i)).GetVolumeId())
		}
		request := &csi.ListVolumesRequest{MaxEntries: 4}
		for pages := 1; ; pages++ {
			response, err := b.ListVolumes(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range response.GetEntries() {
				seen = append(seen, e.GetVolume().GetVolumeId())
				if e.GetStatus().GetVolumeCondition().GetAbnormal() {
					t.Errorf("condition %v", e.GetStatus())
				}
			}
			if request.StartingToken = response.GetNextToken(); request.StartingToken == "" {
				if pages != 3 {
					t.Errorf("%d pages, want 3", pages)
				}
				break
			}
		}
		slices.Sort(made)
		slices.Sort(seen)
		if !slices.Equal(made, seen) {
			t.Errorf("made %v, seen %v", made, seen)
		}
		_, err := b.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: "made up"})
		wantClass(t, err, fault.Token)
	})
}

func TestSingleNodeVolumeGoesToOneNodeAtATime(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "v")
		publish := func(node string, mode csi.VolumeCapability_AccessMode_Mode) error {
			_, err := b.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
				VolumeId: v.GetVolumeId(), NodeId: node, VolumeCapability: mount(mode), Secrets: secrets,
			})
			return err
		}
		wantClass(t, publish("somebody", writer), fault.NotFound)
		for range 2 {
			if err := publish("hf1:a", writer); err != nil {
				t.Fatal(err)
			}
		}
		wantClass(t, publish("hf1:a", csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY), fault.Exists)
		err := publish("hf1:b", writer)
		wantClass(t, err, fault.Precondition)
		if !strings.Contains(err.Error(), "hf1:a") {
			t.Errorf("the error does not name the node: %v", err)
		}
		wantClass(t, b.remove(t, v.GetVolumeId()), fault.Busy)
		got, err := b.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})
		if err != nil || !slices.Equal(got.GetStatus().GetPublishedNodeIds(), []string{"hf1:a"}) {
			t.Fatalf("get: %v, %v", got, err)
		}
		for range 2 {
			if _, err := b.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), NodeId: "hf1:a", Secrets: secrets}); err != nil {
				t.Fatal(err)
			}
		}
		if err := publish("hf1:b", writer); err != nil {
			t.Fatal(err)
		}
	})
}

func TestVolumeThatWasRemovedBehindOurBackIsAbnormal(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		v := b.make(t, "v")
		c := b.fake.Connect()
		for _, name := range mustList(t, c.Images("rbd", "").List) {
			_ = c.Images("rbd", "").Remove(t.Context(), name)
		}
		for _, name := range mustList(t, c.Subvolumes("cephfs", "csi").List) {
			_ = c.Subvolumes("cephfs", "csi").Remove(t.Context(), name)
		}
		got, err := b.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})
		if err != nil || !got.GetStatus().GetVolumeCondition().GetAbnormal() {
			t.Fatalf("get: %v, %v", got, err)
		}
	})
}

func TestCapacityIsThePools(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		got, err := b.GetCapacity(t.Context(), &csi.GetCapacityRequest{Parameters: b.request("v", 1).GetParameters()})
		if err != nil || got.GetAvailableCapacity() != int64(100*storage.GiB) {
			t.Fatalf("got %v, %v", got, err)
		}
	})
}

func mustList(t *testing.T, list func(context.Context) ([]string, error)) []string {
	t.Helper()
	names, err := list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return names
}
