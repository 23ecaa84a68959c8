package controller_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/fence"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const shared = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER

func (b *bench) publishTo(t *testing.T, id, node string) error {
	t.Helper()
	mode := writer
	if b.driver == storage.CephFS {
		mode = shared
	}
	_, err := b.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: id, NodeId: node, VolumeCapability: mount(mode), Secrets: secrets,
	})
	return err
}

func (b *bench) unpublishFrom(t *testing.T, id, node string) error {
	t.Helper()
	_, err := b.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: node, Secrets: secrets})
	return err
}

// note writes what a node would; no clients: it is attaching.
func (b *bench) note(t *testing.T, id, node string, clients ...ceph.ClientAddress) {
	t.Helper()
	notes, name := fence.Notes(b.fake.Connect()), fence.Name(storage.NodeID(node), id)
	old, err := notes.Read(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	n := fence.NewNote(storage.NodeID(node), id, "boot", "publication", "token", time.Now())
	for _, c := range clients {
		n.Attaching, n.Clients = "", append(n.Clients, fence.Client{Address: c, Mounter: "krbd"})
	}
	if _, err := notes.Write(t.Context(), name, old, n); err != nil {
		t.Fatal(err)
	}
}

// forget is what a node does that has unstaged the volume.
func (b *bench) forget(t *testing.T, id, node string) {
	t.Helper()
	notes := fence.Notes(b.fake.Connect())
	old, err := notes.Read(t.Context(), fence.Name(storage.NodeID(node), id))
	if err != nil {
		t.Fatal(err)
	}
	if old == nil {
		return
	}
	if err := notes.Remove(t.Context(), old); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) condition(t *testing.T, id string) string {
	t.Helper()
	got, err := b.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: id})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetStatus().GetVolumeCondition().GetMessage()
}

func TestANodeThatKeepsAVolumeIsFencedBeforeAnotherGetsIt(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		id := b.make(t, "v").GetVolumeId()
		must(t, b.publishTo(t, id, "hf1:a"))
		b.note(t, id, "hf1:a", "10.0.0.1:0/7", "[fd00::1]:0/8")
		must(t, b.unpublishFrom(t, id, "hf1:a"))
		if got := b.fake.Fenced(); !slices.Equal(got, []ceph.ClientAddress{"10.0.0.1:0/7", "[fd00::1]:0/8"}) {
			t.Fatalf("on the blocklist: %v", got)
		}
		if c := b.condition(t, id); !strings.Contains(c, "fenced node hf1:a since") || !strings.Contains(c, "10.0.0.1:0/7") {
			t.Errorf("the condition does not tell: %s", c)
		}
		must(t, b.unpublishFrom(t, id, "hf1:a")) // again
		must(t, b.publishTo(t, id, "hf1:b"))

		// While the node does not answer, its clients stay out.
		must(t, b.SweepFences(t.Context()))
		if len(b.fake.Fenced()) != 2 {
			t.Fatalf("on the blocklist: %v", b.fake.Fenced())
		}
		b.forget(t, id, "hf1:a")
		must(t, b.SweepFences(t.Context()))
		if c := b.condition(t, id); len(b.fake.Fenced()) != 0 || strings.Contains(c, "fenced") {
			t.Errorf("on the blocklist: %v, condition %s", b.fake.Fenced(), c)
		}
	})
}

func TestANodeThatLetGoIsNotFenced(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		id := b.make(t, "v").GetVolumeId()
		must(t, b.publishTo(t, id, "hf1:a"))
		b.note(t, id, "hf1:a", "10.0.0.1:0/7")
		if b.driver == storage.RBD { // its watch lingers, and a person looks at the image
			r := mustList(t, b.fake.Connect().Images("rbd", "").List)
			b.fake.Watch("rbd", "", r[0], ceph.Watcher{Address: "10.0.0.1:0/7", Client: 1})
			b.fake.Watch("rbd", "", r[0], ceph.Watcher{Address: "10.0.0.1:0/9", Client: 2})
		}
		b.forget(t, id, "hf1:a")
		b.fake.Hook(func(op string) error {
			if strings.HasPrefix(op, "Fence ") || strings.HasPrefix(op, "Images.") {
				return fmt.Errorf("an unpublish without need asks %s", op)
			}
			return nil
		})
		must(t, b.unpublishFrom(t, id, "hf1:a"))
		b.fake.Hook(nil)
		if got := b.fake.Fenced(); len(got) != 0 {
			t.Errorf("on the blocklist: %v", got)
		}
	})
}

func TestANodeThatWasAttachingCannotComeToAnEnd(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	id := b.make(t, "v").GetVolumeId()
	must(t, b.publishTo(t, id, "hf1:a"))
	b.note(t, id, "hf1:a")
	notes, name := fence.Notes(b.fake.Connect()), fence.Name("hf1:a", id)
	attaching, err := notes.Read(t.Context(), name)
	must(t, err)
	must(t, b.unpublishFrom(t, id, "hf1:a"))
	attached := attaching.Value
	attached.Clients = []fence.Client{{Address: "10.0.0.1:0/7"}}
	if _, err := notes.Write(t.Context(), name, attaching, attached); !errors.Is(err, fault.Aborted) {
		t.Errorf("a node went on after the volume was taken from it: %v", err)
	}
	if got := b.fake.Fenced(); len(got) != 0 {
		t.Errorf("on the blocklist: %v", got)
	}
}

func TestANodeThatAttachesMeanwhileIsFencedToo(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	id := b.make(t, "v").GetVolumeId()
	must(t, b.publishTo(t, id, "hf1:a"))
	b.note(t, id, "hf1:a", "10.0.0.1:0/7")
	once := false
	b.fake.Hook(func(op string) error {
		if strings.HasPrefix(op, "Objects.Swap "+fence.Prefix("hf1:a")) && !once {
			once = true
			b.note(t, id, "hf1:a", "10.0.0.1:0/7", "10.0.0.1:0/8")
		}
		return nil
	})
	must(t, b.unpublishFrom(t, id, "hf1:a"))
	b.fake.Hook(nil)
	if got := b.fake.Fenced(); !once || !slices.Contains(got, "10.0.0.1:0/8") || !slices.Contains(got, "10.0.0.1:0/7") {
		t.Errorf("on the blocklist: %v", got)
	}
}

// Whatever step of a fence is the last of a controller, the next one finishes it, and in between no
// other node gets the volume.
func TestAFenceThatWasCutOffIsFinished(t *testing.T) {
	for at := 1; ; at++ {
		b := newBench(t, storage.RBD, cephtest.NewFake())
		id := b.make(t, "v").GetVolumeId()
		must(t, b.publishTo(t, id, "hf1:a"))
		b.note(t, id, "hf1:a", "10.0.0.1:0/7")
		step, dead := 0, fault.New(fault.Unavailable, "the controller is dead")
		b.fake.Hook(func(op string) error {
			if !strings.HasPrefix(op, "Objects.Swap") && !strings.HasPrefix(op, "Objects.WriteLocked") && !strings.HasPrefix(op, "Fence ") && !strings.HasPrefix(op, "Barrier ") {
				return nil
			}
			if step++; step >= at {
				return dead
			}
			return nil
		})
		err := b.unpublishFrom(t, id, "hf1:a")
		b.fake.Hook(nil)
		if err == nil {
			if at < 5 {
				t.Errorf("a fence takes %d steps", at-1)
			}
			return
		}
		next := b.another(t)
		wantClass(t, next.publishTo(t, id, "hf1:b"), fault.Precondition)
		must(t, next.SweepFences(t.Context()))
		must(t, next.unpublishFrom(t, id, "hf1:a"))
		if got := b.fake.Fenced(); !slices.Equal(got, []ceph.ClientAddress{"10.0.0.1:0/7"}) {
			t.Fatalf("cut off at step %d: on the blocklist is %v", at, got)
		}
		must(t, next.publishTo(t, id, "hf1:b"))
		b.forget(t, id, "hf1:a")
		must(t, next.SweepFences(t.Context()))
		if c := next.condition(t, id); len(b.fake.Fenced()) != 0 || strings.Contains(c, "fenced") {
			t.Fatalf("cut off at step %d: %v, %s", at, b.fake.Fenced(), c)
		}
	}
}

func TestUnpublishingFromAllNodesFencesEachThatKeepsIt(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	id := b.make(t, "v").GetVolumeId()
	for i, node := range []string{"hf1:a", "hf1:b", "hf1:c"} {
		must(t, b.publishTo(t, id, node))
		b.note(t, id, node, ceph.ClientAddress(fmt.Sprintf("10.0.0.%d:0/7", i+1)))
	}
	b.forget(t, id, "hf1:b")
	must(t, b.unpublishFrom(t, id, ""))
	if got := b.fake.Fenced(); !slices.Equal(got, []ceph.ClientAddress{"10.0.0.1:0/7", "10.0.0.3:0/7"}) {
		t.Errorf("on the blocklist: %v", got)
	}
}

func TestOfNodesThatShareAVolumeOneIsFenced(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	id := b.make(t, "v").GetVolumeId()
	must(t, b.publishTo(t, id, "hf1:a"))
	must(t, b.publishTo(t, id, "hf1:b"))
	b.note(t, id, "hf1:a", "10.0.0.1:0/7")
	b.note(t, id, "hf1:b", "10.0.0.2:0/7")
	must(t, b.unpublishFrom(t, id, "hf1:a"))
	if got := b.fake.Fenced(); !slices.Equal(got, []ceph.ClientAddress{"10.0.0.1:0/7"}) {
		t.Errorf("on the blocklist: %v", got)
	}
	list, err := b.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	must(t, err)
	status := list.GetEntries()[0].GetStatus()
	if !slices.Equal(status.GetPublishedNodeIds(), []string{"hf1:b"}) || !strings.Contains(status.GetVolumeCondition().GetMessage(), "fenced node hf1:a") {
		t.Errorf("listed as %v", status)
	}
}

func TestAFencedNodeGetsTheVolumeAgain(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		id := b.make(t, "v").GetVolumeId()
		must(t, b.publishTo(t, id, "hf1:a"))
		b.note(t, id, "hf1:a", "10.0.0.1:0/7")
		must(t, b.unpublishFrom(t, id, "hf1:a"))
		must(t, b.publishTo(t, id, "hf1:a"))
		if len(b.fake.Fenced()) != 1 {
			t.Error("let back before it had answered")
		}
		b.note(t, id, "hf1:a", "10.0.0.1:0/8") // it attached anew
		must(t, b.SweepFences(t.Context()))
		if c := b.condition(t, id); len(b.fake.Fenced()) != 0 || strings.Contains(c, "fenced") {
			t.Errorf("on the blocklist: %v, condition %s", b.fake.Fenced(), c)
		}
		must(t, b.unpublishFrom(t, id, "hf1:a"))
		b.forget(t, id, "hf1:a")
		must(t, b.publishTo(t, id, "hf1:a")) // and this lifts it without the sweep
		if len(b.fake.Fenced()) != 0 {
			t.Errorf("on the blocklist: %v", b.fake.Fenced())
		}
	})
}

func TestADeletedVolumeStaysClosedToItsFencedNode(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		id := b.make(t, "v").GetVolumeId()
		must(t, b.publishTo(t, id, "hf1:a"))
		b.note(t, id, "hf1:a", "10.0.0.1:0/7")
		must(t, b.unpublishFrom(t, id, "hf1:a"))
		must(t, b.remove(t, id))
		must(t, b.SweepFences(t.Context()))
		if len(b.fake.Fenced()) != 1 {
			t.Error("let back with the volume gone, where it would write what nobody removes")
		}
		b.forget(t, id, "hf1:a")
		must(t, b.SweepFences(t.Context()))
		fences := mustList(t, b.fake.Connect().Notes(fence.Pool, fence.FencesIn).List)
		if len(b.fake.Fenced()) != 0 || len(fences) != 0 {
			t.Errorf("left: %v, %v", b.fake.Fenced(), fences)
		}
	})
}

func TestAnUnreadableNoteKeepsTheVolumeWhereItIs(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	id := b.make(t, "v").GetVolumeId()
	must(t, b.publishTo(t, id, "hf1:a"))
	notes := b.fake.Connect().Notes(fence.Pool, fence.NotesIn)
	must(t, notes.Swap(t.Context(), fence.Name("hf1:a", id), nil, []byte(`{"version":2}`)))
	wantClass(t, b.unpublishFrom(t, id, "hf1:a"), fault.Precondition)
	wantClass(t, b.publishTo(t, id, "hf1:b"), fault.Precondition)
}

func TestAReadOnlyPublicationIsTold(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		id := b.make(t, "v").GetVolumeId()
		for range 2 {
			r, err := b.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
				VolumeId: id, NodeId: "hf1:a", VolumeCapability: mount(writer), Readonly: true, Secrets: secrets,
			})
			must(t, err)
			if r.GetPublishContext()["readOnly"] != "true" {
				t.Errorf("the node is told %v", r.GetPublishContext())
			}
		}
		wantClass(t, b.publishTo(t, id, "hf1:a"), fault.Exists)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
