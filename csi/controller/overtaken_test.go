package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// A creation is cut off somewhere. A controller that repeats it stands still for longer than its
// lease, before each of its operations, while another one brings the volume to its caller: what the
// first does afterwards leaves that volume as it is.
func TestAnOvertakenControllerHarmsNoVolumeThatAnotherFinished(t *testing.T) {
	for _, c := range scenarios() {
		if c.name != "create" && c.name != "restore" && c.name != "clone" {
			continue
		}
		for cut := range c.operations(t, storage.RBD) {
			for _, mayFence := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s cut at %d, may fence %v", c.name, cut, mayFence), func(t *testing.T) {
					t.Parallel()
					for at := 0; c.overtakenAt(t, cut, at, mayFence); at++ {
					}
				})
			}
		}
	}
}

// overtakenAt is false when the call has fewer operations.
func (c scenario) overtakenAt(t *testing.T, cut, at int, mayFence bool) bool {
	t.Helper()
	b := c.cutAt(t, storage.RBD, cut+1)
	name := map[string]string{"create": "v", "restore": "r", "clone": "r"}[c.name]
	answered, n := "", 0
	b.fake.Hook(func(string) error {
		if n++; n <= at {
			return nil
		}
		b.fake.Hook(func(op string) error {
			if strings.HasPrefix(op, "Fence ") && !mayFence {
				return fault.New(fault.Denied, "no right to fence")
			}
			return nil
		})
		b.expireLeases()
		response, err := b.another(t).CreateVolume(t.Context(), b.asked.volumes[name])
		b.must(t, err)
		answered = response.GetVolume().GetVolumeId()
		return nil
	})
	_ = c.act(t, b)
	b.fake.Hook(nil)
	b.Tidy(t.Context())
	if answered == "" {
		return false
	}
	h, err := volumeid.Parse(answered)
	b.must(t, err)
	info, err := b.fake.Connect().Images("rbd", "").Info(t.Context(), volumeid.BackendName(h.Incarnation))
	if err != nil {
		t.Fatalf("overtaken at operation %d: the volume that another answered with: %v", at, err)
	}
	if c.name != "create" && info.Parent.Image == "" {
		t.Fatalf("overtaken at operation %d: the copy has lost its source's data: %+v", at, info)
	}
	b.clear(t)
	return true
}

// A controller stands still in the middle of a creation for longer than its lease, while another one finishes
// the volume and deletes it. What the first one sends then does not arrive.
func TestAControllerThatLostItsLeaseIsCutOff(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	request := b.request("v", storage.GiB)
	b.fake.Hook(func(op string) error {
		if !strings.HasPrefix(op, "Images.Create ") {
			return nil
		}
		b.fake.Hook(nil)
		b.fake.Advance(time.Minute)
		other := b.another(t)
		response, err := other.CreateVolume(t.Context(), request)
		b.must(t, err)
		b.must(t, other.remove(t, response.GetVolume().GetVolumeId()))
		other.Tidy(t.Context())
		return nil
	})
	_, err := b.CreateVolume(t.Context(), request)
	wantClass(t, err, fault.Unavailable)
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	// It comes back as a new client.
	b.mustCreate(t, request)
	b.must(t, b.remove(t, b.id("v")))
}
