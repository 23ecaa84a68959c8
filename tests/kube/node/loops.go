package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// detachLoops detaches the loop devices whose backing file is below one of the prefixes in this
// node, and says whether none is left. Loop devices are the whole machine's, and another node may
// have the same paths: a device is this node's when the file at its path is that very file.
func detachLoops(prefixes ...string) bool {
	clean := true
	eachLoop(func(fd int, _, path string, info *unix.LoopInfo64) {
		if mine(path, info, prefixes) {
			clean = detach(fd) && clean
		}
	})
	return clean
}

// ownLoops returns this node's loop devices, each with its sequence number: a device's name comes
// again, the number never (kernel: Documentation/ABI/stable/sysfs-block, diskseq).
func ownLoops(prefixes ...string) map[string]string {
	own := map[string]string{}
	eachLoop(func(fd int, device, path string, info *unix.LoopInfo64) {
		if mine(path, info, prefixes) {
			own[device] = sequence(device)
		}
	})
	return own
}

// keepRecord writes the node's loop devices to file whenever they change, until ctx ends: for
// DetachRecorded, should this process be killed.
func keepRecord(ctx context.Context, file string, prefixes ...string) error {
	var last map[string]string
	for wait(ctx, 500*time.Millisecond) {
		own := ownLoops(prefixes...)
		if maps.Equal(own, last) {
			continue
		}
		data, err := json.Marshal(own)
		if err != nil {
			return fmt.Errorf("encode loop devices: %w", err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return fmt.Errorf("record loop devices: %w", err)
		}
		last = own
	}
	return nil
}

// RecordFile is where a node of the given state directory records its loop devices.
func RecordFile(dir string) string { return filepath.Join(dir, "loops.json") }

// DetachRecorded detaches what a node that was killed has left. A loop device over a dead FUSE
// mount tells nothing of itself any more, but its sequence number does.
func DetachRecorded(file string) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read loop devices of a node: %w", err)
	}
	var recorded map[string]string
	if err := json.Unmarshal(data, &recorded); err != nil {
		return fmt.Errorf("read loop devices %s: %w", file, err)
	}
	// Twice: kubelet holds a raw block device by a loop device on top of it.
	for range 2 {
		for device, number := range recorded {
			if number == "" || sequence(device) != number {
				continue
			}
			if fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
				detach(fd)
				unix.Close(fd)
			}
		}
	}
	return nil
}

func sequence(device string) string {
	data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "diskseq"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// mine says whether the device's file is below one of the prefixes in this node.
func mine(path string, info *unix.LoopInfo64, prefixes []string) bool {
	var stat unix.Stat_t
	return hasPrefix(path, prefixes) && unix.Stat(path, &stat) == nil && stat.Dev == info.Device && stat.Ino == info.Inode
}

// eachLoop calls do for every loop device in use; path is what the kernel says of its file.
func eachLoop(do func(fd int, device, path string, info *unix.LoopInfo64)) {
	attributes, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return
	}
	for _, attribute := range attributes {
		path, err := os.ReadFile(attribute)
		if err != nil {
			continue // it went in between
		}
		device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(attribute)))
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if info, err := unix.IoctlLoopGetStatus64(fd); err == nil {
			do(fd, device, strings.TrimSpace(string(path)), info)
		}
		unix.Close(fd)
	}
}

// detach says whether the device is free now; one still in use frees itself at its last close.
func detach(fd int) bool {
	if err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); err != nil {
		return false
	}
	_, err := unix.IoctlLoopGetStatus64(fd)
	return err != nil
}

func hasPrefix(path string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
