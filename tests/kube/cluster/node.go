package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-storage/holdfast/tests/kube/node"
)

// startNode starts a node in namespaces of its own and waits until Kubernetes calls it Ready.
func (c *Cluster) startNode(ctx context.Context, name string) error {
	dir := c.nodeDir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create directory of %s: %w", name, err)
	}
	cgroups, err := c.makeCgroups(name)
	if err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(c.imageDir(), "*.tar"))
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	if err := c.writeNodeFiles(name); err != nil {
		return err
	}
	config := node.Config{
		Name: name, Dir: dir, LogDir: c.logDir(), Network: "/run/netns/" + namespaceOf(name), Cgroups: cgroups, Images: images,
		Containerd: []string{"containerd", "--config", filepath.Join(dir, "containerd.toml")},
		Kubelet: []string{
			c.program("kubelet"), "--config=" + filepath.Join(dir, "kubelet.yaml"), "--kubeconfig=" + c.pki(name+".kubeconfig"),
			"--hostname-override=" + name, "--node-ip=" + addressOf(name), "--cert-dir=" + filepath.Join(dir, "kubelet-pki"), "--v=2",
			"--node-labels=topology.kubernetes.io/zone=" + strings.TrimPrefix(name, "node-"),
		},
		Proxy: []string{c.program("kube-proxy"), "--config=" + filepath.Join(dir, "proxy.yaml"), "--hostname-override=" + name},
	}
	encoded, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return fmt.Errorf("encode configuration of %s: %w", name, err)
	}
	file := filepath.Join(dir, "node.json")
	if err := os.WriteFile(file, encoded, 0o644); err != nil {
		return fmt.Errorf("write configuration of %s: %w", name, err)
	}
	namespaces := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	if _, err := c.spawn(name, namespaces, c.program("hfkube"), "node-enter", file); err != nil {
		return err
	}
	return c.waitNode(ctx, name)
}

func (c *Cluster) waitNode(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	ready := func(ctx context.Context) (bool, error) {
		result, err := c.Kubectl(ctx, "get", "node", name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		return err == nil && string(result) == "True", c.mustLive(name)
	}
	if err := poll(ctx, name+" to be Ready", 300*time.Millisecond, ready); err != nil {
		return err
	}
	c.Log.Info("node is Ready", "node", name)
	return nil
}

// NodeProcess returns the pid of a node's first process, to look into its namespaces.
func (c *Cluster) NodeProcess(name string) (int, error) {
	for _, p := range c.state.snapshot().Processes {
		if p.Name == name && p.alive() {
			return p.PID, nil
		}
	}
	return 0, fmt.Errorf("%s does not run", name)
}

// makeCgroups makes the node's cgroup in every hierarchy, below the cgroup of this process, and
// records it. On version 1 a new cpuset is empty until it is told its processors.
func (c *Cluster) makeCgroups(name string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read own cgroups: %w", err)
	}
	var made []string
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		controllers, own := strings.TrimPrefix(fields[1], "name="), fields[2]
		parent := filepath.Join("/sys/fs/cgroup", controllers, own)
		if controllers == "" {
			// Version 2: beside, not below, since a cgroup with processes hands nothing down.
			parent = "/sys/fs/cgroup"
			if _, err := os.Stat(filepath.Join(parent, "cgroup.controllers")); err != nil {
				continue // version 1 alone is mounted
			}
		}
		cgroup := filepath.Join(parent, "holdfast-"+name)
		if err := c.state.update(func(s *stateData) {
			if !slices.Contains(s.Cgroups, cgroup) {
				s.Cgroups = append(s.Cgroups, cgroup)
			}
		}); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(cgroup, 0o755); err != nil {
			return nil, fmt.Errorf("create cgroup: %w", err)
		}
		if controllers == "cpuset" {
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				value, err := os.ReadFile(filepath.Join(parent, file))
				if err != nil {
					return nil, fmt.Errorf("read cpuset: %w", err)
				}
				if err := os.WriteFile(filepath.Join(cgroup, file), value, 0); err != nil {
					return nil, fmt.Errorf("set cpuset: %w", err)
				}
			}
		}
		made = append(made, cgroup)
	}
	return made, nil
}

// removeCgroups removes the recorded cgroups with what containers left below them.
func (c *Cluster) removeCgroups(ctx context.Context) error {
	for _, cgroup := range c.state.snapshot().Cgroups {
		// The kernel lets a cgroup go some time after its last process.
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := poll(limited, "cgroup "+cgroup+" to empty", 100*time.Millisecond, func(context.Context) (bool, error) {
			return removeTree(cgroup), nil
		})
		cancel()
		if err != nil {
			return err
		}
		if err := c.state.update(func(s *stateData) {
			s.Cgroups = slices.DeleteFunc(s.Cgroups, func(other string) bool { return other == cgroup })
		}); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes a cgroup and those below it, deepest first; false: some are still in use.
func removeTree(cgroup string) bool {
	entries, err := os.ReadDir(cgroup)
	if os.IsNotExist(err) {
		return true
	}
	for _, entry := range entries {
		if entry.IsDir() && !removeTree(filepath.Join(cgroup, entry.Name())) {
			return false
		}
	}
	return syscall.Rmdir(cgroup) == nil
}
