package standalone

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// usage is what this machine has of the cluster's volumes: found in the kernel's own
// tables, so that it holds also when no service of ours can be asked.
type usage struct {
	mounts  []string // mount points of volumes, innermost last
	roots   []string // mount points of user-space attachers, below DIR/run
	loops   []string // loop devices on attached images
	mapped  []string // kernel RBD devices ("0" for /dev/rbd0)
	bare    []string // devices of those two that are mounted nowhere: raw block volumes
	helpers []process
}

// find what is in use. Every device that an attachment of this cluster gives rise to is
// followed to all the places where it is mounted.
func (s *Supervisor) usage() (usage, error) {
	var u usage
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		return u, fmt.Errorf("read mounts: %w", err)
	}
	devices := map[string]bool{} // "major:minor"
	below := s.attachDir() + "/"
	staged := s.stagingPaths()
	for _, m := range all {
		if !strings.HasPrefix(m.FSType, "fuse") {
			continue
		}
		root := strings.HasPrefix(m.Mountpoint, below)
		if root {
			u.roots = append(u.roots, m.Mountpoint)
		}
		if root || staged[m.Mountpoint] || strings.HasPrefix(m.Mountpoint, s.dir+"/") {
			devices[fmt.Sprintf("%d:%d", m.Major, m.Minor)] = true
		}
	}
	u.loops = loopsBelow(below)
	u.mapped = s.mappedImages()
	blocks := map[string]string{} // number to name
	for _, name := range u.loops {
		blocks[deviceNumber(name)] = name
	}
	for _, id := range u.mapped {
		blocks[deviceNumber("/dev/rbd"+id)] = "/dev/rbd" + id
	}
	for number := range blocks {
		devices[number] = true
	}
	for _, m := range all {
		if slices.Contains(u.roots, m.Mountpoint) {
			continue
		}
		number := fmt.Sprintf("%d:%d", m.Major, m.Minor)
		if devices[number] || s.kernelCephFS(m) {
			u.mounts = append(u.mounts, m.Mountpoint)
			delete(blocks, number)
		}
	}
	u.bare = slices.Sorted(maps.Values(blocks))
	u.helpers, err = processes(s.paths.Run(), func(p process) bool {
		return len(p.Args) > 1 && slices.Contains(helperPrograms[:], filepath.Base(p.Args[0])) && strings.Contains(strings.Join(p.Args[1:], "\x00"), below)
	})
	return u, err
}

// stagingPaths are where the node service has staged volumes, by its own records: the
// mount of a ceph-fuse is handed over to its staging path and is nowhere else.
func (s *Supervisor) stagingPaths() map[string]bool {
	paths := map[string]bool{}
	files, _ := filepath.Glob(filepath.Join(s.nodeDir(), "*", "*.json")) // DIR/<driver>/<volume>.json
	for _, file := range files {
		var record struct {
			Staging string `json:"staging"`
		}
		if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &record) == nil && record.Staging != "" {
			paths[record.Staging] = true
		}
	}
	return paths
}

var helperPrograms = [...]string{"qemu-storage-daemon", "ceph-fuse"}

// deviceNumber returns "major:minor" of a block device.
func deviceNumber(dev string) string {
	data, err := os.ReadFile("/sys/block/" + filepath.Base(dev) + "/dev")
	if err != nil {
		return "gone"
	}
	return strings.TrimSpace(string(data))
}

// loopsBelow lists the loop devices whose file lies below a directory.
func loopsBelow(dir string) []string {
	var list []string
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(backing), dir) {
			list = append(list, "/dev/"+strings.Split(file, "/")[3])
		}
	}
	return list
}

// mappedImages lists the kernel's RBD devices of this cluster (ABI/testing/sysfs-bus-rbd).
func (s *Supervisor) mappedImages() []string {
	var list []string
	files, _ := filepath.Glob("/sys/bus/rbd/devices/*/cluster_fsid")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(data)) == s.state.FSID {
			list = append(list, filepath.Base(filepath.Dir(file)))
		}
	}
	return list
}

// kernelCephFS: the source of a kernel mount names the monitors or the fsid (mount.ceph(8)).
func (s *Supervisor) kernelCephFS(m *mountinfo.Info) bool {
	if m.FSType != "ceph" {
		return false
	}
	text := m.Source + "," + m.VFSOptions
	if strings.Contains(text, s.state.FSID) {
		return true
	}
	for _, mon := range s.state.Mons {
		for _, port := range []int{mon.V1, mon.V2} {
			if strings.Contains(text, net.JoinHostPort(s.state.Address, strconv.Itoa(port))) {
				return true
			}
		}
	}
	return false
}
