package realceph

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Own brings a cluster of the test's own up in dir, which it may break, and takes it
// down with the test.
func Own(t testing.TB, dir string, args ...string) Cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
	holdfast := Binary(t, "holdfast")
	down := func() ([]byte, error) {
		return exec.Command(holdfast, "down", "--data-dir", dir, "--wipe", "--yes", "--force").CombinedOutput()
	}
	_, _ = down()
	if out, err := exec.Command(holdfast, append([]string{"up", "--data-dir", dir}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("holdfast up: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := down(); err != nil {
			t.Errorf("holdfast down: %v\n%s", err, out)
		}
	})
	return open(t, dir)
}

// Parameters are the StorageClass parameters of a driver ("rbd", "cephfs").
func (c Cluster) Parameters(t testing.TB, driver string) map[string]string {
	t.Helper()
	var parameters map[string]string
	c.read(t, driver+"-params.yaml", &parameters)
	return parameters
}

// Secrets are the secrets by csi-sanity's names: CreateVolumeSecret and so on.
func (c Cluster) Secrets(t testing.TB) map[string]map[string]string {
	t.Helper()
	var secrets map[string]map[string]string
	c.read(t, "secrets.yaml", &secrets)
	return secrets
}

func (c Cluster) read(t testing.TB, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.Dir, "csi", name))
	if err == nil {
		err = yaml.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Tool runs one of Ceph's own programs (ceph, rados, rbd) as the administrator.
func (c Cluster) Tool(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := c.TryTool(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryTool is Tool for what may fail.
func (c Cluster) TryTool(argv ...string) (string, error) {
	cmd := exec.Command(argv[0], append([]string{"--conf", filepath.Join(c.Dir, "ceph.conf")}, argv[1:]...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), &toolError{argv, err, stderr.String()}
	}
	return string(out), nil
}

type toolError struct {
	argv   []string
	err    error
	stderr string
}

func (e *toolError) Error() string {
	return strings.Join(e.argv, " ") + ": " + e.err.Error() + "\n" + e.stderr
}

func (e *toolError) Unwrap() error { return e.err }

// imageObjects are the prefixes of what librbd keeps for each image.
var imageObjects = []string{"rbd_id.", "rbd_header.", "rbd_data.", "rbd_object_map.", "journal"}

// Left lists what is left of volumes, by Ceph's own tools: images, whether they can be
// opened or not, their objects, the trash, subvolumes and records.
func (c Cluster) Left(t testing.TB) []string {
	t.Helper()
	var left []string
	add := func(what string, names ...string) {
		for _, name := range names {
			left = append(left, what+" "+name)
		}
	}
	add("image", strings.Fields(c.Tool(t, "rbd", "ls", "rbd"))...)
	add("trash", strings.Fields(c.Tool(t, "rbd", "trash", "ls", "--all", "rbd"))...)
	for _, object := range strings.Fields(c.Tool(t, "rados", "-p", "rbd", "ls", "--all")) {
		if slices.ContainsFunc(imageObjects, func(prefix string) bool { return strings.HasPrefix(object, prefix) }) {
			add("object", object)
		}
	}
	add("record", strings.Fields(c.Tool(t, "rados", "-p", ".holdfast", "ls", "--all"))...)
	var subvolumes []struct{ Name string }
	list, err := c.TryTool("ceph", "fs", "subvolume", "ls", "cephfs", "--group_name", "csi", "-f", "json")
	if err == nil { // the group is there from the first subvolume on
		err = json.Unmarshal([]byte(list), &subvolumes)
		for _, s := range subvolumes {
			add("subvolume", s.Name)
		}
	}
	if err != nil && !strings.Contains(err.Error(), "ENOENT") {
		t.Fatal(err)
	}
	return left
}
