// Package node is the inside of one node of the test cluster: the first process of its
// namespaces. It mounts what a machine has (proc, sys, cgroups, its own /var/lib, /var/log and
// /run), runs containerd, kubelet and kube-proxy, reaps orphans, and on SIGTERM takes the node
// down in the order that leaves no mount and no loop device behind.
//
// It starts in new pid, mount, uts and ipc namespaces (Enter), joins its network and cgroups, and
// executes itself again (Run), since a process of many threads cannot change those for all.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config is what the harness tells a node, as a JSON file.
type Config struct {
	Name       string   `json:"name"`
	Dir        string   `json:"dir"`        // the node's own state; log/ and lib/ in it become /var/log and /var/lib
	LogDir     string   `json:"logDir"`     // where the output of its services goes
	Network    string   `json:"network"`    // path of the network namespace
	Cgroups    []string `json:"cgroups"`    // the node's own cgroup, one a hierarchy
	Images     []string `json:"images"`     // docker archives to import
	Containerd []string `json:"containerd"` // command lines
	Kubelet    []string `json:"kubelet"`
	Proxy      []string `json:"proxy"`
}

// Socket is containerd's, inside the node.
const Socket = "/run/containerd/containerd.sock"

// ReadConfig reads the harness's file.
func ReadConfig(path string) (Config, error) {
	var config Config
	data, err := os.ReadFile(path)
	if err != nil {
		return config, fmt.Errorf("read node configuration: %w", err)
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return config, fmt.Errorf("read node configuration %s: %w", path, err)
	}
	return config, nil
}

// Enter joins the node's cgroups and network and executes `argv` in them. It returns only errors.
func Enter(config Config, argv []string) error {
	runtime.LockOSThread() // what follows is the thread's own until exec makes it the process's
	for _, cgroup := range config.Cgroups {
		// "0" is the writer itself, whatever pid namespace it is in.
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make cgroup namespace: %w", err)
	}
	network, err := os.Open(config.Network)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer network.Close()
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("join network namespace: %w", err)
	}
	if err := syscall.Exec("/proc/self/exe", argv, os.Environ()); err != nil {
		return fmt.Errorf("start inside the node: %w", err)
	}
	return nil
}

// Run is the life of the node's first process: it returns after SIGTERM, or when a service of
// the node has ended on its own.
func Run(ctx context.Context, log *slog.Logger, config Config) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := mountAll(config); err != nil {
		return err
	}
	children := newReaper()
	defer children.close()
	ended := make(chan string, 3)
	if err := children.start(config, "containerd", config.Containerd, ended); err != nil {
		return err
	}
	if err := waitForSocket(ctx, Socket); err != nil {
		return err
	}
	if err := importImages(ctx, log, config, children); err != nil {
		return err
	}
	if err := children.start(config, "kube-proxy", config.Proxy, ended); err != nil {
		return err
	}
	if err := children.start(config, "kubelet", config.Kubelet, ended); err != nil {
		return err
	}
	recorded := make(chan error, 1)
	go func() { recorded <- keepRecord(ctx, RecordFile(config.Dir), volumePaths...) }()
	log.Info("node runs", "node", config.Name)
	var err error
	select {
	case <-ctx.Done():
	case name := <-ended:
		err = fmt.Errorf("%s of %s has ended", name, config.Name)
	}
	// The node goes down in good order whatever the reason; ctx has ended, so it gets its own.
	down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	stop()
	takeDown(down, log)
	return errors.Join(err, <-recorded)
}

func waitForSocket(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", path, ctx.Err())
		case <-ticker.C:
		}
	}
}

func importImages(ctx context.Context, log *slog.Logger, config Config, children *reaper) error {
	for _, image := range config.Images {
		start := time.Now()
		argv := []string{"ctr", "--address", Socket, "--namespace", "k8s.io", "images", "import", image}
		if err := children.run(ctx, config, "import", argv); err != nil {
			return fmt.Errorf("import image %s: %w", filepath.Base(image), err)
		}
		log.Info("image imported", "image", filepath.Base(image), "took", time.Since(start).Round(time.Millisecond))
	}
	return nil
}
