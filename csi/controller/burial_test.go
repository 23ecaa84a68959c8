package controller_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
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

// Whether the renaming was begun cannot be told: then the trash must not take the image under one of its two names.
func TestADeletionWaitsUntilItCanTellWhetherTheRenamingWasBegun(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.make(t, "v")
	h, err := volumeid.Parse(v.GetVolumeId())
	b.must(t, err)
	tombstone := volumeid.TombstoneName(h.Incarnation)
	b.fake.HalfRename(t, "rbd", volumeid.BackendName(h.Incarnation), tombstone)
	b.failing("Images.Info "+tombstone, fault.Unavailable)
	wantClass(t, b.remove(t, v.GetVolumeId()), fault.Unavailable)
	b.fake.Hook(nil)
	trash, err := b.fake.Connect().Images("rbd", "").Trashed(t.Context())
	if b.must(t, err); len(trash) != 0 {
		t.Errorf("in the trash: %v", trash)
	}
	b.must(t, b.remove(t, v.GetVolumeId()))
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A client that has the tombstone open for a moment, as librbd has a parent, does not keep it for good.
func TestATombstoneThatIsOpenIsLookedAtAgain(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v := b.make(t, "v")
	b.snapshot(t, "s", v)
	h, err := volumeid.Parse(v.GetVolumeId())
	b.must(t, err)
	b.must(t, b.remove(t, v.GetVolumeId()))
	b.Tidy(t.Context())
	device := b.fake.Open(t, "rbd", "", volumeid.TombstoneName(h.Incarnation))
	b.must(t, b.dropSnapshot(t, b.snapshotID("s")))
	b.Tidy(t.Context())
	device.Close(t)
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A volume is deleted while it is cloned: the deletion has seen that there is no snapshot when the clone's is taken,
// and the image goes to the trash with it, unless one of the two waits for the other.
func TestAVolumeDeletedWhileItIsClonedDoesNotLoseTheClonesSnapshot(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	source := b.make(t, "v").GetVolumeId()
	request := b.copyRequest("r", storage.GiB, "", source)
	other := b.another(t)
	atTrash, cloning, deleted := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var begin, taken, seen sync.Once
	b.fake.Hook(func(op string) error {
		switch {
		case strings.HasPrefix(op, "Images.CreateSnapshot "):
			begin.Do(func() {
				go func() { deleted <- other.remove(t, source) }()
				select {
				case <-atTrash:
				case <-time.After(500 * time.Millisecond): // it waits for the clone
				}
			})
		case strings.HasPrefix(op, "Images.Clone "):
			taken.Do(func() { close(cloning) })
		case strings.HasPrefix(op, "Images.Trash "):
			seen.Do(func() { close(atTrash) })
			<-cloning
		}
		return nil
	})
	err := b.create(t, request)
	b.must(t, <-deleted)
	b.fake.Hook(nil)
	b.must(t, err)
	h, err := volumeid.Parse(source)
	b.must(t, err)
	if _, err := b.fake.Connect().Images("rbd", "").Info(t.Context(), volumeid.TombstoneName(h.Incarnation)); err != nil {
		t.Errorf("the source of a clone: %v; want a tombstone", err)
	}
	response, err := b.CreateVolume(t.Context(), request)
	b.must(t, err)
	b.must(t, b.remove(t, response.GetVolume().GetVolumeId()))
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// An image came into the trash with a snapshot: of a controller that may not fence, and was late.
func TestAnImageInTheTrashThatHasASnapshotBecomesATombstone(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	source := b.make(t, "v").GetVolumeId()
	h, err := volumeid.Parse(source)
	b.must(t, err)
	images, name := b.fake.Connect().Images("rbd", ""), volumeid.BackendName(h.Incarnation)
	b.fake.Hook(func(op string) error {
		if !strings.HasPrefix(op, "Images.Trash ") {
			return nil
		}
		b.fake.Hook(nil)
		return images.CreateSnapshot(t.Context(), name, "hf-00000000000000000000000000000001")
	})
	b.must(t, b.remove(t, source))
	b.Tidy(t.Context())
	trash, err := images.Trashed(t.Context())
	if info, infoErr := images.Info(t.Context(), volumeid.TombstoneName(h.Incarnation)); err != nil || infoErr != nil || len(trash) != 0 || info.Size != 0 {
		t.Fatalf("trash %v, %v; tombstone %+v, %v", trash, err, info, infoErr)
	}
	b.must(t, images.RemoveSnapshot(t.Context(), volumeid.TombstoneName(h.Incarnation), "hf-00000000000000000000000000000001"))
	b.must(t, b.remove(t, b.make(t, "w").GetVolumeId())) // wakes the background work
	if left := b.left(t); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}
