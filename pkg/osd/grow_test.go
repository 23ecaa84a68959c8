package osd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/disk/disktest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// What the label says that ceph-osd made.
const (
	madeFSID = "99999999-8888-4777-8666-555555555555"
	madeUUID = "11111111-2222-4333-8444-555555555555"
)

// world is a node whose volume carries osd.7: what the cluster says, which program is run, and whether the OSD runs.
type world struct {
	answers map[string]string
	fails   error
	opened  []string // what the store pointed at when it was expanded
	runs    bool
}

func (w *world) Mon(_ context.Context, cmd map[string]any, _ []byte) ([]byte, error) {
	return []byte(w.answers[cmd["prefix"].(string)]), nil
}

func (w *world) Mgr(context.Context, map[string]any, []byte) ([]byte, error) {
	return nil, errors.New("nobody asks")
}

func (w *world) Start(context.Context, int) error { w.runs = true; return nil }
func (w *world) Stop(context.Context, int) error  { w.runs = false; return nil }

func (w *world) Run(_ context.Context, cmd command.Cmd) (command.Result, error) {
	i := slices.Index(cmd.Args, "--path")
	to, err := os.Readlink(filepath.Join(cmd.Args[i+1], "block"))
	w.opened = append(w.opened, to)
	return command.Result{}, errors.Join(err, w.fails)
}

// volume makes a node with a stack's volume, under a kernel name, that carries osd.7.
func volume(t *testing.T, kernel string) (*Node, *world, stack.Volume) {
	t.Helper()
	label, err := os.ReadFile("../disk/signature/testdata/bluestore-16.2.label")
	if err != nil {
		t.Fatal(err)
	}
	m := disktest.New(t)
	m.Add(disktest.Disk{
		Name: kernel, Device: "253:" + strings.TrimPrefix(kernel, "dm-"), Size: 1 << 31, Place: "virtual", Slaves: []string{"md0"}, Head: label, Attributes: map[string]string{"dm/name": "hf--bulk-data"},
	})
	w := &world{answers: map[string]string{"osd dump": `{"osds": [{"osd": 7, "uuid": "` + madeUUID + `"}]}`, "auth get-key": `{"key": "AQABAAAAAgAAABAABwcHBwcHBwcHBwcHBwcHBw=="}`}}
	n := &Node{
		Cluster: w, Daemons: w, Run: w, FSID: madeFSID, Paths: daemon.Paths{Dir: t.TempDir()},
		Disks: disk.NewScanner(disk.Config{Root: m.Root, Images: true, FSID: madeFSID, Volumes: []string{"hf--bulk-data"}}),
	}
	store := n.store(7)
	err = errors.Join(os.MkdirAll(store, 0o750), os.MkdirAll(filepath.Dir(n.Paths.Keyring("osd.7")), 0o750), os.WriteFile(filepath.Join(store, "ready"), nil, 0o600), os.Symlink("/dev/dm-0", filepath.Join(store, "block")))
	if err != nil {
		t.Fatal(err)
	}
	return n, w, stack.Volume{Group: "hf-bulk", Name: "data", OSD: &stack.OSD{UUID: madeUUID}}
}

func TestAnOSDGrowsOnTheDeviceThatIsItsNow(t *testing.T) {
	n, w, v := volume(t, "dm-3") // before the boot it was dm-0
	g := Growth{ID: 7, UUID: madeUUID, Disk: VolumeDisk(v)}
	if err := n.expand(t.Context(), g); err != nil || len(w.opened) != 1 || filepath.Base(w.opened[0]) != "dm-3" {
		t.Errorf("expanded %v, %v", w.opened, err)
	}
	if w.runs {
		t.Error("it runs while it is expanded")
	}
	w.fails, w.runs = errors.New("no"), true
	if err := n.expand(t.Context(), g); !errors.Is(err, w.fails) || !w.runs {
		t.Errorf("a failure leaves it running: %v, %v", w.runs, err)
	}
	w.runs = true
	other := g
	other.UUID = "11111111-2222-4333-8444-666666666666"
	if err := n.expand(t.Context(), other); !errors.Is(err, fault.Precondition) || len(w.opened) != 2 || !w.runs {
		t.Errorf("another OSD is there: expanded %v, %v", w.opened, err)
	}
}

func TestAStackGrowsTheOSDThatIsOnItsVolume(t *testing.T) {
	n, w, v := volume(t, "dm-0")
	for _, c := range []struct{ uuid, dump, want string }{
		{madeUUID, w.answers["osd dump"], "osd.7"},
		{"11111111-2222-4333-8444-666666666666", w.answers["osd dump"], "osd.7"}, // a person has made it anew
		{madeUUID, `{"osds": []}`, ""},
		{madeUUID, `{"osds": [{"osd": 7, "uuid": "` + madeUUID + `", "state": ["destroyed"]}]}`, ""},
	} {
		v.OSD.UUID, w.answers["osd dump"] = c.uuid, c.dump
		steps, err := growOnVolume(t.Context(), n, v)
		if err != nil || (c.want == "") != (len(steps) == 0) || len(steps) > 0 && !strings.Contains(steps[0].What, c.want) {
			t.Errorf("%s in %s: %v, %v", c.uuid, c.dump, steps, err)
		}
	}
}
