// Package kube runs Holdfast on a real Kubernetes of two nodes against a real Ceph: one cluster
// for all cases, brought up here. It needs root, and the packages that cluster.Preflight names.
//
//	go test -timeout 30m ./tests/kube
//
// HOLDFAST_KUBE_KEEP=1 leaves the cluster running afterwards, to look into.
package kube

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
)

// suite is what every case uses.
type suite struct {
	cluster *cluster.Cluster
}

// running is the suite's cluster, or nil with the reason why there is none.
var (
	running  *suite
	whySkip  string
	bringUp  = 20 * time.Minute // the first time, Kubernetes is built from source
	takeDown = 3 * time.Minute
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	if testing.Short() {
		whySkip = "-short leaves out what needs a cluster"
		return m.Run()
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c, err := cluster.Open(cluster.Config{Log: log})
	if err == nil {
		err = c.Preflight()
	}
	if err != nil {
		whySkip = err.Error()
		fmt.Fprintln(os.Stderr, "SKIPPED: tests/kube:", err)
		if os.Getenv("CI") == "true" {
			fmt.Fprintln(os.Stderr, "in CI that is a failure")
			return 1
		}
		return m.Run()
	}
	ctx, cancel := context.WithTimeout(context.Background(), bringUp)
	defer cancel()
	if os.Getenv("HOLDFAST_KUBE_KEEP") == "" {
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), takeDown)
			defer cancel()
			if err := c.Down(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "error:", err)
			}
		}()
	}
	if err = c.Up(ctx); err == nil {
		err = c.Deploy(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		c.Dump(ctx)
		return 1
	}
	running = &suite{cluster: c}
	code := m.Run()
	if code != 0 {
		late, cancel := context.WithTimeout(context.Background(), takeDown) // bringUp may be over
		defer cancel()
		c.Dump(late)
	}
	return code
}

// need returns the suite or skips.
func need(t *testing.T) *suite {
	t.Helper()
	if running == nil {
		t.Skip(whySkip)
	}
	return running
}
