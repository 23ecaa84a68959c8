package machine_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/disk/disktest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/machine"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestDisksAreFoundByWhatTheySayTheyAre(t *testing.T) {
	m := disktest.New(t)
	m.Add(disktest.Disk{Name: "sda", Size: 1 << 30, WWN: "naa.5000", Serial: "S1"})
	m.Add(disktest.Disk{Name: "sdb", Size: 2 << 30, WWN: "naa.6000", Serial: "S2"})
	m.Add(disktest.Disk{Name: "sdc", Size: 2 << 30, WWN: "naa.6000", Serial: "S2"})
	m.Add(disktest.Disk{Name: "sdd", Size: 3 << 30, Vendor: "ATA", Model: "WDC WD30", Serial: "WD-1"})
	m.Add(disktest.Disk{Name: "sr0", Device: "11:0", Size: 1 << 30, WWN: "naa.7000"})
	devices := machine.NewDisks(disk.Config{Root: m.Root})
	path := func(name string) string { return filepath.Join(m.Root, "dev", name) }
	for id, want := range map[plan.DiskID]live.Device{
		"naa.5000": {Path: path("sda"), Size: storage.GiB}, "S1": {Path: path("sda"), Size: storage.GiB},
		"serial.ATA_WDC_WD30_WD-1": {Path: path("sdd"), Size: 3 * storage.GiB}, "WD-1": {Path: path("sdd"), Size: 3 * storage.GiB},
	} {
		if got, err := devices.Find(t.Context(), id); err != nil || got != want {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	if _, err := devices.Find(t.Context(), "naa.6000"); !errors.Is(err, fault.Precondition) {
		t.Errorf("two paths to one disk: %v", err)
	}
	for _, id := range []plan.DiskID{"naa.50", "(null)", "", "sda", "naa.7000"} {
		if _, err := devices.Find(t.Context(), id); !errors.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
