package kube

import (
	"fmt"
	"testing"

	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
)

// testPluginRestart deletes the node plugin's pods while a pod writes to both kinds of volume: no
// write may fail, and the new plugin must know what is mounted.
func testPluginRestart(t *testing.T, s *suite) {
	sp := s.space(t, "restart")
	claims := []claim{
		{name: "rbd", class: rbdClass, mode: "ReadWriteOnce", size: "512Mi"},
		{name: "cephfs", class: cephfsClass, mode: "ReadWriteOnce", size: "512Mi"},
	}
	// Every write reaches the disk, and is read back.
	const script = `n=0; while n=$((n+1)); do
  for v in /rbd /cephfs; do
    head -c 65536 /dev/urandom > /tmp/block
    cp /tmp/block $v/block && sync $v/block && [ "$(sha256sum < $v/block)" = "$(sha256sum < /tmp/block)" ] || { echo "$v: broken at $n"; exit 1; }
    echo $n > $v/n && sync $v/n || { echo "$v: broken at $n"; exit 1; }
  done
done`
	writer := pod{name: "writer", node: cluster.NodeB, claims: claims, script: script}
	sp.apply(t, fmt.Sprint(claims[0], claims[1], writer))
	sp.waitReady(t, "writer")
	sp.assertWriterLives(t, "writer")
	system := space{suite: s, name: cluster.SystemNamespace}
	system.kubectl(t, "delete", "pods", "--selector", "app.kubernetes.io/name=holdfast-csi-node", "--timeout=110s")
	sp.assertWriterLives(t, "writer")
	system.kubectl(t, "rollout", "status", "daemonset/holdfast-csi-node", "--timeout=110s")
	sp.assertWriterLives(t, "writer")

	// The new plugin takes the volumes over: another pod beside the writer, growth, then the end.
	sp.apply(t, pod{name: "reader", node: cluster.NodeB, claims: claims}.String())
	sp.waitReady(t, "reader")
	sp.kubectl(t, "patch", "persistentvolumeclaim", "rbd", "--patch", `{"spec":{"resources":{"requests":{"storage":"1Gi"}}}}`)
	eventually(t, "the grown volume", func() (bool, string) {
		size := kib(t, sp, "reader", "/rbd")
		return size > 900<<10, fmt.Sprint(size, " KiB")
	})
	sp.assertWriterLives(t, "writer")
	sp.deletePod(t, "reader")
	sp.assertWriterLives(t, "writer")
}
