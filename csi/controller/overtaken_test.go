package controller_test

import (
	"fmt"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
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
			t.Run(fmt.Sprintf("%s cut at %d", c.name, cut), func(t *testing.T) {
				t.Parallel()
				for at := 0; c.overtakenAt(t, cut, at); at++ {
				}
			})
		}
	}
}

// overtakenAt is false when the call has fewer operations.
func (c scenario) overtakenAt(t *testing.T, cut, at int) bool {
	t.Helper()
	b := c.cutAt(t, storage.RBD, cut+1)
	name := map[string]string{"create": "v", "restore": "r", "clone": "r"}[c.name]
	answered, n := "", 0
	b.fake.Hook(func(string) error {
		if n++; n <= at {
			return nil
		}
		b.fake.Hook(nil)
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
