package attach

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// snapDir is the name of the directory of snapshots that every CephFS directory has. Clients make
// it up: the MDS knows no path through it, and no client mounts one.
const snapDir = "/.snap/"

// source returns the directory to mount for a path, and the path of what is asked for inside it:
// "/" but for a path into a snapshot.
func source(path string) (mounted, inside string) {
	above, below, ok := strings.Cut(path, snapDir)
	if !ok {
		return path, "/"
	}
	if above == "" {
		above = "/"
	}
	return above, snapDir + below
}

// show binds what is inside a mount to target.
func show(mounted, inside, target string) error {
	err := unix.Mount(strings.TrimSuffix(mounted+inside, "/"), target, "", unix.MS_BIND, "")
	if errors.Is(err, unix.ENOENT) && inside != "/" {
		return fault.New(fault.NotFound, "the snapshot %s is not there: was it removed in Ceph?", inside)
	}
	if err != nil {
		return fmt.Errorf("bind %s to %s: %w", mounted+inside, target, err)
	}
	return nil
}

// kernelInside mounts a directory by the kernel's client where nobody sees it, and shows what is
// inside it at target.
func (d *Directories) kernelInside(ctx context.Context, devices, inside, target string, flags uintptr, data string) error {
	aside, err := os.MkdirTemp("", "holdfast-snapshot-")
	if err != nil {
		return fmt.Errorf("make a directory to mount on: %w", err)
	}
	if err := d.mount(ctx, devices, aside, flags, data); err != nil {
		return errors.Join(err, os.Remove(aside))
	}
	err = show(aside, inside, target)
	if gone := unix.Unmount(aside, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); gone != nil {
		return errors.Join(err, fmt.Errorf("unmount %s: %w", aside, gone))
	}
	return errors.Join(err, os.Remove(aside))
}
