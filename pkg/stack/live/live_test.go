package live_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// sysfs is a fake /sys with files below block/.
func sysfs(t *testing.T, files map[string]string) string {
	t.Helper()
	sys := t.TempDir()
	for name, text := range files {
		path := filepath.Join(sys, "block", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

func TestDisksAreFoundByWhatTheySayTheyAre(t *testing.T) {
	devices := live.SysDevices{Sys: sysfs(t, map[string]string{
		"nvme0n1/wwid": "eui.0025\n", "nvme0n1/size": "4096", "nvme0n1/device/serial": "S1  \n",
		"sda/device/wwid": "naa.5000\n", "sda/size": "2048",
		"sdb/device/wwid": "naa.6000\n", "sdb/size": "2048", "sdc/device/wwid": "naa.6000\n", "sdc/size": "2048",
		"ubda/serial": "(null)", "ubda/size": "8",
	})}
	for id, want := range map[plan.DiskID]live.Device{
		"eui.0025": {Path: "/dev/nvme0n1", Size: 2 * storage.MiB}, "S1": {Path: "/dev/nvme0n1", Size: 2 * storage.MiB}, "naa.5000": {Path: "/dev/sda", Size: storage.MiB},
	} {
		if got, err := devices.Find(t.Context(), id); err != nil || got != want {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	if _, err := devices.Find(t.Context(), "naa.6000"); !errors.Is(err, fault.Precondition) {
		t.Errorf("two paths to one disk: %v", err)
	}
	for _, id := range []plan.DiskID{"naa.50", "(null)", "", "sda"} {
		if _, err := devices.Find(t.Context(), id); !errors.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestEveryKindOfAStackHasItsBehaviour(t *testing.T) {
	registry := live.New(live.SysDevices{Sys: t.TempDir()}, nil, nil).Registry()
	for _, kind := range []plan.Kind{
		stack.KindLabel, stack.KindDiskGrow, stack.KindRelease, stack.KindPartition, stack.KindPartitionGrow, stack.KindCreate, stack.KindRecover, stack.KindReshape,
		stack.KindReplace, stack.KindDrop, stack.KindWiden, stack.KindProtect, stack.KindPVCreate, stack.KindPVGrow, stack.KindVolumeCreate, stack.KindVolumeGrow,
		stack.KindMakeFS, stack.KindMount, stack.KindGrowFS,
	} {
		build, ok := registry[kind]
		if !ok {
			t.Errorf("%s has none", kind)
			continue
		}
		if _, err := build(plan.Step{Kind: kind, Args: []byte(`{}`)}, nil); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := build(plan.Step{Kind: kind, Args: []byte(`[]`)}, nil); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s takes arguments that are none: %v", kind, err)
		}
	}
}

func TestLatencyIsThatOfTheRequestsSinceTheLastLook(t *testing.T) {
	sys := t.TempDir()
	path := filepath.Join(sys, "class", "block", "dm-0", "stat")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l := &live.Latency{Device: "/dev/dm-0", Sys: sys}
	for _, c := range []struct {
		stat string
		want time.Duration
	}{
		{"", 0}, {"10 0 0 100 10 0 0 300 0 0 0", 0}, {"10 0 0 100 10 0 0 300 0 0 0", 0}, {"15 0 0 150 15 0 0 450 0 0 0", 20 * time.Millisecond}, {"broken", 0},
	} {
		if err := os.WriteFile(path, []byte(c.stat), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := l.Measure(); got != c.want {
			t.Errorf("%q: %s, want %s", c.stat, got, c.want)
		}
	}
}
