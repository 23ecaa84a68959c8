package standalone

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// loopDisk makes a disk of a file, with a by-id name as udev would give it.
func loopDisk(t *testing.T, name string) (link, dev string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 2<<30); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v\n%s", err, out)
	}
	dev = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v\n%s", err, out)
		}
	})
	if err := os.MkdirAll("/dev/disk/by-id", 0o755); err != nil {
		t.Fatal(err)
	}
	link = filepath.Join("/dev/disk/by-id", "holdfast-test-"+filepath.Base(t.TempDir())+name)
	_ = os.Remove(link)
	if err := os.Symlink(dev, link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(link) })
	return link, dev
}

func TestRawDisks(t *testing.T) {
	need(t)
	link, dev := loopDisk(t, "d0")
	other, _ := loopDisk(t, "d1")
	c := newCluster(t)
	tool := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	zero := func(mib string) {
		tool("dd", "if=/dev/zero", "of="+dev, "bs=1M", "count=8", "seek="+mib, "conv=notrunc")
	}

	t.Run("a disk with a file system is refused", func(t *testing.T) {
		tool("mkfs.ext4", "-q", dev)
		c.refused([]string{link, "refused", "nothing was written", "ext4"}, "up", "--disk", link)
		t.Run("and a mounted one all the more", func(t *testing.T) {
			point := t.TempDir()
			tool("mount", dev, point)
			defer tool("umount", point)
			c.refused([]string{"mounted at " + point}, "up", "--disk", link)
		})
		tool("wipefs", "--all", "--quiet", dev)
		zero("0")
	})
	t.Run("a disk with anything at its end is refused", func(t *testing.T) {
		tool("sh", "-c", "echo backup | dd of="+dev+" bs=512 seek=4194303 conv=notrunc")
		c.refused([]string{"not blank"}, "up", "--disk", link)
		zero("2040")
	})
	t.Run("the same disk twice is refused", func(t *testing.T) {
		c.refused([]string{"same disk"}, "up", "--disk", link, "--disk", link)
	})
	t.Run("blank disks become OSDs, and their data comes back", func(t *testing.T) {
		c.must("up", "--no-csi", "--disk", link, "--disk", other)
		if st := requireHealthy(t, c); st.OSDs.Up != 2 || st.OSDs.List[0].Store != link {
			t.Errorf("OSDs: %+v", st.OSDs)
		}
		c.put("kept", "on a disk")
		c.must("down")
		c.must("up")
		if got := c.get("kept"); got != "on a disk" {
			t.Errorf("read %q", got)
		}
	})
	t.Run("wiping the cluster leaves its disks alone, and they are not taken again", func(t *testing.T) {
		c.must("down", "--wipe", "--yes")
		c.refused([]string{"refused"}, "up", "--disk", link)
	})
}
