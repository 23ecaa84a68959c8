//go:build umlguest

// Package disks is what runs inside the guest: real block devices, each in a state that
// somebody has lost data by. Package uml builds and starts it.
package disks

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const (
	ownFSID     = "aaaaaaaa-8888-4777-8666-555555555555"
	foreignFSID = "99999999-8888-4777-8666-555555555555"
)

func inventory(t *testing.T) map[string]storage.Disk {
	t.Helper()
	begin := time.Now()
	found, err := disk.NewScanner(disk.Config{MinSize: 16 << 20, FSID: ownFSID}).Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d block devices scanned in %v", len(found.Disks), time.Since(begin).Round(time.Millisecond))
	disks := map[string]storage.Disk{}
	for _, d := range found.Disks {
		disks[d.Name] = d
	}
	return disks
}

// TestNoOccupiedDiskIsOffered makes all traps, and blank disks between them, and scans once.
func TestNoOccupiedDiskIsOffered(t *testing.T) {
	l := newLab(t, 1)
	var traps []trap
	for _, some := range [][]trap{contents(), tables(), arrays(), stores(), uses(), natures()} {
		traps = append(traps, some...)
	}
	free := map[string]bool{l.add(spec{}).name: true, l.add(spec{sectors: 4096}).name: true}
	drives := make([][]drive, len(traps))
	for i, trap := range traps {
		begin := time.Now()
		drives[i] = trap.make(l)
		if took := time.Since(begin); took > time.Second {
			t.Logf("%s: took %v to make", trap.name, took.Round(time.Millisecond))
		}
	}
	free[l.add(spec{size: 1 << 40}).name] = true
	disks := inventory(t)
	for i, trap := range traps {
		t.Run(trap.name, func(t *testing.T) {
			for _, drive := range drives[i] {
				d, ok := disks[drive.name]
				switch {
				case !ok:
					t.Errorf("%s is not listed", drive.name)
				case d.Free():
					t.Errorf("%s is offered", d.Name)
				case d.Reasons[0].Code != trap.want || !strings.Contains(d.Why(), trap.says):
					t.Errorf("%s: want %s, %q, got %v", d.Name, trap.want, trap.says, d.Reasons)
				}
			}
		})
	}
	for name, d := range disks {
		if d.Free() != free[name] {
			t.Errorf("%s: free is %v: %v", name, d.Free(), d.Reasons)
		}
	}
	t.Logf("%d traps, %d disks, %d block devices", len(traps), l.next, len(disks))
	t.Run("what is no disk", func(t *testing.T) { nonDisks(t, disks) })
	t.Run("wipes", func(t *testing.T) { wipes(t, traps, drives, disks) })
}

// wiped are the traps that are taken apart: what lies at the start, at the end, and far from both.
var wiped = []string{
	"ext4 on the whole disk", "btrfs whose first superblock is gone", "LUKS2 whose first header is gone", "ZFS, by its last label", "a byte near the end",
	"a damaged primary GPT, an intact backup", "md 1.0, left over", "LVM, left over", "phantom partitions on BlueStore", "BlueStore with nothing left but a spare label",
}

// wipes: a disk is blank after a wipe by its own token, and by no other; one that somebody
// uses is refused, whatever is said.
func wipes(t *testing.T, traps []trap, drives [][]drive, disks map[string]storage.Disk) {
	scanner := disk.NewScanner(disk.Config{MinSize: 16 << 20, FSID: ownFSID})
	n, refused := 0, 0
	for i, trap := range traps {
		d := disks[drives[i][0].name]
		inUse := slices.ContainsFunc([]storage.ReasonCode{storage.ReasonMounted, storage.ReasonHeld, storage.ReasonSwap, storage.ReasonReadOnly, storage.ReasonUnknown,
			storage.ReasonMultipath, storage.ReasonRemovable, storage.ReasonBusy}, d.Because)
		switch {
		case inUse:
			refused++
			if err := scanner.Wipe(t.Context(), d.ID, disk.Token(d)); err == nil {
				t.Errorf("%s: the wipe is said to have worked", trap.name)
			}
			if after, err := scanner.Find(t.Context(), d.ID); err == nil && len(after.Contents) != len(d.Contents) {
				t.Errorf("%s: it was refused, and is changed: %s", trap.name, after.Why())
			}
		case slices.Contains(wiped, trap.name):
			n++
			if err := scanner.Wipe(t.Context(), d.ID, disk.Token(d)+"0"); !errors.Is(err, fault.Denied) {
				t.Errorf("%s: by a wrong token: %v", trap.name, err)
			}
			if err := scanner.Wipe(t.Context(), d.ID, disk.Token(d)); err != nil {
				t.Errorf("%s: %v", trap.name, err)
			}
			if after, err := scanner.Find(t.Context(), d.ID); err != nil || !after.Free() {
				t.Errorf("%s: after the wipe: %s, %v", trap.name, after.Why(), err)
			}
		}
	}
	t.Logf("%d disks were wiped, %d refused", n, refused)
	if n != len(wiped) || refused < 12 {
		t.Errorf("%d disks were wiped, %d refused", n, refused)
	}
}

// nonDisks: loop, md, dm, zram and ram devices are there and are never offered.
func nonDisks(t *testing.T, disks map[string]storage.Disk) {
	for _, kind := range []string{"loop", "md", "dm-", "zram", "ram"} {
		n := 0
		for name, d := range disks {
			if strings.HasPrefix(name, kind) {
				n++
				if !d.Because(storage.ReasonKind) {
					t.Errorf("%s: %v", name, d.Reasons)
				}
			}
		}
		if n == 0 {
			t.Errorf("there is no %s device to look at", kind)
		}
	}
}

// TestADiskKeepsItsIdentityUnderAnotherName pulls two disks and plugs them in the other way
// round: the names are swapped, the identities are not.
func TestADiskKeepsItsIdentityUnderAnotherName(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.add(spec{}), l.add(spec{})
	l.run("mkfs.ext4", "-q", a.path())
	before := inventory(t)
	l.withdraw(a)
	l.withdraw(b)
	l.expose(b.store, 1)
	nameOfB := l.waitFor(b.serial, nil)
	l.expose(a.store, 1)
	nameOfA := l.waitFor(a.serial, nil)
	if nameOfA == a.name {
		t.Skip("the kernel gave the same names again")
	}
	after := inventory(t)
	if after[nameOfA].ID != before[a.name].ID || after[nameOfA].Free() || after[nameOfB].ID != before[b.name].ID || !after[nameOfB].Free() {
		t.Errorf("%s was %s, %s was %s: %v, %v", nameOfA, a.name, nameOfB, b.name, after[nameOfA], after[nameOfB])
	}
	match, err := disk.ParseMatch("id=" + string(before[a.name].ID))
	if err != nil {
		t.Fatal(err)
	}
	if !match.Fits(after[nameOfA]) || match.Fits(after[nameOfB]) {
		t.Error("the selection follows the name")
	}
}

// TestADiskThatGrewSilentlyIsAsked lets a SCSI disk grow that does not say so: nobody hears of it before the disk is asked, which full scans do.
func TestADiskThatGrewSilentlyIsAsked(t *testing.T) {
	l := newLab(t, 4)
	file := l.dir + "/grows"
	l.back(file, spec{size: 64 << 20})
	loop := strings.TrimSpace(l.run("losetup", "--find", "--show", file))
	d := l.add(spec{device: loop})
	l.back(file, spec{size: 96 << 20})
	l.run("losetup", "--set-capacity", loop)
	if size := inventory(t)[d.name].Size; size != 64*storage.MiB {
		t.Skipf("the disk has said by itself that it has %s", size)
	}
	grown := make(chan storage.Bytes, 64)
	events, err := disk.OpenUevents()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	w := disk.NewWatcher(disk.NewScanner(disk.Config{MinSize: 16 << 20}), disk.WatcherConfig{Every: 500 * time.Millisecond, Changed: func(i disk.Inventory) {
		for _, one := range i.Disks {
			if one.Name == d.name {
				grown <- one.Size
			}
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, events) }()
	for size, deadline := storage.Bytes(0), time.After(20*time.Second); size != 96*storage.MiB; {
		select {
		case size = <-grown:
		case <-deadline:
			t.Fatalf("it is known to have %s", size)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestKernelEventsAreFollowed plugs a disk in, puts device-mapper on it, and pulls it, while
// a watcher without a scan in sight hears of it from the kernel alone.
func TestKernelEventsAreFollowed(t *testing.T) {
	l := newLab(t, 3)
	events, err := disk.OpenUevents()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	generations := make(chan disk.Inventory, 64)
	w := disk.NewWatcher(disk.NewScanner(disk.Config{MinSize: 16 << 20}), disk.WatcherConfig{Every: time.Hour, Changed: func(i disk.Inventory) { generations <- i }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, events) }()
	<-generations
	await := func(what string, is func(i disk.Inventory) bool) {
		t.Helper()
		begin, deadline := time.Now(), time.After(20*time.Second)
		for {
			select {
			case i := <-generations:
				if is(i) {
					t.Logf("%s: generation %d after %v", what, i.Generation, time.Since(begin).Round(time.Millisecond))
					return
				}
			case <-deadline:
				t.Fatalf("nobody heard that %s: %v", what, w.Inventory())
			}
		}
	}
	find := func(i disk.Inventory, name string) (storage.Disk, bool) {
		n := slices.IndexFunc(i.Disks, func(d storage.Disk) bool { return d.Name == name })
		if n < 0 {
			return storage.Disk{}, false
		}
		return i.Disks[n], true
	}
	d := l.add(spec{})
	await("the disk is there", func(i disk.Inventory) bool { seen, ok := find(i, d.name); return ok && seen.Free() })
	l.run("dmsetup", "create", "onit", "--noudevsync", "--noudevrules", "--table", "0 2048 linear "+d.path()+" 0")
	await("device-mapper has it", func(i disk.Inventory) bool { seen, _ := find(i, d.name); return seen.Because(storage.ReasonHeld) })
	l.run("dmsetup", "remove", "--noudevsync", "--noudevrules", "onit")
	await("device-mapper has let go", func(i disk.Inventory) bool { seen, _ := find(i, d.name); return seen.Free() })
	l.addPartition(d, 1, 1<<20, 8<<20)
	await("it has a partition", func(i disk.Inventory) bool { seen, _ := find(i, d.name); return seen.Because(storage.ReasonPartitions) })
	l.withdraw(d)
	await("it is gone", func(i disk.Inventory) bool { _, ok := find(i, d.name); return !ok })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
