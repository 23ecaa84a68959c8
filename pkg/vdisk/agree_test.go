package vdisk_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vdisktest"
)

// Readers that are nobody's relatives agree with what is written, also after it was grown in place.
func TestOtherReadersAgree(t *testing.T) {
	const size = 40*mib + 512
	source := rawDisk(t, t.TempDir(), size, 77)
	for name, kind := range map[string]string{"vdi": "vdi", "vmdk monolithicSparse": "vmdk", "vmdk streamOptimized": "vmdk"} {
		t.Run(name, func(t *testing.T) {
			made := filepath.Join(t.TempDir(), "made."+kind)
			convert(t, source, made, targets[name])
			agree(t, source, made, size, size)
			if name == "vmdk streamOptimized" {
				return
			}
			must(t, vdisk.Grow(made, vdisk.Options{}, 2*size))
			agree(t, source, made, size, 2*size)
		})
	}
}

// agree has 7-Zip unpack an image, and libvmdk look at it.
func agree(t *testing.T, source, made string, length, size int64) {
	t.Helper()
	kind := strings.TrimPrefix(filepath.Ext(made), ".")
	if _, err := exec.LookPath("7zz"); err != nil {
		t.Skip("needs 7zz (apt-get install 7zip)")
	}
	cmd := exec.CommandContext(t.Context(), "7zz", "e", "-so", "-t"+kind, made)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	got, want := sha256.New(), sha256.New()
	_, err = io.Copy(got, out)
	must(t, err)
	must(t, cmd.Wait())
	file, err := os.Open(source)
	must(t, err)
	defer file.Close()
	_, err = io.Copy(want, io.LimitReader(file, length))
	must(t, err)
	_, err = io.CopyN(want, zeros{}, size-length)
	must(t, err)
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Errorf("7zz reads another disk from %s", made)
	}
	if kind != "vmdk" {
		return
	}
	if _, err := exec.LookPath("vmdkinfo"); err != nil {
		t.Skip("needs vmdkinfo (apt-get install libvmdk-utils)")
	}
	if out := tool(t, "vmdkinfo", made); !strings.Contains(out, fmt.Sprintf("(%d bytes)", size)) {
		t.Errorf("vmdkinfo sees another size than %d:\n%s", size, out)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A flat disk is its descriptor and its file: between any two operations the machine crashes, and what is left is the old disk or
// the new one, and grows again. The descriptor changes by a rename, which a crash leaves done or not.
func TestAFlatGrowthThatIsCutOffLeavesTheOldDiskOrTheNew(t *testing.T) {
	const size, larger = 2*mib + 1024, 9 * mib
	made := makeGrowable(t, "flat VMDK", small(t, size))
	flat := strings.TrimSuffix(made, ".vmdk") + "-flat.vmdk"
	image := open(t, made)
	want := digest(t, image)
	must(t, image.Close())
	old, err := os.ReadFile(flat)
	must(t, err)
	oldText, err := os.ReadFile(made)
	must(t, err)
	must(t, vdisk.Grow(made, vdisk.Options{}, larger))
	newText, err := os.ReadFile(made)
	must(t, err)
	for _, c := range []struct {
		what   string
		before int // bytes behind the disk's end that were there
		text   []byte
		after  bool // the file is longer already
	}{
		{"nothing was done", 0, oldText, false}, {"the file is longer", 0, oldText, true}, {"all was done", 0, newText, true},
		{"nothing was done, with something behind the end", 3000, oldText, false}, {"the file is longer, with something that was behind the end", 3000, oldText, true},
	} {
		data := append(append([]byte{}, old...), make([]byte, c.before)...)
		for n := range c.before {
			data[len(old)+n] = 0xee
		}
		f := vdisktest.New(data)
		if c.after {
			must(t, f.Truncate(int64(len(old))))
			must(t, f.Truncate(larger))
		}
		must(t, os.WriteFile(flat, f.Bytes(), 0o600))
		must(t, os.WriteFile(made, c.text, 0o600))
		checkFlat(t, c.what, made, want, size)
		must(t, vdisk.Grow(made, vdisk.Options{}, larger))
		i := open(t, made)
		if i.Size() != larger {
			t.Errorf("%s: grown again it has %d bytes", c.what, i.Size())
		}
		behind := make([]byte, larger-size)
		if _, err := i.ReadAt(behind, size); err != nil || strings.Trim(string(behind), "\x00") != "" {
			t.Errorf("%s: behind the old end there is something, %v", c.what, err)
		}
		must(t, i.Close())
		checkFlat(t, c.what+", grown again", made, want, size)
	}
}

// checkFlat sees that a disk holds what the old one, of size bytes, held.
func checkFlat(t *testing.T, what, path, want string, size int64) {
	t.Helper()
	image := open(t, path)
	defer func() { must(t, image.Close()) }()
	if digest(t, content.Resized(image, size)) != want {
		t.Errorf("%s: another disk", what)
	}
}
