package cluster

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
)

// Deploy installs Holdfast: what `holdfast up` wrote for this Ceph, then deploy/.
func (c *Cluster) Deploy(ctx context.Context) error {
	for _, arguments := range [][]string{
		{"apply", "--kustomize", filepath.Join(c.Repo, "deploy")},
		{"apply", "--filename", filepath.Join(c.cephDir(), "csi", "kubernetes.yaml")},
		{"--namespace", "holdfast-system", "rollout", "status", "--timeout=120s", "daemonset/holdfast-csi-attach"},
		{"--namespace", "holdfast-system", "rollout", "status", "--timeout=120s", "daemonset/holdfast-csi-node"},
		{"--namespace", "holdfast-system", "rollout", "status", "--timeout=120s", "deployment/holdfast-csi-rbd"},
		{"--namespace", "holdfast-system", "rollout", "status", "--timeout=120s", "deployment/holdfast-csi-cephfs"},
	} {
		if _, err := c.Kubectl(ctx, arguments...); err != nil {
			return fmt.Errorf("install Holdfast: %w", err)
		}
	}
	c.Log.Info("Holdfast is installed")
	return nil
}

// Demo is written in demo.go.
func (c *Cluster) Demo(ctx context.Context, out io.Writer) error { return fmt.Errorf("not yet") }
