package disk_test

import (
	"errors"
	"os"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/disk/disktest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestOnlyAFreeDiskIsClaimed(t *testing.T) {
	m := disktest.New(t)
	path := m.Add(blank("sda", "00000001"))
	scanner := disk.NewScanner(disk.Config{Root: m.Root, Images: true})
	d, file, err := scanner.Claim(t.Context(), "naa.50014ee200000001")
	if err != nil || d.Name != "sda" {
		t.Fatalf("got %v, %v", d, err)
	}
	if _, _, err := scanner.Claim(t.Context(), "naa.50014ee200000001"); !errors.Is(err, fault.Precondition) {
		t.Errorf("it is claimed twice: %v", err)
	}
	file.Close()
	if _, _, err := scanner.Claim(t.Context(), "naa.1"); !errors.Is(err, fault.NotFound) {
		t.Errorf("another disk: %v", err)
	}
	for _, at := range []int64{0, 3 << 20, terabyte - 3<<20} { // a scan does not look at the latter two
		poke(t, path, at, "x")
		if _, _, err := scanner.Claim(t.Context(), "naa.50014ee200000001"); !errors.Is(err, fault.Precondition) {
			t.Errorf("with data at %d: %v", at, err)
		}
		poke(t, path, at, "\x00")
	}
}

func TestAWipeNeedsTheDisksToken(t *testing.T) {
	m := disktest.New(t)
	label, err := os.ReadFile("signature/testdata/bluestore-16.2.label")
	if err != nil {
		t.Fatal(err)
	}
	d := blank("sda", "00000001")
	d.Head = label
	path := m.Add(d)
	poke(t, path, 1<<30, string(label))
	scanner := disk.NewScanner(disk.Config{Root: m.Root, Images: true})
	for _, token := range []string{"", "wipe", "wipe 00000001", "wipe 00000002 of 99999999-8888-4777-8666-555555555555"} {
		if err := scanner.Wipe(t.Context(), "naa.50014ee200000001", token); !errors.Is(err, fault.Denied) {
			t.Errorf("token %q: %v", token, err)
		}
	}
	if scan(t, m)["sda"].Free() {
		t.Fatal("it was wiped")
	}
	if err := scanner.Wipe(t.Context(), "naa.50014ee200000001", "wipe 00000001 of 99999999-8888-4777-8666-555555555555"); err != nil {
		t.Fatal(err)
	}
	if d := scan(t, m)["sda"]; !d.Free() {
		t.Errorf("it is not blank: %s", d.Why())
	}
}

func TestADiskInUseIsNotWiped(t *testing.T) {
	for name, change := range map[string]func(d *disktest.Disk){
		"held":                 func(d *disktest.Disk) { d.Head, d.Holders = []byte("XFSB"), []string{"dm-0"} },
		"held, and blank":      func(d *disktest.Disk) { d.Holders = []string{"dm-0"} },
		"it cannot be read":    func(d *disktest.Disk) { d.NoDevice = true },
		"its use is not known": func(d *disktest.Disk) { d.Head, d.Missing = []byte("XFSB"), []string{"holders"} },
	} {
		m := disktest.New(t)
		d := blank("sda", "00000001")
		change(&d)
		m.Add(d)
		scanner := disk.NewScanner(disk.Config{Root: m.Root, Images: true})
		if err := scanner.Wipe(t.Context(), "naa.50014ee200000001", "wipe 00000001"); !errors.Is(err, fault.Precondition) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func poke(t *testing.T, path string, at int64, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}
