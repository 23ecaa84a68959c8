package vdisk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/vdisk"
)

// On XFS a raw copy shares its blocks with the source: there is no room for two.
func TestARawCopySharesBlocksWhereItCan(t *testing.T) {
	if _, err := exec.LookPath("mkfs.xfs"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and xfsprogs")
	}
	image, at := filepath.Join(t.TempDir(), "xfs.img"), t.TempDir()
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 400*mib))
	tool(t, "mkfs.xfs", "-q", image)
	device := strings.TrimSpace(tool(t, "losetup", "--find", "--show", image))
	defer func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}()
	if err := unix.Mount(device, at, "xfs", 0, ""); err != nil {
		t.Skipf("this kernel mounts no XFS: %v", err)
	}
	defer func() { must(t, unix.Unmount(at, 0)) }()
	source, made := filepath.Join(at, "source.img"), filepath.Join(at, "made.img")
	data := make([]byte, 220*mib)
	for n := range data {
		data[n] = byte(n * 7)
	}
	must(t, os.WriteFile(source, data, 0o600))
	i := open(t, source)
	must(t, vdisk.Convert(t.Context(), i, vdisk.Target{Path: made, Format: vdisk.Raw, Size: 300 * mib}, nil))
	must(t, i.Close())
	grown := open(t, made)
	defer func() { must(t, grown.Close()) }()
	if grown.Size() != 300*mib {
		t.Errorf("%d bytes", grown.Size())
	}
	tool(t, "cmp", "-n", "230686720", source, made)
}
