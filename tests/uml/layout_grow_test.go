package uml_test

import (
	"os"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

// enlarge makes disks larger while the guest is off.
func (b *bench) enlarge(mib int, disks ...int) []layout.Disk {
	b.t.Helper()
	var list []layout.Disk
	for _, n := range disks {
		d := b.machine.Disks[n]
		if err := os.Truncate(d.Path, int64(mib)<<20); err != nil {
			b.t.Fatal(err)
		}
		list = append(list, layout.Disk{ID: d.Serial, Size: storage.Bytes(mib) * storage.MiB})
	}
	return list
}

// TestAnOnlyDiskThatGrewIsUsedToItsEnd widens partition, array, volume and file system, by less than one of ext4's groups.
func TestAnOnlyDiskThatGrewIsUsedToItsEnd(t *testing.T) {
	slow(t)
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(768))
	b.boot(layoutrun.Kill{})
	b.grow(layout.Change{Grown: b.enlarge(832, 0)})
	b.boot(layoutrun.Kill{})
	b.holds()
}

// TestDisksThatGrewGetASliceMore lets two virtual disks of a mirror grow.
func TestDisksThatGrewGetASliceMore(t *testing.T) {
	slow(t)
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(256), b.disk(256))
	b.boot(layoutrun.Kill{})
	b.grow(layout.Change{Grown: b.enlarge(384, 0, 1)})
	b.boot(layoutrun.Kill{})
	b.holds()
}

// TestADiskIsReplacedWithoutAFreeBay takes the old disk out of all its arrays first.
func TestADiskIsReplacedWithoutAFreeBay(t *testing.T) {
	slow(t)
	b := newBench(t)
	p := layout.Policy{Tolerance: 1, Bays: 3, AllowDegraded: true}
	b.create(p, "ext4", b.disk(256), b.disk(320), b.disk(320))
	b.grow(layout.Change{Replace: []layout.Replacement{{Old: "HF-0002", New: b.disk(384)}}})
	b.boot(layoutrun.Kill{})
	b.holds()
}
