package node

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// DetachLoops detaches the loop devices whose backing file was set up below one of the prefixes
// (paths as a node sees them) and says whether none is left. root is where the node's files are
// seen, "" inside the node: a device whose file is there must be that very file (loop devices
// are the whole machine's, and another node may have the same path). With root "-" the node is
// gone, and only devices whose path does not exist on this machine are taken.
func DetachLoops(root string, prefixes ...string) bool {
	devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return false
	}
	clean := true
	for _, attribute := range devices {
		device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(attribute)))
		path, err := os.ReadFile(attribute)
		if err == nil && !detach(device, strings.TrimSpace(string(path)), root, prefixes) {
			clean = false
		}
	}
	return clean
}

// detach detaches one device if it is the node's own; false: it is, and still attached.
func detach(device, path, root string, prefixes []string) bool {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return true
	}
	// The kernel's path is cut when its mount is gone; the name given at setup stays.
	named := unix.ByteSliceToString(info.File_name[:])
	if !hasPrefix(path, prefixes) && !hasPrefix(named, prefixes) {
		return true
	}
	if !ours(info, path, named, root) {
		return true
	}
	if err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); err != nil {
		return false
	}
	// Still in use, the device detaches itself at the last close.
	_, err = unix.IoctlLoopGetStatus64(fd)
	return err != nil
}

func ours(info *unix.LoopInfo64, path, named, root string) bool {
	if root == "-" {
		_, errPath := os.Lstat(path)
		_, errNamed := os.Lstat(named)
		return errPath != nil && errNamed != nil
	}
	var stat unix.Stat_t
	if err := unix.Stat(root+path, &stat); err != nil {
		return false
	}
	return stat.Dev == info.Device && stat.Ino == info.Inode
}

func hasPrefix(path string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
