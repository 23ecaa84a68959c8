package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

// mountAll makes the mount namespace look like a machine of its own. The root is shared, so that
// mounts made in a pod with bidirectional propagation reach the node and other pods.
func mountAll(config Config) error {
	if err := unix.Sethostname([]byte(config.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	lib, log := filepath.Join(config.Dir, "lib"), filepath.Join(config.Dir, "log")
	for _, dir := range []string{filepath.Join(lib, "kubelet"), log} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create directory of the node: %w", err)
		}
	}
	steps := []mount{
		// Private first, so that nothing below is done to the whole machine.
		{target: "/", flags: unix.MS_REC | unix.MS_PRIVATE},
		{target: "/", flags: unix.MS_REC | unix.MS_SHARED},
		{source: "proc", target: "/proc", kind: "proc"},
		// Over the old /sys: one that shows this network namespace.
		{source: "sysfs", target: "/sys", kind: "sysfs"},
		{source: "tmpfs", target: "/run", kind: "tmpfs", data: "mode=755"},
		{source: "tmpfs", target: "/mnt", kind: "tmpfs", data: "mode=755"}, // of the node alone
		{source: lib, target: "/var/lib", flags: unix.MS_BIND},
		{source: log, target: "/var/log", flags: unix.MS_BIND},
		// Out of the peer group of the directory behind it: a volume mounted below would show
		// there too, and kubelet would hold it for in use.
		{target: "/var/lib", flags: unix.MS_PRIVATE},
		{target: "/var/lib", flags: unix.MS_SHARED},
	}
	for _, step := range steps {
		if err := unix.Mount(step.source, step.target, step.kind, step.flags, step.data); err != nil {
			return fmt.Errorf("mount %s: %w", step.target, err)
		}
	}
	return mountCgroups()
}

// mountCgroups mounts the node's cgroups, seen from its cgroup namespace: each of the hierarchies
// of version 1, or the one of version 2.
func mountCgroups() error {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("read own cgroups: %w", err)
	}
	hierarchies := versionOne(string(data))
	if len(hierarchies) == 0 {
		return mountUnified("/sys/fs/cgroup")
	}
	if err := unix.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /sys/fs/cgroup: %w", err)
	}
	for _, controllers := range hierarchies {
		target := filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(controllers, "name="))
		if err := os.Mkdir(target, 0o755); err != nil {
			return fmt.Errorf("create cgroup mount point: %w", err)
		}
		data := controllers
		if strings.HasPrefix(controllers, "name=") {
			data = "none," + controllers
		}
		if err := unix.Mount("cgroup", target, "cgroup", 0, data); err != nil {
			return fmt.Errorf("mount cgroup hierarchy %s: %w", controllers, err)
		}
	}
	return nil
}

// mountUnified mounts cgroup version 2 and moves this process into a leaf, since a cgroup with
// processes cannot hand controllers down (kernel: Documentation/admin-guide/cgroup-v2.rst, "No
// Internal Process Constraint").
func mountUnified(target string) error {
	if err := unix.Mount("cgroup2", target, "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount cgroup version 2: %w", err)
	}
	leaf := filepath.Join(target, "init")
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		return fmt.Errorf("create cgroup of the node's services: %w", err)
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("move into %s: %w", leaf, err)
	}
	controllers, err := os.ReadFile(filepath.Join(target, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	for _, controller := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(target, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("hand down cgroup controller %s: %w", controller, err)
		}
	}
	return nil
}

// versionOne returns the hierarchies of version 1 in the form of /proc/PID/cgroup (cgroups(7)):
// "ID:CONTROLLERS:PATH", where version 2 has ID 0 and no controllers.
func versionOne(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && fields[1] != "" {
			found = append(found, fields[1])
		}
	}
	return found
}
