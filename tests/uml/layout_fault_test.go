package uml_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

// cached turns the disks into files behind a cache in the guest's memory, which is lost when the guest is killed. All of them
// lie on one disk of the kernel.
func (b *bench) cached() {
	b.t.Helper()
	size := int64(256) << 20 // for the file system that they are files of
	for _, d := range b.job.Disks {
		size += int64(d.Size)
	}
	path := filepath.Join(b.dir, "store")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.job.Fabric, b.machine.Disks = "cached", []uml.Disk{{Path: path, Serial: "STORE"}}
}

// TestADiskIsPulledInAReshape pulls a disk while md reshapes: the data stay online, the plan stops and says why, and
// goes on when the disk is back.
func TestADiskIsPulledInAReshape(t *testing.T) {
	slow(t)
	b := newBench(t)
	mirrorThenFour(b)
	b.cached()
	b.job.Limit = 24 * storage.MiB
	b.job.Pull, b.job.PullDisk = b.step(1, string(stack.KindReshape)), "HF-0002"
	b.job.Pull.Fraction = 0.2
	b.boot(layoutrun.Kill{})
	if r := b.holds(); !strings.Contains(r.Stopped, "HF-0002") {
		t.Errorf("the plan did not stop for the disk: %q", r.Stopped)
	}
}

// TestADiskThatWasAwayGetsWhatItMissed pulls a disk of a mirror for a moment: by the bitmap it needs little of its data.
func TestADiskThatWasAwayGetsWhatItMissed(t *testing.T) {
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(512), b.disk(512))
	b.cached()
	b.job.Plans = append(b.job.Plans, b.job.Plans[0]) // completed by then: only the fault happens
	b.job.Faults = map[int][]layoutrun.Fault{1: {{Kind: "glitch", Disk: "HF-0002"}}}
	b.boot(layoutrun.Kill{})
	r, size := b.holds(), b.stack.Arrays[0].Size
	if r.Refilled == 0 || r.Refilled > size/2 {
		t.Errorf("%s of %s were written to the disk that came back", r.Refilled, size)
	}
	t.Logf("%s of %s were written to the disk that came back", r.Refilled, size)
}

// TestADiskThatFailsIsReplaced lets all requests to a disk fail under load, then replaces it.
func TestADiskThatFailsIsReplaced(t *testing.T) {
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(256), b.disk(256), b.disk(256))
	b.grow(layout.Change{Replace: []layout.Replacement{{Old: "HF-0003", New: b.disk(256)}}})
	b.job.Fabric = "breakable"
	b.job.Faults = map[int][]layoutrun.Fault{1: {{Kind: "break", Disk: "HF-0003"}}}
	b.boot(layoutrun.Kill{})
	b.holds()
}

// TestSectorsThatRotAreMended makes sectors of a disk unreadable before it is reshaped: what they held comes from the other disks, they are
// written again, and the disk stays. What the reshape does not read, the scrub does.
func TestSectorsThatRotAreMended(t *testing.T) {
	slow(t)
	b := newBench(t)
	mirrorThenFour(b)
	b.job.Fabric = "breakable"
	b.job.Faults = map[int][]layoutrun.Fault{1: {{Kind: "rot", Disk: "HF-0002"}}}
	b.boot(layoutrun.Kill{})
	r := b.holds()
	t.Logf("%d of %d sectors are unreadable in the end", r.Rotten, len(layoutrun.RottenAt()))
	if r.Rotten > 0 {
		t.Errorf("%d of %d sectors are unreadable in the end", r.Rotten, len(layoutrun.RottenAt()))
	}
}

// TestASuccessorThatFilledAnotherPlaceCostsNobodyHis lets a disk fail when the new one is a spare already and not yet a copy, as
// after a crash: md fills the wrong place with it, and the healthy disk that it was for stays.
func TestASuccessorThatFilledAnotherPlaceCostsNobodyHis(t *testing.T) {
	slow(t)
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(256), b.disk(256), b.disk(256))
	b.job.Fabric = "breakable"
	b.boot(layoutrun.Kill{})
	b.grow(layout.Change{Replace: []layout.Replacement{{Old: "HF-0001", New: b.disk(256)}}})
	b.boot(layoutrun.Kill{Append: 3*b.step(1, string(stack.KindReplace)).Step + 1}) // three writes a step
	b.job.Faults = map[int][]layoutrun.Fault{1: {{Kind: "spare", Disk: "HF-0004"}, {Kind: "break", Disk: "HF-0003"}}}
	b.refused = "has taken the place of another member"
	if got := b.boot(layoutrun.Kill{}); !strings.Contains(got, "[3/3] [UUU]") {
		t.Errorf("the array lacks a member: %s", got)
	}
}

// TestADiskThatIsGoneAfterABootIsReplaced boots without a disk: the stack comes up all the same.
func TestADiskThatIsGoneAfterABootIsReplaced(t *testing.T) {
	slow(t)
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(256), b.disk(256), b.disk(256))
	b.boot(layoutrun.Kill{})
	b.grow(layout.Change{Replace: []layout.Replacement{{Old: "HF-0002", New: b.disk(256)}}})
	b.machine.Disks = append(b.machine.Disks[:1], b.machine.Disks[2:]...)
	b.boot(layoutrun.Kill{})
	b.holds()
}

// TestTheOldHalfOfAMirrorDoesNotStart boots with one half of a mirror, then with the other, which lacks what was written.
func TestTheOldHalfOfAMirrorDoesNotStart(t *testing.T) {
	slow(t)
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(256), b.disk(256))
	b.boot(layoutrun.Kill{})
	both := b.machine.Disks
	b.machine.Disks = both[:1]
	b.boot(layoutrun.Kill{})
	b.machine.Disks, b.refused = both[1:], "they lack what was written without them"
	if got := b.boot(layoutrun.Kill{}); !strings.Contains(got, b.refused) {
		t.Errorf("the old half was started: %q", got)
	}
	b.machine.Disks, b.refused = both, ""
	b.boot(layoutrun.Kill{})
}

// TestTwoDisksThatFailAreReplaced lets two of four disks fail under load, then replaces both.
func TestTwoDisksThatFailAreReplaced(t *testing.T) {
	slow(t)
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 2}, "ext4", b.disk(256), b.disk(256), b.disk(256), b.disk(256))
	b.grow(layout.Change{Replace: []layout.Replacement{{Old: "HF-0003", New: b.disk(256)}, {Old: "HF-0001", New: b.disk(256)}}})
	b.job.Fabric = "breakable"
	b.job.Faults = map[int][]layoutrun.Fault{1: {{Kind: "break", Disk: "HF-0001"}, {Kind: "break", Disk: "HF-0003"}}}
	b.boot(layoutrun.Kill{})
	b.holds()
}

// TestADiskThatServesIsCopiedBeforeAnotherThatFailedIsReplaced plans the replacement of a healthy disk before that of one
// that then fails: the first new disk takes the place of the healthy one, not that of the failed one.
func TestADiskThatServesIsCopiedBeforeAnotherThatFailedIsReplaced(t *testing.T) {
	slow(t)
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(256), b.disk(256), b.disk(256))
	b.grow(layout.Change{Replace: []layout.Replacement{{Old: "HF-0001", New: b.disk(256)}, {Old: "HF-0002", New: b.disk(256)}}})
	b.job.Fabric = "breakable"
	b.job.Faults = map[int][]layoutrun.Fault{1: {{Kind: "break", Disk: "HF-0002"}}}
	b.boot(layoutrun.Kill{})
	b.holds()
}

// TestAPowerCutLosesWhatWasNotFlushed shows that such disks have a cache that is lost, or TestPowerCuts would show nothing.
func TestAPowerCutLosesWhatWasNotFlushed(t *testing.T) {
	b := newBench(t)
	b.create(layout.Policy{Tolerance: 1}, "ext4", b.disk(256))
	b.cached()
	b.job.Faults = map[int][]layoutrun.Fault{0: {{Kind: "unflushed", Disk: "HF-0001"}}}
	if died := b.boot(layoutrun.Kill{}); died != "unflushed" {
		t.Fatalf("it died by %q", died)
	}
	b.job.Faults = map[int][]layoutrun.Fault{0: {{Kind: "kept", Disk: "HF-0001"}}}
	kept := b.boot(layoutrun.Kill{})
	t.Logf("%s of %d bytes were kept", kept, layoutrun.Unflushed)
	if kept == "" || kept == strconv.Itoa(layoutrun.Unflushed) {
		t.Error("all of it is there: the disk has no cache")
	}
}

// TestPowerCuts kills the guest in a reshape and over the journal, with disks whose caches are lost.
func TestPowerCuts(t *testing.T) {
	random := seed(t)
	b := newBench(t)
	mirrorThenFour(b)
	b.cached()
	b.job.Limit = 12 * storage.MiB
	cuts := 1
	if all() {
		cuts = 12
	}
	for range cuts {
		kill := layoutrun.Kill{Append: 1 + random.IntN(20), Before: random.IntN(2) == 0}
		if random.IntN(2) == 0 {
			kill = b.step(1, string(stack.KindReshape))
			kill.Fraction = 0.05 + 0.9*random.Float64()
		}
		died := b.boot(kill)
		t.Logf("power cut: %q", died)
		if died == "" {
			break
		}
	}
	b.job.Limit = 0
	b.boot(layoutrun.Kill{})
	b.holds()
}
