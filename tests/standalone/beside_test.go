package standalone

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTwoClustersSideBySide(t *testing.T) {
	one, two := newCluster(t), newCluster(t)
	one.must("up", "--osds", "1", "--osd-size", "1GiB", "--no-csi")
	two.must("up", "--osds", "1", "--osd-size", "1GiB", "--no-csi")
	first, second := requireHealthy(t, one), requireHealthy(t, two)
	if first.FSID == second.FSID {
		t.Error("both have one fsid")
	}
	one.put("whose", "one's")
	two.put("whose", "two's")
	if a, b := one.get("whose"), two.get("whose"); a != "one's" || b != "two's" {
		t.Errorf("read %q and %q", a, b)
	}
	one.must("down", "--wipe", "--yes")
	requireHealthy(t, two)
}

// TestCutOff kills the making of a cluster at many moments and lets the next `up` finish it.
func TestCutOff(t *testing.T) {
	c := newCluster(t)
	args := []string{"up", "--osds", "1", "--osd-size", "1GiB", "--no-csi"}
	for _, after := range []time.Duration{30, 150, 400, 1000, 2500} {
		cmd := c.command(c.holdfast, append(args, "--data-dir", c.dir)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after * time.Millisecond)
		c.killAll()
		_ = cmd.Wait()
	}
	c.must(args...)
	requireHealthy(t, c)
	c.put("kept", "x")
}

func TestVolumesInUseHoldDownBack(t *testing.T) {
	c := newCluster(t)
	c.must("up", "--osds", "1", "--osd-size", "2GiB")
	c.must("volume", "create", "held", "--size", "400MiB")
	c.must("volume", "create", "shared", "--type", "cephfs", "--size", "64MiB")
	points := map[string]string{"held": t.TempDir(), "shared": t.TempDir()}
	for name, point := range points {
		c.must("volume", "mount", name, point)
		if err := os.WriteFile(filepath.Join(point, "f"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.refused([]string{"in use", points["held"], points["shared"], "volume umount"}, "down")
	requireHealthy(t, c)
	c.must("down", "--force", "--wipe", "--yes")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), c.dir) || strings.Contains(string(mounts), points["held"]) || strings.Contains(string(mounts), points["shared"]) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
	if left := c.left(); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}
