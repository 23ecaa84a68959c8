package kube

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
)

// TestHoldfastOnKubernetes tells one story: the cases share a cluster, and the last one looks
// whether anything of the others is left in Ceph or on the nodes.
func TestHoldfastOnKubernetes(t *testing.T) {
	s := need(t)
	t.Run("while volumes are in use", func(t *testing.T) {
		cases := []struct {
			name string
			run  func(*testing.T, *suite)
		}{
			{"a claim of each kind is bound, mounted and written", testMountAndWrite},
			{"three registries share one CephFS volume", testRegistry},
			{"volumes grow while they are written", testGrow},
			{"a raw block device keeps what is written", testBlock},
			{"a pod that moves to the other node finds its data", testMove},
			{"a volume for one pod alone refuses a second", testOnePod},
			{"the scheduler knows how much space is free", testCapacity},
			{"snapshots outlive their volumes and are restored", testSnapshot},
			{"a clone is used beside its source", testClone},
		}
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, s)
			})
		}
	})
	t.Run("Kubernetes' own storage specs pass", func(t *testing.T) { testConformance(t, s) })
	t.Run("the node plugin restarts and no writer notices", func(t *testing.T) { testPluginRestart(t, s) })
	t.Run("a node that is called dead and lives is fenced", func(t *testing.T) { testDeadNode(t, s) })
	t.Run("the agent of each node tells its disks", func(t *testing.T) { testAgent(t, s) })
	t.Run("with all deleted nothing is left", func(t *testing.T) { testNothingLeft(t, s) })
}

func testMountAndWrite(t *testing.T, s *suite) {
	sp := s.space(t, "mount")
	claims := []claim{
		{name: "rbd", class: rbdClass, mode: "ReadWriteOnce", size: "512Mi"},
		{name: "cephfs", class: cephfsClass, mode: "ReadWriteMany", size: "512Mi"},
	}
	// Not root: the files must belong to the pod's group.
	sp.apply(t, fmt.Sprint(claims[0], claims[1], pod{name: "writer", claims: claims, user: 1000}))
	sp.waitReady(t, "writer")
	for _, c := range claims {
		const text = "안녕 🎉"
		if got := sp.sh(t, "writer", fmt.Sprintf("mkdir '/%[1]s/볼륨 🎉' && echo '%[2]s' > '/%[1]s/볼륨 🎉/a' && sync && cat '/%[1]s/볼륨 🎉/a'", c.name, text)); got != text {
			t.Errorf("%s: read %q, wrote %q", c.name, got, text)
		}
		// 512 MiB, less what the file system itself takes.
		if size := kib(t, sp, "writer", "/"+c.name); size < 400<<10 || size > 512<<10 {
			t.Errorf("%s: the pod sees %d KiB, asked for 512 MiB", c.name, size)
		}
	}
}

// kib returns the size of the file system at path in KiB, as df shows it.
func kib(t *testing.T, sp space, pod, path string) int {
	t.Helper()
	fields := strings.Fields(sp.sh(t, pod, "df -Pk "+path+" | tail -n 1"))
	if len(fields) < 2 {
		t.Fatalf("df printed %q", fields)
	}
	size, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func testRegistry(t *testing.T, s *suite) {
	sp := space{suite: s, name: "kube-registry"}
	t.Cleanup(func() {
		if t.Failed() {
			sp.explain(context.WithoutCancel(t.Context()), t)
		}
	})
	replicas, err := s.cluster.RegistryAddresses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(replicas) != 3 {
		t.Fatalf("%d replicas, want 3", len(replicas))
	}
	nodes := sp.kubectl(t, "get", "pods", "--output", "jsonpath={.items[*].spec.nodeName}")
	if !strings.Contains(nodes, cluster.NodeA) || !strings.Contains(nodes, cluster.NodeB) {
		t.Errorf("replicas run on %s, want both nodes", nodes)
	}
	layer := make([]byte, 8<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range layer {
		layer[i] = byte(random.Uint32())
	}
	for i, pusher := range replicas {
		tag := fmt.Sprintf("by-%d", i)
		content := append([]byte(tag), layer...)
		pushed, err := pusher.Push(t.Context(), "test/image", tag, content)
		if err != nil {
			t.Fatalf("push through replica %d: %v", i, err)
		}
		for j, puller := range replicas {
			pulled, layers, err := puller.Pull(t.Context(), "test/image", tag)
			switch {
			case err != nil:
				t.Errorf("pull through replica %d what replica %d took: %v", j, i, err)
			case pulled != pushed || len(layers) != 1 || !bytes.Equal(layers[0], content):
				t.Errorf("replica %d gives another image than replica %d took", j, i)
			}
		}
	}
	// The Service in front of them, as other pods use it.
	address := sp.kubectl(t, "get", "service", "kube-registry", "--output", "jsonpath={.spec.clusterIP}")
	replicas[0].Base = "http://" + address + ":5000"
	if _, _, err := replicas[0].Pull(t.Context(), "test/image", "by-0"); err != nil {
		t.Errorf("pull through the Service: %v", err)
	}
}

func testGrow(t *testing.T, s *suite) {
	sp := s.space(t, "grow")
	claims := []claim{
		{name: "rbd", class: rbdClass, mode: "ReadWriteOnce", size: "512Mi"},
		{name: "cephfs", class: cephfsClass, mode: "ReadWriteOnce", size: "512Mi"},
		{name: "device", class: rbdClass, mode: "ReadWriteOnce", size: "64Mi", block: true},
	}
	script := "n=0; while n=$((n+1)); do for v in /rbd /cephfs; do echo $n > $v/n && sync $v/n || { echo broken at $n; exit 1; }; done; sleep 0.2; done"
	sp.apply(t, fmt.Sprint(claims[0], claims[1], claims[2], pod{name: "writer", claims: claims, script: script}))
	sp.waitReady(t, "writer")
	for _, c := range claims {
		size := "1Gi"
		if c.block {
			size = "128Mi"
		}
		sp.kubectl(t, "patch", "persistentvolumeclaim", c.name, "--patch", fmt.Sprintf(`{"spec":{"resources":{"requests":{"storage":%q}}}}`, size))
	}
	for _, c := range claims[:2] {
		eventually(t, c.name+" of 1 GiB", func() (bool, string) {
			size := kib(t, sp, "writer", "/"+c.name)
			return size > 900<<10, fmt.Sprint(size, " KiB")
		})
	}
	eventually(t, "a device of 128 MiB", func() (bool, string) {
		// Reading its last byte: a device is as long as it can be read.
		out := sp.sh(t, "writer", "dd if=/dev/device bs=1M skip=127 count=1 2>/dev/null | wc -c")
		return out == strconv.Itoa(1<<20), out
	})
	for _, c := range claims {
		sp.kubectl(t, "wait", "persistentvolumeclaim/"+c.name, "--for=jsonpath={.status.capacity.storage}="+map[bool]string{false: "1Gi", true: "128Mi"}[c.block], "--timeout=110s")
	}
	sp.assertWriterLives(t, "writer")
}

// assertWriterLives fails if the pod's program has ended, been restarted or stopped counting.
func (sp space) assertWriterLives(t *testing.T, pod string) {
	t.Helper()
	if state := sp.kubectl(t, "get", "pod", pod, "--output", "jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}"); state != "Running 0" {
		t.Fatalf("pod %s is %q: %s", pod, state, sp.kubectl(t, "logs", pod, "--tail=5"))
	}
	for _, volume := range []string{"/rbd", "/cephfs"} {
		before := sp.sh(t, pod, "cat "+volume+"/n")
		eventually(t, "progress on "+volume, func() (bool, string) {
			now := sp.sh(t, pod, "cat "+volume+"/n")
			return now != before && now != "", now
		})
	}
}

func testBlock(t *testing.T, s *suite) {
	sp := s.space(t, "block")
	device := claim{name: "device", class: rbdClass, mode: "ReadWriteOnce", size: "64Mi", block: true}
	sp.apply(t, fmt.Sprint(device, pod{name: "first", node: cluster.NodeA, claims: []claim{device}}))
	sp.waitReady(t, "first")
	const write = "head -c 4194304 /dev/urandom > /tmp/data && dd if=/tmp/data of=/dev/device bs=1M seek=8 conv=fsync 2>/dev/null && sha256sum < /tmp/data"
	want := sp.sh(t, "first", write)
	sp.deletePod(t, "first")
	sp.apply(t, pod{name: "second", node: cluster.NodeB, claims: []claim{device}}.String())
	sp.waitReady(t, "second")
	if got := sp.sh(t, "second", "dd if=/dev/device bs=1M skip=8 count=4 2>/dev/null | sha256sum"); got != want {
		t.Errorf("read digest %s, wrote %s", got, want)
	}
}

func testMove(t *testing.T, s *suite) {
	sp := s.space(t, "move")
	claims := []claim{
		{name: "rbd", class: rbdClass, mode: "ReadWriteOnce", size: "512Mi"},
		{name: "cephfs", class: cephfsClass, mode: "ReadWriteOnce", size: "512Mi"},
	}
	sp.apply(t, fmt.Sprint(claims[0], claims[1], pod{name: "first", node: cluster.NodeA, claims: claims}))
	sp.waitReady(t, "first")
	want := sp.sh(t, "first", "for v in rbd cephfs; do head -c 8388608 /dev/urandom > /$v/data; done; sync; sha256sum /rbd/data /cephfs/data")
	sp.deletePod(t, "first")
	sp.apply(t, pod{name: "second", node: cluster.NodeB, claims: claims}.String())
	sp.waitReady(t, "second")
	if got := sp.sh(t, "second", "sha256sum /rbd/data /cephfs/data"); got != want {
		t.Errorf("on the other node: %s\nwritten: %s", got, want)
	}
}

func testOnePod(t *testing.T, s *suite) {
	sp := s.space(t, "onepod")
	alone := claim{name: "alone", class: rbdClass, mode: "ReadWriteOncePod", size: "512Mi"}
	sp.apply(t, fmt.Sprint(alone, pod{name: "first", claims: []claim{alone}}))
	sp.waitReady(t, "first")
	sp.apply(t, pod{name: "second", claims: []claim{alone}}.String())
	eventually(t, "the refusal of the second pod", func() (bool, string) {
		reason := sp.kubectl(t, "get", "pod", "second", "--output", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}`)
		return strings.Contains(reason, "ReadWriteOncePod"), reason
	})
	sp.deletePod(t, "first")
	sp.waitReady(t, "second")
}

func testCapacity(t *testing.T, s *suite) {
	for _, class := range []string{rbdClass, cephfsClass} {
		eventually(t, "the capacity of "+class, func() (bool, string) {
			got := s.mustKubectl(t, "--namespace", cluster.SystemNamespace, "get", "csistoragecapacities", "--output",
				fmt.Sprintf(`jsonpath={.items[?(@.storageClassName==%q)].capacity}`, class))
			return got != "" && got != "0", got
		})
	}
}
