package node

import (
	"maps"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func TestANodeTellsItsSegments(t *testing.T) {
	r := newRig(t)
	for _, given := range []map[string]string{nil, {"topology.kubernetes.io/zone": "가"}} {
		r.cfg.Topology = given
		info, err := r.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
		r.must(err)
		want := map[string]string{"topology.csi.holdfast.io/network": "default"}
		maps.Copy(want, given)
		if got := info.GetAccessibleTopology().GetSegments(); !maps.Equal(got, want) {
			t.Errorf("segments %v, want %v", got, want)
		}
	}
}
