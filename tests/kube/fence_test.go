package kube

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
)

// orphan is a StatefulSet of one pod that says who it is in each volume, again and again, and in
// /tmp/broken of its own when it cannot any more.
func orphan(claims []claim) string {
	var mounts, volumes strings.Builder
	for _, c := range claims {
		fmt.Fprintf(&mounts, "{name: %[1]s, mountPath: /%[1]s},", c.name)
		fmt.Fprintf(&volumes, "{name: %[1]s, persistentVolumeClaim: {claimName: %[1]s}},", c.name)
	}
	const script = `me=$(cat /proc/sys/kernel/random/uuid); echo $me > /tmp/me
for v in rbd cephfs; do
  ( n=0; while n=$((n+1)); do echo $me $n > /$v/by && sync /$v/by || { echo $n > /tmp/broken-$v; exec sleep 1000000; }; sleep 0.2; done ) &
done
wait`
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: orphan}
spec:
  serviceName: orphan
  replicas: 1
  selector: {matchLabels: {app: orphan}}
  template:
    metadata: {labels: {app: orphan}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: %s
          command: [sh, -c, %q]
          volumeMounts: [%s]
      volumes: [%s]
---`, cluster.BusyboxImage, script, mounts.String(), volumes.String())
}

// testDeadNode stops node-b's kubelet and calls the node out of service while a pod there lives on and
// writes: the pod moves, the old one's writes fail, and when the node is back nothing is left of that.
func testDeadNode(t *testing.T, s *suite) {
	sp := s.space(t, "fence")
	claims := []claim{
		{name: "rbd", class: rbdClass, mode: "ReadWriteOnce", size: "512Mi"},
		{name: "cephfs", class: cephfsClass, mode: "ReadWriteMany", size: "512Mi"},
	}
	s.mustKubectl(t, "cordon", cluster.NodeA)
	sp.apply(t, fmt.Sprint(claims[0], claims[1], orphan(claims)))
	sp.awaitWriter(t, cluster.NodeB)
	s.mustKubectl(t, "uncordon", cluster.NodeA)
	me := sp.sh(t, "orphan-0", "cat /tmp/me")
	old := s.rootOf(t, cluster.NodeB, me)

	before := s.blocklist(t) // Ceph's own daemons
	kubelet := s.child(t, cluster.NodeB, "kubelet")
	signal := func(sig syscall.Signal) {
		if err := syscall.Kill(kubelet, sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	defer signal(syscall.SIGCONT)
	// What the node controller says of a silent kubelet after 50 s.
	s.mustKubectl(t, "patch", "node", cluster.NodeB, "--subresource=status", "--patch",
		`{"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown","message":"Kubelet stopped posting node status."}]}}`)
	const taint = "node.kubernetes.io/out-of-service"
	s.mustKubectl(t, "taint", "node", cluster.NodeB, taint+"=nodeshutdown:NoSchedule")
	// What the garbage collector of pods does within 20 s of that.
	sp.kubectl(t, "delete", "pod", "orphan-0", "--force", "--grace-period=0", "--wait=false")

	sp.awaitWriter(t, cluster.NodeA)
	for _, volume := range []string{"rbd", "cephfs"} {
		eventually(t, "an error for the old writer on "+volume, func() (bool, string) {
			data, err := os.ReadFile(filepath.Join(old, "tmp", "broken-"+volume))
			return err == nil && len(data) > 0, fmt.Sprint(err)
		})
		eventually(t, "the new writer's words on "+volume, func() (bool, string) {
			by := sp.sh(t, "orphan-0", "cat /"+volume+"/by")
			return by != "" && !strings.HasPrefix(by, me), by
		})
	}
	if fenced := len(s.blocklist(t)) - len(before); fenced != 2 {
		t.Errorf("%d clients were put on the blocklist, want one a volume", fenced)
	}

	signal(syscall.SIGCONT)
	s.mustKubectl(t, "taint", "node", cluster.NodeB, taint+"-")
	s.mustKubectl(t, "wait", "node/"+cluster.NodeB, "--for=condition=Ready", "--timeout=110s")
	eventually(t, "the end of the fences", func() (bool, string) {
		left := s.blocklist(t)
		return len(left) <= len(before), fmt.Sprint(left)
	})
}

// awaitWriter returns when the pod runs on the node and has written to both volumes.
func (sp space) awaitWriter(t *testing.T, node string) {
	t.Helper()
	eventually(t, "the writer on "+node, func() (bool, string) {
		where := sp.kubectl(t, "get", "pods", "--output", `jsonpath={range .items[*]}{.spec.nodeName}{" "}{.status.conditions[?(@.type=="Ready")].status}{end}`)
		return where == node+" True", where
	})
	for _, volume := range []string{"rbd", "cephfs"} {
		eventually(t, "a word on "+volume, func() (bool, string) {
			by := sp.sh(t, "orphan-0", "cat /"+volume+"/by 2>/dev/null || true")
			return by != "", by
		})
	}
}

// blocklist returns the clients that are on the cluster's blocklist.
func (s *suite) blocklist(t *testing.T) []string {
	t.Helper()
	out, err := s.cluster.Ceph(t.Context(), "ceph", "osd", "blocklist", "ls", "--format", "plain")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if client, _, ok := strings.Cut(line, " "); ok && strings.Contains(client, "/") {
			found = append(found, client)
		}
	}
	return found
}

// child returns the process of a node's service.
func (s *suite) child(t *testing.T, node, program string) int {
	t.Helper()
	parent, err := s.cluster.NodeProcess(node)
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range files {
		data, _ := os.ReadFile(file) // it may have ended
		if bytes.HasPrefix(data, []byte("Name:\t"+program+"\n")) && bytes.Contains(data, fmt.Appendf(nil, "\nPPid:\t%d\n", parent)) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("%s has no %s", node, program)
	return 0
}

// rootOf returns the root directory of the container that holds the word in /tmp/me.
func (s *suite) rootOf(t *testing.T, node, word string) string {
	t.Helper()
	roots, _ := filepath.Glob("/proc/[0-9]*/root")
	for _, root := range roots {
		if data, err := os.ReadFile(filepath.Join(root, "tmp", "me")); err == nil && strings.TrimSpace(string(data)) == word {
			return root
		}
	}
	t.Fatalf("no container on %s holds %s", node, word)
	return ""
}
