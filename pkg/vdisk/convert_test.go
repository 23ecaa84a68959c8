package vdisk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

const mib = 1 << 20

// rawDisk makes a raw disk of size bytes with data in some places: at both ends, alone in a block, over borders.
func rawDisk(t testing.TB, folder string, size int64, seed uint64) string {
	t.Helper()
	path := filepath.Join(folder, "raw.img")
	file, err := os.Create(path)
	must(t, err)
	defer func() { must(t, file.Close()) }()
	must(t, file.Truncate(size))
	random := rand.New(rand.NewPCG(seed, 1))
	places := [][2]int64{{0, 512}, {size - 4096, 4096}, {mib - 4096, 8192}, {3*mib + 512, 512}, {5 * mib, 3 * mib}}
	for range 20 {
		at := random.Int64N(size - 300<<10)
		places = append(places, [2]int64{at / 512 * 512, 512 * (1 + random.Int64N(500))})
	}
	for _, p := range places {
		for at, end := p[0], min(p[0]+p[1], size); at < end; {
			from := random.IntN(len(noise()) / 2)
			n, err := file.WriteAt(noise()[from:][:min(end-at, int64(len(noise())/2))], at)
			must(t, err)
			at += int64(n)
		}
	}
	return path
}

// noise is data that can be compressed a little.
var noise = sync.OnceValue(func() []byte {
	random := rand.New(rand.NewPCG(7, 7))
	data := make([]byte, mib)
	for n := range data {
		data[n] = byte(random.Uint32() >> (random.Uint32() % 8))
	}
	return data
})

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tool runs an oracle, or skips the test without it.
func tool(t testing.TB, argv ...string) string {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("%s is not installed: `make deps` does that", argv[0])
	}
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func digest(t testing.TB, d content.Disk) string {
	t.Helper()
	sum := sha256.New()
	_, err := io.Copy(sum, io.NewSectionReader(d, 0, d.Size()))
	must(t, err)
	return hex.EncodeToString(sum.Sum(nil))
}

func open(t testing.TB, path string) *vdisk.Image {
	t.Helper()
	i, err := vdisk.Open(path, vdisk.Options{})
	must(t, err)
	t.Cleanup(func() { _ = i.Close() })
	return i
}

func convert(t testing.TB, from, to string, target vdisk.Target) {
	t.Helper()
	target.Path = to
	must(t, vdisk.Convert(t.Context(), open(t, from), target, nil))
}

var targets = map[string]vdisk.Target{
	"vdi":                   {Format: vdisk.VDI},
	"vmdk monolithicSparse": {Format: vdisk.VMDK},
	"vmdk streamOptimized":  {Format: vdisk.VMDK, Subformat: "streamOptimized"},
	"raw":                   {Format: vdisk.Raw},
}

// sizes: whole blocks, not even whole grains, more than one table.
var sizes = []int64{12 * mib, 9*mib + 5*512, 40*mib + 64<<10}

func TestWhatIsWrittenIsWhatOthersRead(t *testing.T) {
	for name, target := range targets {
		for _, size := range sizes {
			t.Run(fmt.Sprintf("%s of %d", name, size), func(t *testing.T) {
				folder := t.TempDir()
				source := rawDisk(t, folder, size, uint64(size))
				made := filepath.Join(folder, "한국어 디스크."+string(target.Format))
				convert(t, source, made, target)
				i := open(t, made)
				if i.Size() != size || digest(t, i) != digest(t, open(t, source)) {
					t.Error("read back, it is another disk")
				}
				damage, counts, err := i.Check(10)
				if must(t, err); len(damage)+len(counts) > 0 {
					t.Errorf("check: %q %q", damage, counts)
				}
				tool(t, "qemu-img", "compare", "-f", "raw", "-F", string(target.Format), source, made)
				if target.Format != vdisk.Raw {
					tool(t, "qemu-img", "check", made)
				}
			})
		}
	}
}

func TestWhatOthersWriteIsRead(t *testing.T) {
	for _, format := range []string{
		"vdi", "vdi static=on", "vmdk subformat=monolithicSparse", "vmdk subformat=streamOptimized", "vmdk subformat=twoGbMaxExtentSparse",
		"vmdk subformat=twoGbMaxExtentFlat", "vmdk subformat=monolithicFlat", "vmdk subformat=monolithicSparse,zeroed_grain=on", "qcow2", "raw",
	} {
		for _, size := range sizes {
			if format == "vdi" || format == "vdi static=on" {
				size = size / 512 * 512
			}
			t.Run(fmt.Sprintf("%s of %d", format, size), func(t *testing.T) {
				folder := t.TempDir()
				source := rawDisk(t, folder, size, uint64(size))
				kind, options, _ := strings.Cut(format, " ")
				made := filepath.Join(folder, "made."+kind)
				argv := []string{"qemu-img", "convert", "-f", "raw", "-O", kind, source, made}
				if options != "" {
					argv = append(argv, "-o", options)
				}
				tool(t, argv...)
				i := open(t, made)
				want := open(t, source)
				got := content.Resized(i, size) // QEMU rounds some up
				if digest(t, got) != digest(t, want) {
					t.Errorf("another disk, of %d bytes", i.Size())
				}
				damage, _, err := i.Check(10)
				if must(t, err); len(damage) > 0 {
					t.Errorf("check: %q", damage)
				}
				again := filepath.Join(folder, "again.vdi")
				convert(t, made, again, targets["vdi"])
				tool(t, "qemu-img", "compare", "-f", kind, "-F", "vdi", made, again)
			})
		}
	}
}

func TestADiskIsReadAtAnyOffset(t *testing.T) {
	folder := t.TempDir()
	source := rawDisk(t, folder, sizes[1], 3)
	want, err := os.ReadFile(source)
	must(t, err)
	for name, target := range targets {
		made := filepath.Join(folder, strings.ReplaceAll(name, " ", "-")+"."+string(target.Format))
		convert(t, source, made, target)
		i := open(t, made)
		random := rand.New(rand.NewPCG(1, 2))
		for range 300 {
			off := random.Int64N(i.Size())
			p := make([]byte, 1+random.Int64N(200<<10))
			n, err := i.ReadAt(p, off)
			if rest := i.Size() - off; int64(n) != min(int64(len(p)), rest) || (int64(n) < int64(len(p))) != (err == io.EOF) || n == len(p) && err != nil { //nolint:errorlint // io.ReaderAt returns it bare
				t.Fatalf("%s: read %d of %d bytes at %d: %v", name, n, len(p), off, err)
			}
			if !bytes.Equal(p[:n], want[off:off+int64(n)]) {
				t.Fatalf("%s: %d bytes at %d differ", name, n, off)
			}
		}
	}
}

func TestALargerCopyHasZerosAtItsEnd(t *testing.T) {
	folder := t.TempDir()
	source := rawDisk(t, folder, sizes[1], 4)
	for name, target := range targets {
		made := filepath.Join(folder, strings.ReplaceAll(name, " ", "-")+"."+string(target.Format))
		target.Size = 64 * mib
		convert(t, source, made, target)
		i := open(t, made)
		if i.Size() != 64*mib || digest(t, i) != digest(t, content.Resized(open(t, source), 64*mib)) {
			t.Errorf("%s: another disk", name)
		}
	}
}
