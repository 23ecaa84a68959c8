package node

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tagPrefix is what Holdfast's loop devices carry in lo_file_name (package csi/attach).
const tagPrefix = "holdfast:"

// detachLoops detaches the loop devices whose backing file is below one of the prefixes in this
// node, and says whether none is left. Loop devices are the whole machine's, and another node may
// have the same paths: a device is this node's when the file at its path is that very file.
func detachLoops(prefixes ...string) bool {
	clean := true
	eachLoop(func(fd int, path string, info *unix.LoopInfo64) {
		var stat unix.Stat_t
		if !hasPrefix(path, prefixes) || unix.Stat(path, &stat) != nil || stat.Dev != info.Device || stat.Ino != info.Inode {
			return
		}
		clean = detach(fd) && clean
	})
	return clean
}

// DetachDeadLoops detaches what nodes that were killed have left: devices of Holdfast or kubelet
// whose backing file's mount is gone, so that the kernel knows no more of its path than "/".
func DetachDeadLoops() {
	// Twice: kubelet holds a raw block device by a loop device on top of it.
	for range 2 {
		eachLoop(func(fd int, path string, info *unix.LoopInfo64) {
			if name := unix.ByteSliceToString(info.File_name[:]); path == "/" && hasPrefix(name, []string{tagPrefix, "/var/lib/kubelet/"}) {
				detach(fd)
			}
		})
	}
}

// eachLoop calls do for every loop device in use; path is what the kernel says of its file.
func eachLoop(do func(fd int, path string, info *unix.LoopInfo64)) {
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
			do(fd, strings.TrimSpace(string(path)), info)
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
