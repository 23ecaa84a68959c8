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
	node.DetachLoops("-", "/var/lib/kubelet/", "/var/lib/holdfast/")
	failures = append(failures, c.stopCeph(ctx), c.removeCgroups(ctx), c.networkDown(ctx))
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("take the test cluster down: %w", err)
	}
	return c.removeState()
}

// removeState removes all but the logs.
func (c *Cluster) removeState() error {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state directory: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == "log" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.Dir, entry.Name())); err != nil {
			return fmt.Errorf("remove state: %w", err)
		}
	}
	return nil
}
