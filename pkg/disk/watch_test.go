package disk

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/disk/disktest"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// told are events that a test sends.
type told chan Event

func (c told) Next(ctx context.Context) (Event, error) {
	select {
	case e := <-c:
		return e, nil
	case <-ctx.Done():
		return Event{}, ctx.Err()
	}
}

func TestAFullScanHasSCSIDisksAskedForTheirSizes(t *testing.T) {
	m := disktest.New(t)
	m.Add(disktest.Disk{Name: "sda", Size: 1e12, WWN: "naa.50014ee200000001", Attributes: map[string]string{"device/rescan": ""}})
	m.Add(disktest.Disk{Name: "sdb", Size: 1e12, WWN: "naa.50014ee200000002"}) // cannot be asked
	m.Add(disktest.Disk{Name: "vda", Device: "254:0", Size: 1e12, Serial: "1", Attributes: map[string]string{"device/rescan": ""}})
	w := NewWatcher(NewScanner(Config{Root: m.Root, Images: true}), WatcherConfig{})
	if err := w.rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"sda": "1", "vda": ""} {
		if got, err := os.ReadFile(m.Root + "/sys/block/" + name + "/device/rescan"); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestAnEventMakesOneDiskBeLookedAt(t *testing.T) {
	m := disktest.New(t)
	a := m.Add(disktest.Disk{Name: "sda", Size: 1e12, WWN: "naa.50014ee200000001"})
	b := m.Add(disktest.Disk{Name: "sdb", Size: 1e12, WWN: "naa.50014ee200000002"})
	synctest.Test(t, func(t *testing.T) {
		w := NewWatcher(NewScanner(Config{Root: m.Root, Images: true}), WatcherConfig{Every: time.Hour})
		events := make(told)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx, events) }()
		synctest.Wait()
		expect(t, w, 1, "sda sdb")
		for _, path := range []string{a, b} {
			writeAt(t, path, "XFSB")
		}
		events <- Event{Action: "change", Name: "sda"}
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, w, 2, "sdb") // sdb has changed, too, and nobody said so
		events <- Event{Action: "change", Name: "sda"}
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, w, 2, "sdb")
		events <- Event{} // some were lost
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, w, 3, "")
		writeAt(t, b, "\x00\x00\x00\x00")
		time.Sleep(time.Hour)
		synctest.Wait()
		expect(t, w, 4, "sdb")
		if err := os.Remove(m.Root + "/sys/block/sdb"); err != nil {
			t.Fatal(err)
		}
		events <- Event{Action: "remove", Name: "sdb"}
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, w, 5, "")
		if n := len(w.Inventory().Disks); n != 1 {
			t.Errorf("%d disks are left", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func expect(t *testing.T, w *Watcher, generation uint64, free string) {
	t.Helper()
	i := w.Inventory()
	var names []string
	for _, d := range i.Disks {
		if d.Free() {
			names = append(names, d.Name)
		}
	}
	if i.Generation != generation || strings.Join(names, " ") != free {
		t.Errorf("%v, free are %v; want generation %d, %q", i, names, generation, free)
	}
}

func writeAt(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestADiskBelowANewDeviceIsLookedAt(t *testing.T) {
	m := disktest.New(t)
	m.Add(disktest.Disk{Name: "sda", Size: 1e12, WWN: "naa.50014ee200000001"})
	w := NewWatcher(NewScanner(Config{Root: m.Root, Images: true}), WatcherConfig{})
	if err := w.rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Write("sys/block/sda/holders/dm-0", "")
	m.Add(disktest.Disk{Name: "dm-0", Device: "253:0", Size: 1e12, Slaves: []string{"sda"}, Place: "virtual"})
	if err := w.look([]string{"dm-0"}); err != nil {
		t.Fatal(err)
	}
	for _, d := range w.Inventory().Disks {
		if d.Name == "sda" && !d.Because(storage.ReasonHeld) {
			t.Errorf("sda: %v", d.Reasons)
		}
	}
}

func TestEventsOfTheKernelAreRead(t *testing.T) {
	message := func(pairs ...string) []byte { return []byte(strings.Join(pairs, "\x00") + "\x00") }
	for name, c := range map[string]struct {
		message []byte
		want    Event
		ok      bool
	}{
		"a disk":      {message("add@/devices/virtual/block/sdb", "ACTION=add", "DEVPATH=/devices/pci/host0/block/sdb", "SUBSYSTEM=block", "DEVTYPE=disk"), Event{"add", "sdb"}, true},
		"a partition": {message("remove@/x", "ACTION=remove", "DEVPATH=/devices/pci/host0/block/sdb/sdb1", "SUBSYSTEM=block", "DEVTYPE=partition"), Event{"remove", "sdb"}, true},
		"a net card":  {message("add@/x", "ACTION=add", "DEVPATH=/devices/net/eth0", "SUBSYSTEM=net"), Event{}, false},
		"udev's own":  {message("libudev", "ACTION=add", "DEVPATH=/devices/block/sdb", "SUBSYSTEM=block"), Event{}, false},
		"no path":     {message("add@", "ACTION=add", "SUBSYSTEM=block"), Event{}, false},
	} {
		got, ok := parseUevent(c.message)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: got %v, %v", name, got, ok)
		}
	}
}

func FuzzParseUevent(f *testing.F) {
	f.Add([]byte("add@/x\x00ACTION=add\x00DEVPATH=/devices/block/sdb\x00SUBSYSTEM=block\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if event, ok := parseUevent(message); ok && (event.Name == "" || strings.Contains(event.Name, "/")) {
			t.Errorf("got %v", event)
		}
	})
}
