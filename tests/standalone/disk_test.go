package standalone

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
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
		c.refused([]string{"refused", "ceph_bluestore"}, "up", "--disk", link)
	})
	t.Run("until what the refusal says is done", func(t *testing.T) {
		out, _ := c.run("up", "--disk", link)
		for line := range strings.Lines(out) {
			if words := strings.Fields(line); strings.HasPrefix(line, "  ") && len(words) > 1 {
				tool(words...)
			}
		}
		c.must("up", "--no-csi", "--disk", link)
		requireHealthy(t, c)
		c.must("down")
	})
	t.Run("a disk that was used for something else before its OSD was made is refused", func(t *testing.T) {
		half(t, c)
		zero("0")
		tool("mkfs.ext4", "-q", dev)
		c.refused([]string{link, "nothing was written", "ext4"}, "up")
		tool("e2fsck", "-fn", dev)
	})
}

// half makes the cluster look as one whose first `up` was cut off while it made osd.0.
func half(t *testing.T, c *cluster) {
	t.Helper()
	path := localapi.StateFile(c.dir)
	var state map[string]any
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	state["formed"] = false
	if err == nil {
		data, err = json.Marshal(state)
	}
	err = errors.Join(err, os.WriteFile(path, data, 0o600), os.Remove(filepath.Join(c.dir, "osd.0", "holdfast-made")))
	if err != nil {
		t.Fatal(err)
	}
}
