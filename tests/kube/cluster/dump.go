package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// Dump writes what a person needs after a failure into the log directory: every object, every
// event, the logs of Holdfast's pods. It does what it can and reports no errors.
func (c *Cluster) Dump(ctx context.Context) {
	dir := filepath.Join(c.logDir(), "dump")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return
	}
	save := func(name string, arguments ...string) string {
		out, err := c.Kubectl(ctx, arguments...)
		if err != nil {
			out = append(out, err.Error()...)
		}
		_ = os.WriteFile(filepath.Join(dir, name), out, 0o644)
		return string(out)
	}
	save("pods.txt", "get", "pods", "--all-namespaces", "--output", "wide")
	save("volumes.txt", "get", "persistentvolumeclaims,persistentvolumes,volumeattachments,csistoragecapacities,csinodes", "--all-namespaces", "--output", "yaml")
	save("events.txt", "get", "events", "--all-namespaces", "--sort-by=.metadata.creationTimestamp")
	pods := save("names.txt", "--namespace", SystemNamespace, "get", "pods", "--output", "name")
	for _, pod := range strings.Fields(pods) {
		name := filepath.Base(pod)
		save(name+".txt", "--namespace", SystemNamespace, "describe", pod)
		save(name+".log", "--namespace", SystemNamespace, "logs", pod, "--all-containers", "--prefix", "--tail=-1")
		save(name+".previous.log", "--namespace", SystemNamespace, "logs", pod, "--all-containers", "--prefix", "--previous")
	}
	c.Log.Info("objects, events and logs are saved", "dir", dir)
}
