package crash

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// nothingBelow fails on mounts and loop devices below dir and on helpers (qemu-storage-daemon, ceph-fuse)
// that keep their files there. A helper takes a moment to end.
func nothingBelow(dir string) error {
	var left []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if left = below(dir); len(left) == 0 {
			return nil
		}
	}
	return fmt.Errorf("left on the machine:\n  %s", strings.Join(left, "\n  "))
}

func below(dir string) []string {
	var left []string
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.SplitSeq(string(mounts), "\n") {
		if strings.Contains(line, " "+dir+"/") {
			left = append(left, "mount "+line)
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		line, _ := os.ReadFile(path)
		program := filepath.Base(string(bytes.SplitN(line, []byte{0}, 2)[0]))
		if (program == "qemu-storage-daemon" || program == "ceph-fuse") && bytes.Contains(line, []byte(dir+"/")) {
			left = append(left, "process "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range loops {
		if file, _ := os.ReadFile(path); strings.HasPrefix(string(file), dir+"/") {
			left = append(left, "loop device of "+strings.TrimSpace(string(file)))
		}
	}
	return left
}
