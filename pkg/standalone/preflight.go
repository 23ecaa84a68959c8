package standalone

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// checkRoot refuses other users: OSDs on disks, mounts and loop devices need root.
func checkRoot() error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Denied, "this needs root: run it with sudo")
	}
	return nil
}

// csiPrograms are what the CSI services call beside Ceph's daemons.
var csiPrograms = [...][2]string{
	{"ceph-fuse", "ceph-fuse"},
	{"qemu-storage-daemon", "qemu-system-common"},
	{qemuRBD, "qemu-block-extra"},
	{"mkfs.xfs", "xfsprogs"},
	{"mkfs.ext4", "e2fsprogs"},
}

// qemuRBD is the plug-in that lets qemu-storage-daemon speak RBD; a file, not a program.
const qemuRBD = "/usr/lib/*/qemu/block-rbd.so"

// checkPackages names everything that is missing in one apt-get command.
func checkPackages(look func(string) (string, error), csi bool) error {
	missing := map[string]bool{}
	for program, pkg := range daemon.Programs() {
		if _, err := look(program); err != nil {
			missing[pkg] = true
		}
	}
	if csi {
		for _, p := range csiPrograms {
			if _, err := look(p[0]); err != nil {
				missing[p[1]] = true
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var names []string
	for pkg := range missing {
		names = append(names, pkg)
	}
	sort.Strings(names)
	return fault.New(fault.Precondition, "programs are missing: install them with\n  apt-get install -y --no-install-recommends %s", strings.Join(names, " "))
}

// lookPath finds programs also where root's PATH is a user's (after su without -), and
// files by a pattern.
func lookPath(program string) (string, error) {
	if strings.Contains(program, "*") {
		if found, err := filepath.Glob(program); err != nil || len(found) == 0 {
			return "", exec.ErrNotFound
		}
		return program, nil
	}
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + program); err == nil {
			return path, nil
		}
	}
	return "", fault.New(fault.NotFound, "no program %s", program)
}

// freeSpace returns what root can still write to the file system of dir.
func freeSpace(dir string) (storage.Bytes, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("read free space of %s: %w", dir, err)
	}
	return storage.Bytes(fs.Bavail) * storage.Bytes(fs.Bsize), nil
}

// checkSpace refuses a new cluster where even the empty one would not have room. The
// OSDs' files are sparse: that they may grow beyond the free space is told, and watched
// later, but not refused.
func checkSpace(dir string, free storage.Bytes, files int, size storage.Bytes) (note string, err error) {
	need := floorOfSpace + storage.Bytes(files)*shareOfSpaceForOneOSD
	if free < need {
		return "", fault.New(fault.Exhausted, "%s has %s free: a cluster needs at least %s to begin with; free some, or choose another --data-dir", dir, free, need)
	}
	if wanted := storage.Bytes(files) * size; free < wanted {
		return fmt.Sprintf("%s has %s free, and full OSDs would take %s: keep an eye on it, or use fewer or smaller OSDs", dir, free, wanted), nil
	}
	return "", nil
}

// checkListen accepts addresses of the machine itself alone: metrics name volumes.
func checkListen(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fault.New(fault.Invalid, "--listen %s is not HOST:PORT", listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fault.New(fault.Invalid, "--listen %s: only loopback addresses (127.0.0.1:PORT) are allowed", listen)
	}
	return nil
}
