package vdisk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// A disk of 3 TiB has places that 32 bits of sectors do not reach.
func TestADiskOfMoreThan2TiBKeepsWhatIsAtItsEnd(t *testing.T) {
	folder := t.TempDir()
	const size = 3 << 40
	source := filepath.Join(folder, "large.img")
	file, err := os.Create(source)
	must(t, err)
	must(t, file.Truncate(size))
	for _, at := range []int64{0, 2<<40 - 512, size - mib} {
		_, err := file.WriteAt(noise()[:mib], at)
		must(t, err)
	}
	must(t, file.Close())
	for name, target := range targets {
		made := filepath.Join(folder, "made."+string(target.Format))
		target.Overwrite = true
		convert(t, source, made, target)
		i := open(t, made)
		p := make([]byte, mib)
		for _, at := range []int64{0, 2<<40 - 512, size - mib} {
			if _, err := i.ReadAt(p, at); err != nil || !bytes.Equal(p, noise()[:mib]) {
				t.Errorf("%s: at %d: %v", name, at, err)
			}
		}
		if allocated, err := i.Allocated(); err != nil || allocated > 8*mib {
			t.Errorf("%s: %d bytes are data, %v", name, allocated, err)
		}
		must(t, i.Close())
	}
}

// vdiBytes reads an image's file.
func vdiBytes(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

// A differencing VDI names its parent by the parent's UUID; its holes are the parent's, its zeros its own.
func TestADifferencingVDIShowsTheImageWithTheParentsUUID(t *testing.T) {
	folder := t.TempDir()
	source := rawDisk(t, folder, 8*mib, 2)
	base := filepath.Join(folder, "base.vdi")
	convert(t, source, base, targets["vdi"])
	baseBytes := vdiBytes(t, base)

	child := bytes.Clone(baseBytes[:2*mib+mib]) // header, map, one block
	le := binary.LittleEndian
	le.PutUint32(child[0x4c:], 4)
	le.PutUint32(child[0x184:], 1)
	copy(child[0x1a8:], baseBytes[0x188:0x198])
	copy(child[0x188:], bytes.Repeat([]byte{7}, 16))
	for n := range 8 {
		le.PutUint32(child[mib+4*n:], 0xffffffff)
	}
	le.PutUint32(child[mib+4*3:], 0)
	le.PutUint32(child[mib+4*5:], 0xfffffffe)
	copy(child[2*mib:], bytes.Repeat([]byte("diff"), mib/4))
	path := filepath.Join(folder, "차분.vdi")
	must(t, os.WriteFile(path, child, 0o600))

	want, err := os.ReadFile(source)
	must(t, err)
	copy(want[3*mib:], bytes.Repeat([]byte("diff"), mib/4))
	clear(want[5*mib : 6*mib])
	i := open(t, path)
	got := make([]byte, i.Size())
	if _, err := i.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) || len(i.Parents) != 1 {
		t.Errorf("another disk, parents %v, %v", i.Parents, err)
	}
	if s, err := i.Span(5 * mib); err != nil || s.Kind != content.Zero {
		t.Errorf("%+v, %v", s, err)
	}
	must(t, os.Remove(base))
	if _, err := vdisk.Open(path, vdisk.Options{}); !errors.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
}
