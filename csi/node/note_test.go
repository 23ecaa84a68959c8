package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/fence"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// noted returns the node's note, nil without one.
func (r *rig) noted() *fence.Note {
	r.t.Helper()
	stored, err := fence.Notes(r.ceph.Connect()).Read(r.t.Context(), r.noteName(r.volume))
	r.must(err)
	if stored == nil {
		return nil
	}
	return &stored.Value
}

// change is what a controller does to the note; nil takes it away.
func (r *rig) change(to func(*fence.Note) *fence.Note) {
	r.t.Helper()
	notes := fence.Notes(r.ceph.Connect())
	stored, err := notes.Read(r.t.Context(), r.noteName(r.volume))
	r.must(err)
	value := stored.Value
	if note := to(&value); note != nil {
		_, err = notes.Write(r.t.Context(), r.noteName(r.volume), stored, *note)
	} else {
		err = notes.Remove(r.t.Context(), stored)
	}
	r.must(err)
}

func fenced(n *fence.Note) *fence.Note {
	now := time.Now()
	n.Fenced = &now
	return n
}

func TestTheNoteNamesTheClientBeforeAnythingIsWritten(t *testing.T) {
	r := newRig(t)
	r.ceph.Hook(func(op string) error {
		if !strings.HasPrefix(op, "Images.SetMetadata") { // mkfs begins
			return nil
		}
		r.ceph.Hook(nil)
		if n := r.noted(); n == nil || len(n.Clients) != 1 || n.Clients[0].Address != "10.0.0.9:0/1" || n.Attaching != "" {
			t.Errorf("mkfs begins, and the note says %+v", n)
		}
		return nil
	})
	r.must(r.stageAs(mounted("", rwo)))
	if n := r.noted(); n == nil || n.Node != "hf1:노드-1" || n.Volume != r.volume || n.Boot != r.boot {
		t.Errorf("the note says %+v", n)
	}
	r.must(r.unstageIt())
	if n := r.noted(); n != nil {
		t.Errorf("unstaged, and the note says %+v", n)
	}
}

func TestAVolumeThatIsTakenWhileItIsAttachedIsNotUsed(t *testing.T) {
	r := newRig(t)
	r.ceph.Hook(func(op string) error {
		if strings.HasPrefix(op, "Images.Watchers") && len(r.machine.attached) == 0 {
			r.ceph.Hook(nil)
			r.change(func(*fence.Note) *fence.Note { return nil })
		}
		return nil
	})
	r.wants(r.stageAs(mounted("", rwo)), fault.Aborted)
	if len(r.machine.attached) != 0 || r.machine.count("mkfs.ext4") != 0 {
		t.Errorf("attached: %v, mkfs ran %d times", r.machine.attached, r.machine.count("mkfs.ext4"))
	}
}

func TestWhatWasFencedIsReplaced(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", rwo)))
	r.change(fenced)
	stats, err := r.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: r.volume, VolumePath: r.staging})
	r.must(err)
	if c := stats.GetVolumeCondition(); !c.GetAbnormal() || !strings.Contains(c.GetMessage(), "fenced") {
		t.Errorf("the condition is %v", c)
	}
	r.must(r.stageAs(mounted("", rwo)))
	if n := r.noted(); n.Fenced != nil || len(n.Clients) != 1 || n.Clients[0].Address != "10.0.0.9:0/2" {
		t.Errorf("staged anew, and the note says %+v", n)
	}
}

func TestAClientThatLivesOnStaysInTheNote(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", rwo)))
	client := r.machine.clients[r.volume]
	r.ceph.Hook(func(string) error { // taken down, but its client lives, say in another mount namespace
		r.machine.mu.Lock()
		defer r.machine.mu.Unlock()
		r.machine.clients[r.volume] = client
		return nil
	})
	r.must(r.unstageIt())
	if n := r.noted(); n == nil || len(n.Clients) != 1 {
		t.Fatalf("the note says %+v", n)
	}
	if err := r.Sweep(t.Context()); !errors.Is(err, fault.Busy) {
		t.Errorf("a sweep over what lives: %v", err)
	}
	r.ceph.Hook(nil)
	delete(r.machine.clients, r.volume)
	r.must(r.Sweep(t.Context()))
	if n := r.noted(); n != nil {
		t.Errorf("it is gone, and the note says %+v", n)
	}
}

func TestAClusterThatDoesNotAnswerDoesNotHoldUpUnstaging(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", rwo)))
	r.ceph.Hook(func(string) error { return fault.New(fault.Unavailable, "no OSD") })
	r.must(r.unstageIt())
	r.ceph.Hook(nil)
	if r.noted() == nil {
		t.Fatal("a note went without an OSD")
	}
	r.restart()
	r.must(r.Sweep(t.Context()))
	if n := r.noted(); n != nil {
		t.Errorf("the note says %+v", n)
	}
}

func TestARebootEndsWhatANoteNames(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", rwo)))
	r.boot = "another"
	r.must(r.Sweep(t.Context()))
	if n := r.noted(); n != nil {
		t.Errorf("the note says %+v", n)
	}
}

func TestASweepLeavesWhatIsStaged(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", rwo)))
	r.must(r.Sweep(t.Context()))
	if n := r.noted(); n == nil || len(n.Clients) != 1 {
		t.Errorf("the note says %+v", n)
	}
}

func TestANodeWithoutTheRightToNoteStillStages(t *testing.T) {
	r := newRig(t)
	r.ceph.Hook(func(op string) error {
		if strings.HasPrefix(op, "Objects.Read") || strings.HasPrefix(op, "Objects.Swap") {
			return fault.New(fault.Denied, "not permitted")
		}
		return nil
	})
	r.must(r.stageAs(mounted("", rwo)))
	r.must(r.unstageIt())
}

func TestOwnWatcherIsTheOneThatCameAndIsOfThisMachine(t *testing.T) {
	own := map[string]bool{"10.0.0.1": true, "fd00::1": true}
	old := []ceph.Watcher{{Address: "10.0.0.1:0/1", Client: 1}}
	for _, c := range []struct {
		name string
		now  []ceph.Watcher
		want []ceph.ClientAddress
	}{
		{"the one that came", append(old, ceph.Watcher{Address: "10.0.0.1:0/2", Client: 2}), []ceph.ClientAddress{"10.0.0.1:0/2"}},
		{"by IPv6", append(old, ceph.Watcher{Address: "v2:[fd00::1]:0/2", Client: 2}), []ceph.ClientAddress{"[fd00::1]:0/2"}},
		{"another machine's is not", append(old, ceph.Watcher{Address: "10.0.0.2:0/2", Client: 2}), nil},
		{"nor what was there", old, nil},
		{"nor is it chosen of two", append(old, ceph.Watcher{Address: "10.0.0.1:0/2", Client: 2}, ceph.Watcher{Address: "10.0.0.1:0/3", Client: 3}), []ceph.ClientAddress{"10.0.0.1:0/2", "10.0.0.1:0/3"}},
		{"one client with two watches is one", append(old, ceph.Watcher{Address: "10.0.0.1:0/2", Client: 2}, ceph.Watcher{Address: "10.0.0.1:0/2", Client: 2}), []ceph.ClientAddress{"10.0.0.1:0/2"}},
	} {
		got := newcomers(old, c.now, own)
		if len(got) != len(c.want) || len(got) > 0 && got[0] != c.want[0] {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestAReadOnlyPublicationIsAttachedSo(t *testing.T) {
	r := newRig(t)
	r.must(r.stageAs(mounted("", rwo))) // a file system is made
	r.must(r.unstageIt())
	request := r.request(mounted("", rwo))
	request.PublishContext = map[string]string{"readOnly": "true"}
	_, err := r.NodeStageVolume(t.Context(), request)
	r.must(err)
	if d := r.machine.attached[r.volume]; !d.ReadOnly {
		t.Errorf("attached as %+v", d)
	}
	r.wants(r.stageAs(mounted("", rwo)), fault.Exists)
}
