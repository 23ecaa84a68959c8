// Command hfkube runs the test cluster by hand: `hfkube up`, `deploy`, `demo`, `kubectl ...`,
// `down`. It is also the first process of each node (`hfkube node`, not for people).
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
	"github.com/holdfast-storage/holdfast/tests/kube/node"
)

const usage = `usage: hfkube VERB
  build     make the programs (Kubernetes, etcd, sidecars, registry), once
  build-conformance  make Kubernetes' own end-to-end tests, once
  up        start Ceph, Kubernetes and two nodes
  deploy    install Holdfast from deploy/
  demo      up, deploy, and show volumes and the registry at work
  rate [N]  how fast N claims (100) of each StorageClass become Bound
  kubectl   run kubectl against the cluster
  down      take everything down
State: HOLDFAST_KUBE_DIR, or /var/tmp/hf/kube.`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, log, os.Args[1], os.Args[2:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, verb string, arguments []string) error {
	if verb == "node-enter" || verb == "node" {
		return inside(ctx, log, verb, arguments)
	}
	c, err := cluster.Open(cluster.Config{Log: log})
	if err != nil {
		return err
	}
	switch verb {
	case "build":
		return c.Build(ctx)
	case "build-conformance":
		return c.BuildConformance(ctx)
	case "up":
		return c.Up(ctx)
	case "deploy":
		return c.Deploy(ctx)
	case "demo":
		return c.Demo(ctx, os.Stdout)
	case "rate":
		return rate(ctx, c, arguments)
	case "down":
		return c.Down(ctx)
	case "kubectl":
		argv := c.KubectlCommand(arguments...)
		return syscall.Exec(argv[0], argv, os.Environ())
	default:
		return fmt.Errorf("unknown verb %q\n%s", verb, usage)
	}
}

// rate measures each class three times, in turn.
func rate(ctx context.Context, c *cluster.Cluster, arguments []string) error {
	claims := 100
	if len(arguments) > 0 {
		var err error
		if claims, err = strconv.Atoi(arguments[0]); err != nil || claims < 1 {
			return fmt.Errorf("rate takes a number of claims, not %q", arguments[0])
		}
	}
	for range 3 {
		for _, class := range []string{"holdfast-rbd", "holdfast-cephfs"} {
			seen, err := c.MeasureClaims(ctx, class, claims)
			if err != nil {
				return err
			}
			fmt.Println(seen)
		}
	}
	return nil
}

// inside is the first process of a node, before and after it has joined its network.
func inside(ctx context.Context, log *slog.Logger, verb string, arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("%s takes the node's configuration file", verb)
	}
	config, err := node.ReadConfig(arguments[0])
	if err != nil {
		return err
	}
	if verb == "node-enter" {
		return node.Enter(config, []string{"hfkube", "node", arguments[0]})
	}
	return node.Run(ctx, log, config)
}
