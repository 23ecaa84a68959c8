package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/disk/disktest"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestDisksListRefusesWhatItCannotRead(t *testing.T) {
	m := disktest.New(t)
	m.Add(disktest.Disk{Name: "sda", Size: 4e12, WWN: "naa.50014ee200000001", Model: "WD40"})
	m.Add(disktest.Disk{Name: "loop0", Device: "7:0", Size: 1e9})
	out, err := runLine(t, "disks list -o json --root "+m.Root) // files in place of devices
	if err != nil {
		t.Fatal(err)
	}
	var report disksReport
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Disks) != 1 || report.Disks[0].Free || !report.Disks[0].Because(storage.ReasonUnknown) {
		t.Errorf("got %s", out)
	}
}

func TestDisksListSaysWhatIsWrongWithASelection(t *testing.T) {
	for args, want := range map[string]string{
		"--match size=10TB..4TB":    "--match: size=10TB..4TB: the first end is above the second",
		"--match name=sda":          "may belong to another disk after the next boot",
		"--match ''":                "is no selection",
		"--match model=WD*,count=1": "0 free disks match, and 1 are wanted; 1 more match and are not free",
		"--min-size much":           "--min-size",
		"--root /nonexistent":       "look at the disks",
		"-o xml":                    "none of json, yaml, wide, name",
	} {
		m := disktest.New(t)
		m.Add(disktest.Disk{Name: "sda", Size: 4e12, WWN: "naa.50014ee200000001", Model: "WD40"})
		if _, err := runLine(t, "disks list --root "+m.Root+" "+args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

func TestTheTableHasReasonsLast(t *testing.T) {
	disks := []storage.Disk{
		{ID: "naa.1", Name: "sdb", Size: 4e12, Rotational: true, Vendor: "ATA", Model: "WD40"},
		{ID: "naa.2", Name: "sda", Size: 1e12, Reasons: []storage.Reason{{Code: storage.ReasonMounted, Message: "mounted at /"}, {Code: storage.ReasonReadOnly, Message: "it is read-only"}}},
	}
	match, err := disk.ParseMatch("size=4TB")
	if err != nil {
		t.Fatal(err)
	}
	r := disksReport{Scanned: time.Unix(100, 0), Took: 0.002}
	for _, d := range disks {
		r.Disks = append(r.Disks, diskReport{Disk: d, Free: d.Free()})
	}
	if r.Selection, err = selectFrom(disks, match); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := r.table(false).print(&out, ""); err != nil {
		t.Fatal(err)
	}
	r.summary(&out, time.Unix(103, 0))
	want := `ID     NAME  SIZE  TYPE  MODEL     SELECTED  FREE  WHY NOT
naa.1  sdb   4 TB  hdd   ATA WD40  yes       yes   -
naa.2  sda   1 TB  ssd   -         no        no    mounted at /; it is read-only

2 disks, 1 free; scanned 3s ago in 2ms
--match selects 1 disk; not free, though they match: 0. This is a dry run, nothing was taken.
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestAWipeIsShownBeforeItIsDone(t *testing.T) {
	m := disktest.New(t)
	m.Add(disktest.Disk{Name: "sda", Size: 4e12, WWN: "naa.50014ee200000001", Serial: "WD-1", Head: []byte("XFSB")})
	m.Add(disktest.Disk{Name: "sdb", Size: 4e12, WWN: "naa.50014ee200000002", Holders: []string{"dm-0"}})
	scanner := disk.NewScanner(disk.Config{Root: m.Root, Images: true})
	wipe := func(id storage.DiskID, token string) (string, error) {
		var out strings.Builder
		cmd := New(Streams{Out: &out, Err: &out}, "test")
		if err := cmd.ParseFlags(nil); err != nil {
			t.Fatal(err)
		}
		err := wipeDisk(t.Context(), cmd, scanner, id, "", token)
		return out.String(), err
	}
	out, err := wipe("naa.50014ee200000001", "")
	if want := "naa.50014ee200000001 (sda, 4 TB) holds: xfs\nto destroy that: holdfast disks wipe naa.50014ee200000001 --token 'wipe WD-1'\n"; err != nil || out != want {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := wipe("naa.50014ee200000001", "wipe WD-2"); err == nil || !strings.Contains(err.Error(), `say "wipe WD-1"`) {
		t.Errorf("a wrong token: %v", err)
	}
	if out, err := wipe("naa.50014ee200000001", "wipe WD-1"); err != nil || out != "naa.50014ee200000001 is blank\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if out, err := wipe("naa.50014ee200000002", ""); err != nil || !strings.Contains(out, "used by dm-0") {
		t.Errorf("a disk in use: %q, %v", out, err)
	}
	if _, err := wipe("naa.7", ""); err == nil {
		t.Error("a disk that is not there")
	}
}
