package disk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// kernel is what is read once a scan and concerns all disks. Devices are named as the kernel
// names them ("sdb1", "dm-3").
type kernel struct {
	drivers map[uint32]string   // by major number
	mounts  map[string][]string // mount points by "major:minor" and by name
	swaps   map[string]bool
	links   map[string][]string // names below /dev/disk/by-id; empty without udev
}

func readKernel(root string) (kernel, error) {
	var k kernel
	var errs [4]error
	k.drivers, errs[0] = readDrivers(root)
	k.mounts, errs[1] = readMounts(root)
	k.swaps, errs[2] = readSwaps(root)
	k.links, errs[3] = readLinks(root)
	return k, errors.Join(errs[:]...)
}

// readDrivers reads the block drivers of /proc/devices.
func readDrivers(root string) (map[uint32]string, error) {
	data, err := os.ReadFile(filepath.Join(root, "proc/devices"))
	if err != nil {
		return nil, fmt.Errorf("read the drivers' major numbers: %w", err)
	}
	_, blocks, ok := strings.Cut(string(data), "Block devices:")
	if !ok {
		return nil, errors.New("read the drivers' major numbers: /proc/devices lists no block devices")
	}
	drivers := map[uint32]string{}
	for line := range strings.Lines(blocks) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		if major, err := strconv.ParseUint(fields[0], 10, 32); err == nil {
			drivers[uint32(major)] = fields[1]
		}
	}
	return drivers, nil
}

// readMounts reads the mounts of this process and those of init, which differ in a
// container. Mounts in other namespaces show by the exclusive open.
func readMounts(root string) (map[string][]string, error) {
	mounts, read := map[string][]string{}, 0
	for _, process := range []string{"self", "1"} {
		data, err := os.ReadFile(filepath.Join(root, "proc", process, "mountinfo"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read mounts: %w", err)
		}
		infos, err := mountinfo.GetMountsFromReader(bytes.NewReader(data), nil)
		if err != nil {
			return nil, fmt.Errorf("read mounts: %w", err)
		}
		read++
		for _, m := range infos {
			addMount(mounts, fmt.Sprintf("%d:%d", m.Major, m.Minor), m.Mountpoint)
			if strings.HasPrefix(m.Source, "/dev/") { // btrfs has numbers of its own
				addMount(mounts, kernelName(root, m.Source), m.Mountpoint)
			}
		}
	}
	if read == 0 {
		return nil, errors.New("read mounts: there is no readable /proc/self/mountinfo")
	}
	return mounts, nil
}

func addMount(mounts map[string][]string, device, point string) {
	if !slices.Contains(mounts[device], point) {
		mounts[device] = append(mounts[device], point)
	}
}

// kernelName follows links: "/dev/mapper/vg-lv" is "dm-3".
func kernelName(root, device string) string {
	if target, err := filepath.EvalSymlinks(filepath.Join(root, device)); err == nil {
		device = target
	}
	return filepath.Base(device)
}

// readSwaps reads /proc/swaps; a kernel without swap has none.
func readSwaps(root string) (map[string]bool, error) {
	data, err := os.ReadFile(filepath.Join(root, "proc/swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read swaps: %w", err)
	}
	swaps := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) >= 2 && fields[1] == "partition" {
			swaps[kernelName(root, strings.TrimSuffix(fields[0], `\040(deleted)`))] = true
		}
	}
	return swaps, lines.Err()
}

// readLinks reads the names that udev gives to disks.
func readLinks(root string) (map[string][]string, error) {
	dir := filepath.Join(root, "dev/disk/by-id")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list by-id names: %w", err)
	}
	links := map[string][]string{}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // udev removes and makes them at any time
		}
		name := filepath.Base(target)
		links[name] = append(links[name], entry.Name())
	}
	return links, nil
}
