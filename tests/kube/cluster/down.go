package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/tests/kube/node"
)

// Down takes away everything that is recorded: nodes first, while Ceph still answers, then the
// control plane, Ceph, cgroups and networks, then the state. It may be called at any time, any
// number of times, also after a crash. Logs stay until the next Up.
func (c *Cluster) Down(ctx context.Context) error {
	processes := c.state.snapshot().Processes
	slices.Reverse(processes) // the last started goes first: nodes before the API server
	var failures []error
	for _, p := range processes {
		if err := p.stop(ctx, 30*time.Second); err != nil {
			failures = append(failures, err)
			continue
		}
		failures = append(failures, c.forget(p))
	}
	// A node that was killed could not detach its own.
	for _, name := range []string{NodeA, NodeB} {
		failures = append(failures, node.DetachRecorded(node.RecordFile(c.nodeDir(name))))
	}
	failures = append(failures, c.stopCeph(ctx), c.removeCgroups(ctx), c.networkDown(ctx))
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("take the test cluster down: %w", err)
	}
	return c.removeState()
}

// removeState removes what Up made in the state directory, all but the logs.
func (c *Cluster) removeState() error {
	for _, path := range []string{c.imageDir(), c.pkiDir(), c.cephDir(), c.nodeDir(NodeA), c.nodeDir(NodeB), filepath.Join(c.Dir, "etcd"), c.state.path} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove state: %w", err)
		}
	}
	return nil
}
