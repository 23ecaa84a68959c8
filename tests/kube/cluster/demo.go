package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/tests/kube/registryapi"
)

// Demo brings everything up and shows it at work: a claim of each kind that a pod writes, and a
// registry of three replicas on one CephFS volume. It says how to go on and how to take it down.
func (c *Cluster) Demo(ctx context.Context, out io.Writer) error {
	start := time.Now()
	say := func(format string, arguments ...any) {
		fmt.Fprintf(out, "%6.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, arguments...))
	}
	say("starting Ceph, a Kubernetes control plane and two nodes")
	if err := c.Up(ctx); err != nil {
		return err
	}
	say("installing Holdfast from deploy/")
	if err := c.Deploy(ctx); err != nil {
		return err
	}
	if err := c.demoVolumes(ctx, say); err != nil {
		return err
	}
	if err := c.demoRegistry(ctx, say); err != nil {
		return err
	}
	claims, err := c.Kubectl(ctx, "get", "persistentvolumeclaims", "--all-namespaces")
	if err != nil {
		return fmt.Errorf("list claims: %w", err)
	}
	kubectl := strings.Join(c.KubectlCommand(), " ")
	fmt.Fprintf(out, `
%s
next: look around, and take it down
  alias k='%s'
  k get pods --all-namespaces -o wide
  k exec demo -- ls -l /rbd /cephfs
  %s down
`, claims, kubectl, c.program("hfkube"))
	return nil
}

const demoPod = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: demo-rbd}
spec: {accessModes: [ReadWriteOnce], storageClassName: holdfast-rbd, resources: {requests: {storage: 512Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: demo-cephfs}
spec: {accessModes: [ReadWriteMany], storageClassName: holdfast-cephfs, resources: {requests: {storage: 512Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: demo}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: demo
      image: ` + BusyboxImage + `
      command: [sh, -c, 'echo on RBD > /rbd/hello; echo on CephFS > /cephfs/hello; sync; touch /tmp/written; sleep 1000000']
      readinessProbe: {exec: {command: [test, -e, /tmp/written]}, periodSeconds: 1}
      volumeMounts: [{name: rbd, mountPath: /rbd}, {name: cephfs, mountPath: /cephfs}]
  volumes:
    - {name: rbd, persistentVolumeClaim: {claimName: demo-rbd}}
    - {name: cephfs, persistentVolumeClaim: {claimName: demo-cephfs}}
`

func (c *Cluster) demoVolumes(ctx context.Context, say func(string, ...any)) error {
	say("a pod asks for an RBD and a CephFS volume")
	if _, err := c.KubectlInput(ctx, strings.NewReader(demoPod), "apply", "--filename", "-"); err != nil {
		return fmt.Errorf("create the demonstration's pod: %w", err)
	}
	if _, err := c.Kubectl(ctx, "wait", "pod/demo", "--for=condition=Ready", "--timeout=120s"); err != nil {
		return fmt.Errorf("wait for the demonstration's pod: %w", err)
	}
	read, err := c.Kubectl(ctx, "exec", "demo", "--", "cat", "/rbd/hello", "/cephfs/hello")
	if err != nil {
		return fmt.Errorf("read from the volumes: %w", err)
	}
	say("it wrote, and reads back: %s", strings.Join(strings.Split(strings.TrimSpace(string(read)), "\n"), ", "))
	return nil
}

// RegistryAddresses applies kube-registry and returns the address of each replica.
func (c *Cluster) RegistryAddresses(ctx context.Context) ([]registryapi.Registry, error) {
	if _, err := c.Kubectl(ctx, "apply", "--filename", filepath.Join(c.Repo, "deploy/csi/cephfs/kube-registry.yaml")); err != nil {
		return nil, fmt.Errorf("install kube-registry: %w", err)
	}
	if _, err := c.Kubectl(ctx, "--namespace", "kube-registry", "rollout", "status", "--timeout=120s", "deployment/kube-registry"); err != nil {
		return nil, fmt.Errorf("wait for kube-registry: %w", err)
	}
	addresses, err := c.Kubectl(ctx, "--namespace", "kube-registry", "get", "pods", "--output", "jsonpath={.items[*].status.podIP}")
	if err != nil {
		return nil, fmt.Errorf("list replicas of kube-registry: %w", err)
	}
	var replicas []registryapi.Registry
	for _, address := range strings.Fields(string(addresses)) {
		replicas = append(replicas, registryapi.Registry{Client: c.HTTPClient(), Base: "http://" + address + ":5000"})
	}
	return replicas, nil
}

func (c *Cluster) demoRegistry(ctx context.Context, say func(string, ...any)) error {
	say("three registries start on one CephFS volume")
	replicas, err := c.RegistryAddresses(ctx)
	if err != nil {
		return err
	}
	digest, err := replicas[0].Push(ctx, "demo/hello", "1", bytes.Repeat([]byte("Holdfast "), 1<<17))
	if err != nil {
		return err
	}
	say("pushed demo/hello:1 through %s", replicas[0].Base)
	for _, replica := range replicas[1:] {
		pulled, _, err := replica.Pull(ctx, "demo/hello", "1")
		if err != nil {
			return err
		}
		if pulled != digest {
			return fmt.Errorf("pulled %s through %s, pushed %s", pulled, replica.Base, digest)
		}
		say("pulled it through %s", replica.Base)
	}
	return nil
}
