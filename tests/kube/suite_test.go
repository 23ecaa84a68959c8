package kube

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
)

const (
	rbdClass    = "holdfast-rbd"
	cephfsClass = "holdfast-cephfs"
)

// patience is how long anything in the cluster may take on a slow machine.
const patience = 2 * time.Minute

// space is one Kubernetes namespace, which goes with all that is in it when the test ends.
type space struct {
	*suite
	name string
}

func (s *suite) space(t *testing.T, name string) space {
	t.Helper()
	sp := space{suite: s, name: name}
	s.mustKubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if t.Failed() {
			sp.explain(ctx, t)
		}
		if _, err := s.cluster.Kubectl(ctx, "delete", "namespace", name, "--timeout=110s"); err != nil {
			t.Errorf("delete namespace %s: %v", name, err)
		}
	})
	return sp
}

// explain logs what a person would look at first.
func (sp space) explain(ctx context.Context, t *testing.T) {
	t.Helper()
	show := func(arguments ...string) string {
		out, err := sp.cluster.Kubectl(ctx, append([]string{"--namespace", sp.name}, arguments...)...)
		t.Logf("%s in %s (%v):\n%s", strings.Join(arguments[:2], " "), sp.name, err, out)
		return string(out)
	}
	show("get", "pods,persistentvolumeclaims", "--output", "wide")
	show("get", "events", "--output", "custom-columns=LAST:.lastTimestamp,OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message")
	for _, pod := range strings.Fields(show("get", "pods", "--output", "jsonpath={.items[*].metadata.name}")) {
		show("logs", pod, "--tail=20")
		show("logs", pod, "--tail=20", "--previous")
	}
}

func (s *suite) mustKubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := s.cluster.Kubectl(ctx, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// kubectl runs kubectl in the space.
func (sp space) kubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	return sp.mustKubectl(t, append([]string{"--namespace", sp.name}, arguments...)...)
}

func (sp space) apply(t *testing.T, manifest string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := sp.cluster.KubectlInput(ctx, strings.NewReader(manifest), "--namespace", sp.name, "apply", "--filename", "-"); err != nil {
		t.Fatal(err)
	}
}

// sh runs a shell line in a pod and returns what it prints.
func (sp space) sh(t *testing.T, pod, script string) string {
	t.Helper()
	return sp.kubectl(t, "exec", pod, "--", "sh", "-c", script)
}

func (sp space) waitReady(t *testing.T, pod string) {
	t.Helper()
	sp.kubectl(t, "wait", "pod/"+pod, "--for=condition=Ready", "--timeout=110s")
}

func (sp space) deletePod(t *testing.T, pod string) {
	t.Helper()
	sp.kubectl(t, "delete", "pod", pod, "--timeout=110s")
}

// eventually waits until done says true.
func eventually(t *testing.T, what string, done func() (bool, string)) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, last := done()
		if ok {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s has not come; last seen: %s", what, last)
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-ticker.C:
		}
	}
}

// claim describes one PersistentVolumeClaim.
type claim struct {
	name, class, mode, size string
	block                   bool
	source                  string // "snapshot/NAME" or "claim/NAME": what it is a copy of
}

func (c claim) String() string {
	volumeMode := "Filesystem"
	if c.block {
		volumeMode = "Block"
	}
	var source string
	if name, ok := strings.CutPrefix(c.source, "snapshot/"); ok {
		source = fmt.Sprintf("dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: %s}, ", name)
	} else if name, ok := strings.CutPrefix(c.source, "claim/"); ok {
		source = fmt.Sprintf("dataSource: {kind: PersistentVolumeClaim, name: %s}, ", name)
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %q}
spec: {%saccessModes: [%s], volumeMode: %s, storageClassName: %s, resources: {requests: {storage: %s}}}
---`, c.name, source, c.mode, volumeMode, c.class, c.size)
}

// pod describes one pod with claims: a file system under /NAME, a device at /dev/NAME.
type pod struct {
	name, node, script string
	claims             []claim
	user               int // also the fsGroup; 0 is root
}

func (p pod) String() string {
	script := p.script
	if script == "" {
		script = "sleep 1000000"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "\napiVersion: v1\nkind: Pod\nmetadata: {name: %q}\nspec:\n  terminationGracePeriodSeconds: 1\n", p.name)
	if p.node != "" {
		// By selector, so that the scheduler still takes part.
		fmt.Fprintf(&text, "  nodeSelector: {kubernetes.io/hostname: %s}\n", p.node)
	}
	if p.user != 0 {
		fmt.Fprintf(&text, "  securityContext: {runAsUser: %[1]d, runAsGroup: %[1]d, fsGroup: %[1]d}\n", p.user)
	}
	fmt.Fprintf(&text, "  containers:\n    - name: main\n      image: %s\n      command: [sh, -c, %q]\n", cluster.BusyboxImage, script)
	var mounts, devices, volumes strings.Builder
	for _, c := range p.claims {
		if c.block {
			fmt.Fprintf(&devices, "{name: %[1]s, devicePath: /dev/%[1]s},", c.name)
		} else {
			fmt.Fprintf(&mounts, "{name: %[1]s, mountPath: /%[1]s},", c.name)
		}
		fmt.Fprintf(&volumes, "{name: %[1]s, persistentVolumeClaim: {claimName: %[1]s}},", c.name)
	}
	fmt.Fprintf(&text, "      volumeMounts: [%s]\n      volumeDevices: [%s]\n  volumes: [%s]\n---", mounts.String(), devices.String(), volumes.String())
	return text.String()
}
