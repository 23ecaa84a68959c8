package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
)

// testSnapshot takes snapshots, deletes what they were taken of, and looks for the data in what is
// restored from them: larger volumes, an encrypted one, and the snapshot itself.
func testSnapshot(t *testing.T, s *suite) {
	sp := s.space(t, "snapshot")
	sealedClass := s.class(t, rbdClass, "encrypted", "true")
	shownClass := s.class(t, cephfsClass, "backingSnapshot", "true")
	sources := []claim{
		{name: "rbd", class: rbdClass, mode: "ReadWriteOnce", size: "512Mi"},
		{name: "cephfs", class: cephfsClass, mode: "ReadWriteOnce", size: "512Mi"},
		{name: "sealed", class: sealedClass, mode: "ReadWriteOnce", size: "512Mi"},
	}
	sp.apply(t, fmt.Sprint(sources[0], sources[1], sources[2], pod{name: "writer", claims: sources}))
	sp.waitReady(t, "writer")
	const text = "스냅샷 🎉"
	for _, c := range sources {
		sp.sh(t, "writer", fmt.Sprintf("echo '%s' > /%s/data && sync", text, c.name))
	}
	sp.assertEncrypted(t, "sealed", true)
	sp.assertEncrypted(t, "rbd", false)
	for _, c := range sources {
		sp.apply(t, snapshot{name: c.name, class: strings.Replace(c.class, sealedClass, rbdClass, 1), of: c.name}.String())
	}
	for _, c := range sources {
		sp.kubectl(t, "wait", "volumesnapshot/"+c.name, "--for=jsonpath={.status.readyToUse}=true", "--timeout=110s")
	}
	sp.sh(t, "writer", "for v in rbd cephfs sealed; do echo later > /$v/data; done; sync")
	sp.deletePod(t, "writer")
	sp.kubectl(t, "delete", "persistentvolumeclaims", "--all", "--timeout=110s")

	restored := []claim{
		{name: "rbd", class: rbdClass, mode: "ReadWriteOnce", size: "1Gi", source: "snapshot/rbd"},
		{name: "cephfs", class: cephfsClass, mode: "ReadWriteMany", size: "1Gi", source: "snapshot/cephfs"},
		{name: "sealed", class: sealedClass, mode: "ReadWriteOnce", size: "1Gi", source: "snapshot/sealed"},
		{name: "shown", class: shownClass, mode: "ReadOnlyMany", size: "512Mi", source: "snapshot/cephfs"},
	}
	sp.apply(t, fmt.Sprint(restored[0], restored[1], restored[2], restored[3], pod{name: "reader", claims: restored}))
	sp.waitReady(t, "reader")
	for _, c := range restored {
		eventually(t, "the snapshot's text on "+c.name, func() (bool, string) {
			got := sp.sh(t, "reader", fmt.Sprintf("cat /%s/data 2>&1 || true", c.name))
			return got == text, got
		})
		if size := kib(t, sp, "reader", "/"+c.name); c.size == "1Gi" && size < 900<<10 {
			t.Errorf("%s: restored to %d KiB, asked for 1 GiB", c.name, size)
		}
	}
	if got := sp.sh(t, "reader", "for v in rbd cephfs sealed shown; do touch /$v/mine 2>/dev/null && echo $v; done; true"); got != "rbd\ncephfs\nsealed" {
		t.Errorf("these can be written: %q; want all but the snapshot that is shown itself", got)
	}
}

// testClone clones volumes that are being written, and mounts clone and source in one pod: on one
// node, where two xfs of one UUID meet.
func testClone(t *testing.T, s *suite) {
	sp := s.space(t, "clone")
	sources := []claim{
		{name: "rbd", class: rbdClass, mode: "ReadWriteOnce", size: "512Mi"},
		{name: "cephfs", class: cephfsClass, mode: "ReadWriteMany", size: "512Mi"},
		{name: "device", class: rbdClass, mode: "ReadWriteOnce", size: "64Mi", block: true},
	}
	script := "n=0; while n=$((n+1)); do for v in /rbd /cephfs; do echo $n > $v/n && sync $v/n || { echo broken at $n; exit 1; }; done; sleep 0.2; done"
	sp.apply(t, fmt.Sprint(sources[0], sources[1], sources[2], pod{name: "writer", node: cluster.NodeA, claims: sources, script: script}))
	sp.waitReady(t, "writer")
	want := sp.sh(t, "writer", "head -c 1048576 /dev/urandom > /rbd/data && cp /rbd/data /cephfs/data && dd if=/rbd/data of=/dev/device bs=1M conv=fsync 2>/dev/null; sync; sha256sum < /rbd/data")

	both := append([]claim(nil), sources...)
	for _, c := range sources {
		c.source, c.name = "claim/"+c.name, c.name+"-clone"
		both = append(both, c)
		sp.apply(t, c.String())
	}
	sp.apply(t, pod{name: "beside", node: cluster.NodeA, claims: both}.String())
	sp.waitReady(t, "beside")
	for _, path := range []string{"/rbd/data", "/rbd-clone/data", "/cephfs/data", "/cephfs-clone/data"} {
		if got := sp.sh(t, "beside", "sha256sum < "+path); got != want {
			t.Errorf("%s: read digest %s, the source has %s", path, got, want)
		}
	}
	if got := sp.sh(t, "beside", "head -c 1048576 /dev/device-clone | sha256sum"); got != want {
		t.Errorf("the cloned device: read digest %s, the source has %s", got, want)
	}
	sp.sh(t, "beside", "for v in rbd cephfs; do echo mine > /$v-clone/n && echo mine > /$v-clone/data; done; sync")
	for _, path := range []string{"/rbd/data", "/cephfs/data"} {
		if got := sp.sh(t, "beside", "sha256sum < "+path); got != want {
			t.Errorf("%s: the source has digest %s after the clone was written, had %s", path, got, want)
		}
	}
	sp.assertWriterLives(t, "writer")
}

// class makes a StorageClass that is another one with one parameter more, and returns its name.
func (s *suite) class(t *testing.T, base, parameter, value string) string {
	t.Helper()
	var object map[string]any
	if err := s.cluster.KubectlJSON(t.Context(), &object, "get", "storageclass", base); err != nil {
		t.Fatal(err)
	}
	parameters, ok := object["parameters"].(map[string]any)
	if !ok {
		t.Fatalf("StorageClass %s has no parameters", base)
	}
	parameters[parameter] = value
	name := base + "-" + strings.ToLower(parameter)
	object["metadata"] = map[string]any{"name": name}
	encoded, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.cluster.KubectlInput(t.Context(), bytes.NewReader(encoded), "apply", "--filename", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.cluster.Kubectl(context.WithoutCancel(t.Context()), "delete", "storageclass", name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// assertEncrypted asks the cluster itself what the first bytes of a claim's image are.
func (sp space) assertEncrypted(t *testing.T, claim string, want bool) {
	t.Helper()
	volume := sp.kubectl(t, "get", "persistentvolumeclaim", claim, "--output", "jsonpath={.spec.volumeName}")
	handle := sp.kubectl(t, "get", "persistentvolume", volume, "--output", "jsonpath={.spec.csi.volumeHandle}")
	var images []string
	sp.askCeph(t, &images, "rbd", "--pool", "rbd", "ls")
	for _, image := range images {
		incarnation, ok := strings.CutPrefix(image, "hf-")
		if !ok || !strings.Contains(handle, incarnation) {
			continue
		}
		var info struct {
			Prefix string `json:"block_name_prefix"`
		}
		sp.askCeph(t, &info, "rbd", "--pool", "rbd", "info", image)
		first, err := sp.cluster.Ceph(t.Context(), "rados", "--pool", "rbd", "get", info.Prefix+".0000000000000000", "-")
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.HasPrefix(first, []byte("LUKS\xba\xbe")); got != want {
			t.Errorf("image %s of %s is encrypted: %v, want %v", image, claim, got, want)
		}
		return
	}
	t.Fatalf("no image of %s (%s) among %v", claim, handle, images)
}

// snapshot describes one VolumeSnapshot of a claim.
type snapshot struct{ name, class, of string }

func (s snapshot) String() string {
	return fmt.Sprintf(`
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: %q}
spec: {volumeSnapshotClassName: %s, source: {persistentVolumeClaimName: %s}}
---`, s.name, s.class, s.of)
}
