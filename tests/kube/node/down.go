package node

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// backends are the processes that serve mounted volumes: they live until nothing is mounted.
var backends = map[string]bool{"qemu-storage-daemon": true, "qemu-storage-da": true, "ceph-fuse": true, "holdfastd": true}

// volumePaths are where files behind loop devices are.
var volumePaths = []string{"/var/lib/kubelet/", "/run/holdfast/"}

// takeDown ends the node's processes, unmounts its volumes while their backends still answer,
// and detaches its loop devices. What is left ends with the pid namespace.
func takeDown(ctx context.Context, log *slog.Logger) {
	killExcept(backends)
	wait(ctx, 200*time.Millisecond)
	killExcept(backends) // what a shim had just started
	for range 10 {
		// Devices before mounts, since their files are told by paths that unmounting takes away;
		// one that is mounted goes when its mount does.
		clean := detachLoops(volumePaths...)
		if unmountBelow("/var/lib/kubelet/", log) == 0 && clean || !wait(ctx, 100*time.Millisecond) {
			break
		}
	}
	unmountBelow("/run/holdfast/", log)
	log.Info("node is down")
}

// killExcept kills every other process of this pid namespace but those named.
func killExcept(spared map[string]bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		name, err := os.ReadFile("/proc/" + entry.Name() + "/comm")
		if err != nil || spared[strings.TrimSpace(string(name))] {
			continue
		}
		// It may have ended in between; then there is nothing to do.
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// unmountBelow unmounts everything below prefix, deepest first, and returns how many mounts were
// there.
func unmountBelow(prefix string, log *slog.Logger) int {
	targets := mountsBelow(prefix)
	for _, target := range slices.Backward(targets) {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			log.Warn("a mount stays", "path", target, "err", err)
		}
	}
	return len(targets)
}

// mountsBelow lists mount points in the order in which they were made.
func mountsBelow(prefix string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var targets []string
	for line := range strings.Lines(string(data)) {
		// proc(5): the fifth field is the mount point, with spaces and the like in octal.
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], prefix) {
			targets = append(targets, unescape(fields[4]))
		}
	}
	return targets
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescape(path string) string { return mountEscapes.Replace(path) }

// wait waits for d; it says false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
