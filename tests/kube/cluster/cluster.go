// Package cluster runs a real Kubernetes of two nodes with a real Ceph beside it on one machine,
// for the demonstration and for the tests: etcd, API server, controller manager and scheduler as
// processes, kubelet, kube-proxy and containerd in the private namespaces of each node.
//
// Everything listens inside network namespaces named hfk-*, which nothing leaves. All state is
// below one directory and every process is recorded there before it counts as started, so that
// Down, and Up after a crash, clean by what is recorded and by nothing else.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/command"
)

// Addresses inside the namespaces.
const (
	namespaceA = "hfk-a" // control plane, Ceph and node-a
	namespaceB = "hfk-b" // node-b
	addressA   = "10.199.0.1"
	addressB   = "10.199.0.2"
	apiPort    = 6443
	serviceIP  = "10.96.0.1" // of the API server's Service
	services   = "10.96.0.0/16"
	podsA      = "10.244.1.0/24"
	podsB      = "10.244.2.0/24"
	pods       = "10.244.0.0/16"
)

// NodeA and NodeB are the names of the nodes.
const (
	NodeA = "node-a"
	NodeB = "node-b"
)

// Config says where a cluster lives.
type Config struct {
	Dir    string // state; short, since Unix socket paths are below it
	Repo   string // the source tree, with deploy/
	Bin    string // holdfast and holdfastd
	Cache  string // built programs and image layers, kept between runs
	Log    *slog.Logger
	Runner command.Runner
}

// Cluster is a running or a stopped cluster.
type Cluster struct {
	Config
	state *state
}

// Defaults fills what is empty: HOLDFAST_KUBE_DIR or /var/tmp/hf/kube, the user's cache
// directory, the source tree above the working directory, HOLDFAST_BIN or bin/ in it.
func (c Config) Defaults() (Config, error) {
	if c.Dir == "" {
		c.Dir = os.Getenv("HOLDFAST_KUBE_DIR")
	}
	if c.Dir == "" {
		c.Dir = "/var/tmp/hf/kube"
	}
	if c.Cache == "" {
		root, err := os.UserCacheDir()
		if err != nil {
			return c, fmt.Errorf("find cache directory: %w", err)
		}
		c.Cache = filepath.Join(root, "holdfast")
	}
	if c.Repo == "" {
		repo, err := findRepo()
		if err != nil {
			return c, err
		}
		c.Repo = repo
	}
	if c.Bin == "" {
		c.Bin = os.Getenv("HOLDFAST_BIN")
	}
	if c.Bin == "" {
		c.Bin = filepath.Join(c.Repo, "bin")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if c.Runner == nil {
		c.Runner = command.System{}
	}
	return c, nil
}

// Open returns the cluster of a directory, with what is recorded of it.
func Open(config Config) (*Cluster, error) {
	config, err := config.Defaults()
	if err != nil {
		return nil, err
	}
	state, err := loadState(filepath.Join(config.Dir, "state.json"))
	if err != nil {
		return nil, err
	}
	return &Cluster{Config: config, state: state}, nil
}

// Up starts everything, after cleaning what an earlier run left. It returns when both nodes are
// Ready and Ceph is healthy.
func (c *Cluster) Up(ctx context.Context) error {
	if err := c.Preflight(); err != nil {
		return err
	}
	if err := c.build(ctx); err != nil {
		return err
	}
	if err := c.Down(ctx); err != nil {
		return fmt.Errorf("clean what an earlier run left: %w", err)
	}
	if err := os.RemoveAll(c.logDir()); err != nil {
		return fmt.Errorf("remove old logs: %w", err)
	}
	for _, dir := range []string{c.logDir(), c.imageDir(), c.cephDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create state directory: %w", err)
		}
	}
	if err := c.networkUp(ctx); err != nil {
		return err
	}
	if err := c.writePKI(); err != nil {
		return err
	}
	if err := together(ctx, c.startCeph, c.makeImages, c.startControlPlane); err != nil {
		return err
	}
	return together(ctx,
		func(ctx context.Context) error { return c.startNode(ctx, NodeA) },
		func(ctx context.Context) error { return c.startNode(ctx, NodeB) })
}

// Preflight says what this machine lacks.
func (c *Cluster) Preflight() error {
	if os.Geteuid() != 0 {
		return errors.New("the test cluster makes namespaces and mounts: run as root")
	}
	var missing []string
	for path, pkg := range map[string]string{
		"/usr/bin/containerd": "containerd", "/usr/sbin/runc": "runc", "/usr/lib/cni/bridge": "containernetworking-plugins",
		"/usr/sbin/nft": "nftables", "/usr/sbin/conntrack": "conntrack", "/bin/busybox": "busybox-static",
		"/usr/sbin/debootstrap": "debootstrap", "/usr/bin/ceph-mon": "ceph-mon", "/usr/bin/ceph-osd": "ceph-osd",
		"/usr/bin/ceph-mds": "ceph-mds", "/usr/bin/ceph-mgr": "ceph-mgr", "/usr/sbin/ethtool": "ethtool",
	} {
		if _, err := os.Stat(path); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("packages are missing: apt-get install -y --no-install-recommends %s", strings.Join(missing, " "))
	}
	return nil
}

func (c *Cluster) logDir() string          { return filepath.Join(c.Dir, "log") }
func (c *Cluster) imageDir() string        { return filepath.Join(c.Dir, "images") }
func (c *Cluster) pkiDir() string          { return filepath.Join(c.Dir, "pki") }
func (c *Cluster) cephDir() string         { return filepath.Join(c.Dir, "ceph") }
func (c *Cluster) nodeDir(n string) string { return filepath.Join(c.Dir, n) }

// together runs the functions at once, waits for all and returns the first failure, which ends
// the context of the others.
func together(ctx context.Context, functions ...func(context.Context) error) error {
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for _, function := range functions {
		group.Go(func() {
			if err := function(limited); err != nil {
				cancel(err) // the first counts: the others fail because of it
			}
		})
	}
	group.Wait()
	return context.Cause(limited)
}

// poll calls done every interval until it says true, fails, or ctx ends; it then says what was
// waited for.
func poll(ctx context.Context, what string, interval time.Duration, done func(context.Context) (bool, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		ok, err := done(ctx)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-ticker.C:
		}
	}
}

// findRepo returns the directory of this module's go.mod, at or above the working directory.
func findRepo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find source tree: %w", err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), "module github.com/holdfast-storage/holdfast\n") {
			return dir, nil
		}
	}
	return "", errors.New("no source tree of Holdfast at or above the working directory")
}
