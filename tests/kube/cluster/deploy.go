package cluster

import (
	"context"
	"fmt"
	"path/filepath"
)

// SystemNamespace is where deploy/ puts Holdfast.
const SystemNamespace = "holdfast-system"

// Deploy installs Kubernetes' part of snapshots, then Holdfast: the namespace, what `holdfast up`
// wrote for this Ceph (cluster map and keys), and all of deploy/. It returns when every pod is ready.
func (c *Cluster) Deploy(ctx context.Context) error {
	steps := [][]string{
		{"apply", "--kustomize", filepath.Join(c.Repo, "deploy", "snapshots")},
		{"wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all"},
		{"apply", "--filename", filepath.Join(c.Repo, "deploy", "common.yaml")},
		{"apply", "--filename", filepath.Join(c.cephDir(), "csi", "kubernetes.yaml")},
		{"apply", "--kustomize", filepath.Join(c.Repo, "deploy")},
	}
	// kubectl has no rollout status for updates on deletion.
	steps = append(steps, []string{
		"--namespace", SystemNamespace, "wait", "daemonset/holdfast-csi-attach", "--for=jsonpath={.status.numberReady}=2", "--timeout=120s",
	})
	for _, workload := range []string{"daemonset/holdfast-csi-node", "deployment/holdfast-csi-rbd", "deployment/holdfast-csi-cephfs"} {
		steps = append(steps, []string{"--namespace", SystemNamespace, "rollout", "status", "--timeout=120s", workload})
	}
	steps = append(steps, []string{"--namespace", "kube-system", "rollout", "status", "--timeout=120s", "deployment/snapshot-controller"})
	for _, arguments := range steps {
		if _, err := c.Kubectl(ctx, arguments...); err != nil {
			return fmt.Errorf("install Holdfast: %w", err)
		}
	}
	c.Log.Info("holdfast is installed")
	return nil
}
