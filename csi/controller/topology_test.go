package controller_test

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/topology"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const zoneKey = "topology.kubernetes.io/zone"

func zone(name string) *csi.Topology {
	return &csi.Topology{Segments: map[string]string{zoneKey: name, "topology.csi.holdfast.io/network": "default"}}
}

// zoned asks for a volume of a class with a pool in each of the zones a and b.
func (b *bench) zoned(name string, preferred, requisite []*csi.Topology) *csi.CreateVolumeRequest {
	r := b.request(name, storage.GiB)
	delete(r.Parameters, "pool")
	pools := [2]string{"rbd", "cephfs.meta"}
	if b.driver == storage.CephFS {
		pools = [2]string{"cephfs.data", "cephfs.data"} // the fake's file system has one
	}
	r.Parameters[topology.Parameter] = `[{"poolName":"` + pools[0] + `","domainSegments":[{"domainLabel":"zone","value":"a"}]},
		{"poolName":"` + pools[1] + `","domainSegments":[{"domainLabel":"zone","value":"b"}]}]`
	r.AccessibilityRequirements = &csi.TopologyRequirement{Preferred: preferred, Requisite: requisite}
	return r
}

func TestAVolumeIsMadeWhereItIsUsed(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		request := b.zoned("v", []*csi.Topology{zone("b"), zone("a")}, []*csi.Topology{zone("a"), zone("b")})
		for range 2 {
			made, err := b.CreateVolume(t.Context(), request)
			must(t, err)
			v := made.GetVolume()
			if list := v.GetAccessibleTopology(); len(list) != 1 || len(list[0].GetSegments()) != 1 || list[0].GetSegments()[zoneKey] != "b" {
				t.Errorf("accessible from %v", list)
			}
			if b.driver == storage.RBD && v.GetVolumeContext()["pool"] != "cephfs.meta" {
				t.Errorf("made in pool %s", v.GetVolumeContext()["pool"])
			}
			request.AccessibilityRequirements.Preferred = []*csi.Topology{zone("a")} // it stays where it is
		}
		_, err := b.CreateVolume(t.Context(), b.zoned("v", nil, []*csi.Topology{zone("a")}))
		wantClass(t, err, fault.Exists)
		_, err = b.CreateVolume(t.Context(), b.zoned("w", nil, []*csi.Topology{zone("c")}))
		wantClass(t, err, fault.Exhausted)
		if !strings.Contains(err.Error(), "zone=c") {
			t.Errorf("the error does not say where: %v", err)
		}
	})
}

func TestAFullPlaceIsPassedOver(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	b.fake.SetFull(true)
	_, err := b.CreateVolume(t.Context(), b.zoned("v", nil, []*csi.Topology{zone("a"), zone("b")}))
	wantClass(t, err, fault.Exhausted)
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestCapacityIsThatOfTheSegment(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		parameters := b.zoned("v", nil, nil).GetParameters()
		for at, want := range map[*csi.Topology]bool{zone("a"): true, zone("b"): true, zone("c"): false, nil: true} {
			got, err := b.GetCapacity(t.Context(), &csi.GetCapacityRequest{Parameters: parameters, AccessibleTopology: at})
			must(t, err)
			if (got.GetAvailableCapacity() > 0) != want {
				t.Errorf("in %v: %d bytes", at.GetSegments(), got.GetAvailableCapacity())
			}
		}
	})
}

func TestAVolumeWithoutPlacesIsUsedEverywhere(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		request := b.request("v", storage.GiB)
		request.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{zone("a")}}
		made, err := b.CreateVolume(t.Context(), request)
		must(t, err)
		if list := made.GetVolume().GetAccessibleTopology(); len(list) != 0 {
			t.Errorf("accessible from %v", list)
		}
	})
}

func TestABadListOfPoolsIsRefused(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		request := b.zoned("v", nil, nil)
		request.Parameters[topology.Parameter] = `[{"poolName":"rbd"}]`
		_, err := b.CreateVolume(t.Context(), request)
		wantClass(t, err, fault.Invalid)
	})
}
