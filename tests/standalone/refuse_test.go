package standalone

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUpRefuses(t *testing.T) {
	c := newCluster(t)
	cases := []struct {
		name  string
		setup func(t *testing.T)
		args  []string
		want  []string
	}{
		{"a directory with something else in it", func(t *testing.T) {
			write(t, filepath.Join(c.dir, "diary.txt"))
		}, nil, []string{"is not empty", "diary.txt", "nothing was touched"}},
		{"a cluster.json of another program", func(t *testing.T) {
			write(t, filepath.Join(c.dir, "cluster.json"))
		}, nil, []string{"not Holdfast's", "choose another"}},
		{"a path that is too long for sockets", nil, []string{"--data-dir", "/var/tmp/" + strings.Repeat("x", 60)}, []string{"at most", "shorter"}},
		{"an even number of monitors", nil, []string{"--mons", "2"}, []string{"--mons 2", "1, 3 or 5"}},
		{"a listener for the whole world", nil, []string{"--listen", "0.0.0.0:9999"}, []string{"loopback"}},
		{"an address of another machine", nil, []string{"--ceph-addr", "192.0.2.1"}, []string{"192.0.2.1", "not an address of this machine"}},
		{"files and disks at once", nil, []string{"--osds", "3", "--disk", "/dev/disk/by-id/x"}, []string{"exclude each other"}},
		{"a disk by a name that changes", nil, []string{"--disk", "/dev/sda"}, []string{"/dev/disk/by-id"}},
		{"a disk that is not there", nil, []string{"--disk", "/dev/disk/by-id/no-such"}, []string{"no such disk"}},
		{"a tiny OSD", nil, []string{"--osd-size", "10MiB"}, []string{"at least 1 GiB"}},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c := &cluster{t: t, dir: c.dir, holdfast: c.holdfast}
			clean(t, c.dir)
			if test.setup != nil {
				test.setup(t)
			}
			if len(test.args) > 0 && test.args[0] == "--data-dir" {
				c.dir = test.args[1]
				test.args = nil
			}
			c.refused(test.want, append([]string{"up"}, test.args...)...)
			if _, err := os.Stat(filepath.Join(c.dir, "keys")); err == nil {
				t.Error("keys were made all the same")
			}
		})
	}
	t.Run("ports that are taken, naming who has them", func(t *testing.T) {
		clean(t, c.dir)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		port := listener.Addr().(*net.TCPAddr).Port
		c := &cluster{t: t, dir: c.dir, holdfast: c.holdfast}
		c.refused([]string{fmt.Sprintf("port %d", port), fmt.Sprintf("pid %d", os.Getpid())}, "up", "--port-base", fmt.Sprint(port))
	})
	t.Run("missing programs, naming the packages", func(t *testing.T) {
		clean(t, c.dir)
		bin := t.TempDir()
		for _, name := range []string{"holdfast", "holdfastd"} {
			source := filepath.Join(filepath.Dir(c.holdfast), name)
			if err := os.Symlink(source, filepath.Join(bin, name)); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(c.holdfast, "up", "--data-dir", c.dir)
		cmd.Env = append(os.Environ(), "PATH="+bin)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "apt-get install") || !strings.Contains(string(out), "ceph-mon") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	clean(t, c.dir)
}

func TestDownAndStatusOfNothing(t *testing.T) {
	c := newCluster(t)
	c.refused([]string{"no cluster"}, "down")
	c.refused([]string{"no cluster", "holdfast up"}, "status")
	c.refused([]string{"no cluster"}, "down", "--wipe", "--yes")
	if _, err := os.Stat(c.dir); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// clean empties the test's own directory.
func clean(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
}
