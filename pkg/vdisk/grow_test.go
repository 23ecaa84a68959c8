package vdisk_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vdi"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vdisktest"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vmdk"
)

// growable makes images that grow in place, by name.
var growable = map[string]struct {
	argv   []string // of qemu-img convert; none: our own
	target vdisk.Target
}{
	"our VDI":     {target: targets["vdi"]},
	"QEMU's VDI":  {argv: []string{"-O", "vdi"}},
	"a fixed VDI": {argv: []string{"-O", "vdi", "-o", "static=on"}},
	"our VMDK":    {target: targets["vmdk monolithicSparse"]},
	"QEMU's VMDK": {argv: []string{"-O", "vmdk"}},
	"flat VMDK":   {argv: []string{"-O", "vmdk", "-o", "subformat=monolithicFlat"}},
	"raw":         {target: targets["raw"]},
}

func makeGrowable(t *testing.T, name, source string) string {
	t.Helper()
	how := growable[name]
	kind := "vmdk"
	if strings.Contains(name, "VDI") {
		kind = "vdi"
	} else if name == "raw" {
		kind = "img"
	}
	made := filepath.Join(t.TempDir(), "made."+kind)
	if how.argv != nil {
		tool(t, append(append([]string{"qemu-img", "convert", "-f", "raw"}, how.argv...), source, made)...)
	} else {
		convert(t, source, made, how.target)
	}
	return made
}

func TestAGrownImageHoldsTheSameAndZerosBehind(t *testing.T) {
	for name := range growable {
		for _, size := range sizes[1:] {
			for _, larger := range []int64{size + 512, size + 100*mib, 400 << 30} {
				if name == "a fixed VDI" && larger > 1<<30 || name == "QEMU's VMDK" && size != sizes[1] {
					continue // all of it would be allocated; the same for each size, and slow
				}
				t.Run(fmt.Sprintf("%s from %d to %d", name, size, larger), func(t *testing.T) {
					source := rawDisk(t, t.TempDir(), size, uint64(size))
					made := makeGrowable(t, name, source)
					before := open(t, made)
					if larger < before.Size() {
						larger = before.Size() + 512 // QEMU rounds some up
					}
					want := digest(t, before)
					if err := vdisk.Grow(made, vdisk.Options{}, larger); !errors.Is(err, fault.Busy) {
						t.Errorf("grown while it is read: %v", err)
					}
					must(t, before.Close())
					must(t, vdisk.Grow(made, vdisk.Options{}, larger))
					i := open(t, made)
					if i.Size() != larger || digest(t, content.Resized(i, before.Size())) != want {
						t.Fatalf("another disk, of %d bytes", i.Size())
					}
					if s, err := i.Span(before.Size()); err != nil || s.Kind == content.Data && name != "a fixed VDI" && larger > size+512 && s.Length > mib {
						t.Errorf("behind the old end is %+v, %v", s, err)
					}
					damage, counts, err := i.Check(10)
					if must(t, err); len(damage)+len(counts) > 0 {
						t.Errorf("check: %q %q", damage, counts)
					}
					if name != "raw" {
						tool(t, "qemu-img", "check", made)
						tool(t, "qemu-img", "compare", "-f", "raw", source, made)
					}
				})
			}
		}
	}
}

// small is a disk of a few blocks, with data in the first and the last.
func small(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "small.img")
	data := make([]byte, size)
	for _, at := range []int64{0, size - 700, size / 2} {
		for n := range int64(600) {
			data[at+n] = byte(n*7 + at)
		}
	}
	must(t, os.WriteFile(path, data, 0o600))
	return path
}

// Between any two operations of the growth the machine crashes, with any of the writes that were not synced.
func TestAGrowthThatIsCutOffLeavesTheOldDiskOrTheNew(t *testing.T) {
	type grow func(vdisktest *vdisktest.File, length, size int64) error
	ways := map[string]grow{
		"VDI":  func(f *vdisktest.File, length, size int64) error { return vdi.Grow(f, length, size) },
		"VMDK": func(f *vdisktest.File, length, size int64) error { return vmdk.Grow(f, length, size) },
	}
	for _, name := range []string{"our VDI", "QEMU's VDI", "a fixed VDI", "our VMDK", "QEMU's VMDK"} {
		for _, larger := range []int64{3 * mib, 4 << 30, 300 << 30} {
			if name == "a fixed VDI" && larger > 1<<30 || name == "our VDI" && larger < 1<<30 || name != "our VDI" && larger > 8<<30 || strings.Contains(name, "QEMU") && larger < 1<<30 {
				continue // slow, or nothing is moved
			}
			t.Run(fmt.Sprintf("%s to %d", name, larger), func(t *testing.T) {
				kind := name[strings.LastIndex(name, " ")+1:]
				made := makeGrowable(t, name, small(t, 2*mib+1024))
				old, err := os.ReadFile(made)
				must(t, err)
				was := open(t, made)
				want := digest(t, was)
				run := func(at int) *vdisktest.File {
					f := vdisktest.New(old)
					f.CrashAt = at
					if err := ways[kind](f, int64(len(old)), larger); (at == 0 || err != nil) && !errors.Is(err, map[bool]error{true: vdisktest.Crash}[at > 0]) {
						t.Fatalf("crash at %d: %v", at, err)
					}
					return f
				}
				steps := run(0).Steps
				seed := rand.Uint64()
				t.Logf("%d steps, seed %d", steps, seed)
				chance := rand.New(rand.NewPCG(seed, 0))
				for at := 1; at <= steps; at++ {
					f := run(at)
					for try := range 3 {
						left := f.After(nil)
						if try > 0 {
							left = f.After(chance)
						}
						checkCut(t, fmt.Sprintf("step %d, try %d", at, try), kind, left, want, was.Size(), was.Size(), larger)
						again := vdisktest.New(left)
						if err := ways[kind](again, int64(len(left)), larger); err != nil {
							t.Fatalf("step %d, try %d: it cannot be grown again: %v", at, try, err)
						}
						checkCut(t, fmt.Sprintf("step %d, try %d, grown again", at, try), kind, again.Bytes(), want, was.Size(), larger)
						if kind == "VMDK" && binary.LittleEndian.Uint64(again.Bytes()[28:]) != 1 {
							t.Fatalf("step %d, try %d: the descriptor is not where QEMU looks for it", at, try)
						}
					}
				}
			})
		}
	}
}

// checkCut sees that an image has one of the sizes, and what the old one, of old bytes, held.
func checkCut(t *testing.T, at, kind string, image []byte, want string, old int64, sizes ...int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cut."+strings.ToLower(kind))
	must(t, os.WriteFile(path, image, 0o600))
	i := open(t, path)
	defer func() { must(t, i.Close()) }()
	if !slices.Contains(sizes, i.Size()) {
		t.Fatalf("%s: the disk has %d bytes", at, i.Size())
	}
	if digest(t, content.Resized(i, old)) != want {
		t.Fatalf("%s: another disk", at)
	}
	damage, _, err := i.Check(5)
	if must(t, err); len(damage) > 0 {
		t.Fatalf("%s: %q", at, damage)
	}
	must(t, os.Remove(path))
}

func TestWhatCannotGrowIsRefused(t *testing.T) {
	source := rawDisk(t, t.TempDir(), sizes[0], 1)
	stream := filepath.Join(t.TempDir(), "s.vmdk")
	convert(t, source, stream, targets["vmdk streamOptimized"])
	vdiPath := filepath.Join(t.TempDir(), "s.vdi")
	convert(t, source, vdiPath, targets["vdi"])
	for name, c := range map[string]struct {
		path  string
		size  int64
		class error
		say   string
	}{
		"a stream":   {stream, 1 << 30, fault.Unsupported, "image convert"},
		"smaller":    {vdiPath, mib, fault.Range, "only grows"},
		"odd":        {vdiPath, 1<<30 + 1, fault.Invalid, "sectors"},
		"far larger": {vdiPath, 1 << 50, fault.Range, "at most"},
	} {
		before, err := os.ReadFile(c.path)
		must(t, err)
		err = vdisk.Grow(c.path, vdisk.Options{}, c.size)
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
		after, err := os.ReadFile(c.path)
		if must(t, err); string(before) != string(after) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// A disk of which a virtual machine has QEMU's locks is left alone.
func TestADiskInUseByQEMUDoesNotGrow(t *testing.T) {
	source := rawDisk(t, t.TempDir(), sizes[0], 1)
	for _, name := range []string{"our VDI", "our VMDK", "raw"} {
		made := makeGrowable(t, name, source)
		format := map[bool]string{true: "raw", false: strings.ToLower(name[strings.LastIndex(name, " ")+1:])}[name == "raw"]
		cmd := exec.Command("qemu-io", "-f", format, made)
		input, err := cmd.StdinPipe()
		must(t, err)
		output, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = input.Write([]byte("length\n"))
		must(t, err)
		_, err = output.Read(make([]byte, 100)) // it is open
		must(t, err)
		for what, grow := range map[string]func(string, vdisk.Options, int64) error{"grow": vdisk.Grow, "a dry run": vdisk.Growable} {
			if err := grow(made, vdisk.Options{}, 1<<30); !errors.Is(err, fault.Busy) || !strings.Contains(err.Error(), "virtual machine") {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		must(t, input.Close())
		must(t, cmd.Wait())
		before, err := os.ReadFile(made)
		must(t, err)
		must(t, vdisk.Growable(made, vdisk.Options{}, 1<<30))
		after, err := os.ReadFile(made)
		if must(t, err); string(before) != string(after) {
			t.Errorf("%s: a dry run changed it", name)
		}
		must(t, vdisk.Grow(made, vdisk.Options{}, 1<<30))
	}
}

func TestWhatADeadProcessLeftIsRemoved(t *testing.T) {
	folder := t.TempDir()
	source := rawDisk(t, t.TempDir(), sizes[0], 1)
	dead, alive, other := filepath.Join(folder, ".made.vdi.partial-1"), filepath.Join(folder, ".made.vdi.partial-2"), filepath.Join(folder, ".other.vdi.partial-3")
	for _, path := range []string{dead, alive, other} {
		must(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	file, err := os.Open(alive)
	must(t, err)
	defer file.Close()
	must(t, unix.Flock(int(file.Fd()), unix.LOCK_EX))
	convert(t, source, filepath.Join(folder, "made.vdi"), targets["vdi"])
	for path, want := range map[string]bool{dead: false, alive: true, other: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}
