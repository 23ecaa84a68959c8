package controller_test

import (
	"fmt"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// A crash in the middle of the renaming that makes a tombstone leaves the image with both names.
func TestADeletionCutOffInMidRenameIsFinished(t *testing.T) {
	for _, snapshotFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("the snapshot goes first %v", snapshotFirst), func(t *testing.T) {
			b := newBench(t, storage.RBD, cephtest.NewFake())
			v := b.make(t, "v")
			b.snapshot(t, "s", v)
			h, err := volumeid.Parse(v.GetVolumeId())
			b.must(t, err)
			b.fake.HalfRename(t, "rbd", volumeid.BackendName(h.Incarnation), volumeid.TombstoneName(h.Incarnation))
			if snapshotFirst {
				b.must(t, b.dropSnapshot(t, b.snapshotID("s")))
			}
			b.must(t, b.remove(t, v.GetVolumeId()))
			if !snapshotFirst {
				b.must(t, b.dropSnapshot(t, b.snapshotID("s")))
			}
			if left := b.left(t); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
