package disk_test

import (
	"fmt"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/disk/disktest"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const terabyte = 1_000_000_000_000

func blank(name, serial string) disktest.Disk {
	return disktest.Disk{Name: name, Size: terabyte, Vendor: "ATA", Model: "WDC WD10EFRX-68F", Serial: serial, WWN: "naa.50014ee2" + serial, Link: "wwn-0x50014ee2" + serial}
}

func scan(t *testing.T, m *disktest.Machine) map[string]storage.Disk {
	t.Helper()
	inventory, err := disk.NewScanner(disk.Config{Root: m.Root, Images: true}).Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]storage.Disk{}
	for _, d := range inventory.Disks {
		byName[d.Name] = d
	}
	return byName
}

func TestABlankDiskIsFreeAndFullyDescribed(t *testing.T) {
	m := disktest.New(t)
	m.Add(blank("sda", "00000001"))
	d := scan(t, m)["sda"]
	if !d.Free() {
		t.Fatalf("it is not free: %s", d.Why())
	}
	if d.ID != "naa.50014ee200000001" || d.Serial != "00000001" || d.Vendor != "ATA" || d.Model != "WDC WD10EFRX-68F" || d.Bus != "sata" || !d.Rotational ||
		d.Size != terabyte || d.LogicalSector != 512 || d.PhysicalSector != 4096 || len(d.ByID) != 1 || d.Device != "8:0" {
		t.Errorf("it is described as %+v", d)
	}
}

func TestAVolumeCountsAsADiskOnlyWhereItIsNamed(t *testing.T) {
	m := disktest.New(t)
	for i, name := range []string{"hf--bulk-data", "root"} {
		m.Add(disktest.Disk{
			Name: fmt.Sprintf("dm-%d", i), Device: fmt.Sprintf("253:%d", i), Size: 1 << 30, Place: fmt.Sprintf("virtual%d", i), Slaves: []string{"md0"},
			Attributes: map[string]string{"dm/name": name},
		})
	}
	for name, d := range scan(t, m) {
		if !d.Because(storage.ReasonKind) || d.ID != "" {
			t.Errorf("%s: %s, %s", name, d.ID, d.Why())
		}
	}
	s := disk.NewScanner(disk.Config{Root: m.Root, Images: true, Volumes: []string{"hf--bulk-data"}})
	d, err := s.Find(t.Context(), storage.VolumeDisk("hf--bulk-data"))
	if err != nil || d.Name != "dm-0" || !d.Free() || !d.ID.OfVolume() {
		t.Errorf("%+v, %v", d, err)
	}
	if all, err := s.Identify(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestWhatSpeaksAgainstADiskIsTold(t *testing.T) {
	with := func(change func(d *disktest.Disk)) disktest.Disk {
		d := blank("sda", "00000001")
		change(&d)
		return d
	}
	for name, c := range map[string]struct {
		disk disktest.Disk
		want storage.ReasonCode
	}{
		"held":                  {with(func(d *disktest.Disk) { d.Holders = []string{"dm-0"} }), storage.ReasonHeld},
		"partitions":            {with(func(d *disktest.Disk) { d.Partitions = []string{"sda1"} }), storage.ReasonPartitions},
		"read-only":             {with(func(d *disktest.Disk) { d.ReadOnly = true }), storage.ReasonReadOnly},
		"removable":             {with(func(d *disktest.Disk) { d.Removable = true }), storage.ReasonRemovable},
		"too small":             {with(func(d *disktest.Disk) { d.Size = 4 << 30 }), storage.ReasonSize},
		"no medium":             {with(func(d *disktest.Disk) { d.Size = 0 }), storage.ReasonSize},
		"no identity":           {with(func(d *disktest.Disk) { d.WWN, d.Serial = "", "" }), storage.ReasonNoIdentity},
		"an identity of zeros":  {with(func(d *disktest.Disk) { d.WWN, d.Serial = "naa.0000000000000000", "0000" }), storage.ReasonNoIdentity},
		"a CD drive as sd":      {with(func(d *disktest.Disk) { d.Attributes = map[string]string{"device/type": "5"} }), storage.ReasonKind},
		"zoned":                 {with(func(d *disktest.Disk) { d.Attributes = map[string]string{"queue/zoned": "host-managed"} }), storage.ReasonZoned},
		"loop":                  {with(func(d *disktest.Disk) { d.Device = "7:0" }), storage.ReasonKind},
		"unknown major":         {with(func(d *disktest.Disk) { d.Device = "99:0" }), storage.ReasonKind},
		"made of others":        {with(func(d *disktest.Disk) { d.Slaves = []string{"sdz"} }), storage.ReasonKind},
		"hidden":                {with(func(d *disktest.Disk) { d.Attributes = map[string]string{"hidden": "1"} }), storage.ReasonHidden},
		"data":                  {with(func(d *disktest.Disk) { d.Head = []byte{0, 0, 7} }), storage.ReasonData},
		"no size in sysfs":      {with(func(d *disktest.Disk) { d.Missing = []string{"size"} }), storage.ReasonUnknown},
		"no holders in sysfs":   {with(func(d *disktest.Disk) { d.Missing = []string{"holders"} }), storage.ReasonUnknown},
		"no removable in sysfs": {with(func(d *disktest.Disk) { d.Missing = []string{"removable"} }), storage.ReasonUnknown},
		"no device node":        {with(func(d *disktest.Disk) { d.NoDevice = true }), storage.ReasonUnknown},
		"a number that is none": {with(func(d *disktest.Disk) { d.Attributes = map[string]string{"ro": "no"} }), storage.ReasonUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			m := disktest.New(t)
			m.Add(c.disk)
			if d := scan(t, m)["sda"]; !d.Because(c.want) {
				t.Errorf("want %s, got %v", c.want, d.Reasons)
			}
		})
	}
}

func TestMountsAndSwapsAreSeen(t *testing.T) {
	m := disktest.New(t)
	whole, part, swap := blank("sda", "00000001"), blank("sdb", "00000002"), blank("sdc", "00000003")
	part.Partitions = []string{"sdb1"}
	m.Add(whole)
	m.Add(part)
	m.Add(swap)
	m.Write("proc/self/mountinfo", "22 1 8:0 / /srv/a rw - ext4 /dev/sda rw\n23 1 0:40 / /srv/b rw - btrfs /dev/sdb1 rw\n")
	m.Write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/sdc partition 1 0 -2\n")
	disks := scan(t, m)
	for name, want := range map[string]storage.ReasonCode{"sda": storage.ReasonMounted, "sdb": storage.ReasonMounted, "sdc": storage.ReasonSwap} {
		if d := disks[name]; !d.Because(want) {
			t.Errorf("%s: want %s, got %v", name, want, d.Reasons)
		}
	}
}

func TestTwoPathsToOneDiskAreNotFree(t *testing.T) {
	m := disktest.New(t)
	m.Add(blank("sda", "00000001"))
	m.Add(blank("sdb", "00000001x"))
	again := blank("sdc", "00000001")
	again.Link = ""
	m.Add(again)
	disks := scan(t, m)
	if !disks["sda"].Because(storage.ReasonMultipath) || !disks["sdc"].Because(storage.ReasonMultipath) || !disks["sdb"].Free() {
		t.Errorf("sda: %v, sdb: %v, sdc: %v", disks["sda"].Reasons, disks["sdb"].Reasons, disks["sdc"].Reasons)
	}
}

func TestAMachineThatCannotBeReadHasNoFreeDisks(t *testing.T) {
	m := disktest.New(t)
	m.Add(blank("sda", "00000001"))
	m.Write("proc/devices", "nothing")
	if inventory, err := disk.NewScanner(disk.Config{Root: m.Root, Images: true}).Scan(t.Context()); err == nil || len(inventory.Disks) > 0 {
		t.Errorf("got %v, %v", inventory, err)
	}
}

func TestAFileIsNoDisk(t *testing.T) {
	m := disktest.New(t)
	m.Add(blank("sda", "00000001"))
	inventory, err := disk.NewScanner(disk.Config{Root: m.Root}).Scan(t.Context())
	if err != nil || !inventory.Disks[0].Because(storage.ReasonUnknown) {
		t.Errorf("got %v, %v", inventory, err)
	}
}
