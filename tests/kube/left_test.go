package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
)

// testNothingLeft deletes what is still there and asks Ceph itself, and the nodes' kernels,
// whether anything of a volume remains.
func testNothingLeft(t *testing.T, s *suite) {
	restarts := s.mustKubectl(t, "--namespace", cluster.SystemNamespace, "get", "pods", "--output",
		`jsonpath={range .items[*].status.containerStatuses[?(@.restartCount!=0)]}{.name}{" "}{.lastState.terminated.reason}{"\n"}{end}`)
	if restarts != "" {
		t.Errorf("containers of Holdfast ended on their own:\n%s", restarts)
	}
	s.mustKubectl(t, "delete", "namespace", "kube-registry", "--ignore-not-found", "--timeout=110s")
	eventually(t, "the end of all PersistentVolumes", func() (bool, string) {
		left := s.mustKubectl(t, "get", "persistentvolumes,volumeattachments", "--output", "name")
		return left == "", left
	})
	var images []string
	s.askCeph(t, &images, "rbd", "--pool", "rbd", "ls")
	if len(images) > 0 {
		t.Errorf("images are left: %v", images)
	}
	var trash []map[string]any
	s.askCeph(t, &trash, "rbd", "--pool", "rbd", "trash", "ls")
	if len(trash) > 0 {
		t.Errorf("images are left in the trash: %v", trash)
	}
	var subvolumes []map[string]any
	s.askCeph(t, &subvolumes, "ceph", "fs", "subvolume", "ls", "cephfs", "csi")
	if len(subvolumes) > 0 {
		t.Errorf("subvolumes are left: %v", subvolumes)
	}
	records, err := s.cluster.Ceph(t.Context(), "rados", "--pool", ".holdfast", "--all", "ls")
	if err != nil {
		t.Fatal(err)
	}
	if len(records) > 0 {
		t.Errorf("records are left:\n%s", records)
	}
	for _, node := range []string{cluster.NodeA, cluster.NodeB} {
		eventually(t, "a clean "+node, func() (bool, string) {
			left := s.volumeMounts(t, node)
			return len(left) == 0, strings.Join(left, "\n")
		})
	}
	if left := loops(t); len(left) > 0 {
		t.Errorf("loop devices are left: %v", left)
	}
}

func (s *suite) askCeph(t *testing.T, into any, program string, arguments ...string) {
	t.Helper()
	if err := s.cluster.CephJSON(t.Context(), into, program, arguments...); err != nil {
		t.Fatal(err)
	}
}

// volumeMounts lists mounts of volumes in a node's namespace.
func (s *suite) volumeMounts(t *testing.T, node string) []string {
	t.Helper()
	pid, err := s.cluster.NodeProcess(node)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "kubernetes.io~csi") || strings.Contains(line, "kubernetes.io/csi") || strings.Contains(line, "/run/holdfast/attach/") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// loops lists loop devices of the nodes; the machine's own and those of others have other paths.
func loops(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it went in between
		}
		path := strings.TrimSpace(string(data))
		if strings.HasPrefix(path, "/run/holdfast/") || strings.HasPrefix(path, "/var/lib/kubelet/") {
			found = append(found, path)
		}
	}
	return found
}
