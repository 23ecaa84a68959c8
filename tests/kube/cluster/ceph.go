package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-storage/holdfast/pkg/command"
)

// startCeph brings Ceph up at node-a's address with `holdfast up`, without its CSI services:
// those run in Kubernetes here.
func (c *Cluster) startCeph(ctx context.Context) error {
	if err := c.state.update(func(s *stateData) { s.Ceph = true }); err != nil {
		return err
	}
	if _, err := c.Holdfast(ctx, "up", "--data-dir", c.cephDir(), "--ceph-addr", addressA, "--no-csi"); err != nil {
		return fmt.Errorf("bring Ceph up: %w", err)
	}
	c.Log.Info("ceph is up", "dir", c.cephDir())
	return nil
}

// stopCeph takes Ceph down and its data away.
func (c *Cluster) stopCeph(ctx context.Context) error {
	if !c.state.snapshot().Ceph {
		return nil
	}
	if _, err := os.Stat(filepath.Join(c.cephDir(), "cluster.json")); errors.Is(err, fs.ErrNotExist) {
		return c.state.update(func(s *stateData) { s.Ceph = false }) // it never came so far
	}
	if _, err := c.Runner.Run(ctx, command.Cmd{
		Name: filepath.Join(c.Bin, "holdfast"), Args: []string{"down", "--wipe", "--yes", "--data-dir", c.cephDir()},
	}); err != nil {
		return fmt.Errorf("take Ceph down: %w", err)
	}
	return c.state.update(func(s *stateData) { s.Ceph = false })
}

// Holdfast runs the CLI inside node-a's network.
func (c *Cluster) Holdfast(ctx context.Context, arguments ...string) ([]byte, error) {
	result, err := c.inNamespace(ctx, namespaceA, append([]string{filepath.Join(c.Bin, "holdfast")}, arguments...)...)
	return result.Stdout, err
}

// Ceph asks the cluster itself, past Holdfast: a program of ceph-common (ceph, rados, rbd) as
// client.admin.
func (c *Cluster) Ceph(ctx context.Context, program string, arguments ...string) ([]byte, error) {
	argv := append([]string{program, "--conf", filepath.Join(c.cephDir(), "ceph.conf")}, arguments...)
	result, err := c.inNamespace(ctx, namespaceA, argv...)
	return result.Stdout, err
}

// CephJSON is Ceph with the answer decoded.
func (c *Cluster) CephJSON(ctx context.Context, into any, program string, arguments ...string) error {
	out, err := c.Ceph(ctx, program, append(arguments, "--format", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("decode answer of %s: %w", program, err)
	}
	return nil
}
