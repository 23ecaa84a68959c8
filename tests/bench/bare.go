package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// byHand mounts images as a person would who knows all the commands: an export by FUSE, a loop
// device on it, a file system, a mount and a second one where a pod would see it.
type byHand struct {
	run  command.Runner
	conf string // ceph.conf of the cluster's administrator
	dir  string
}

func (h byHand) path(volume, what string) string { return filepath.Join(h.dir, volume, what) }

// mount makes the file system too when format is set.
func (h byHand) mount(ctx context.Context, volume string, format bool) error {
	for _, name := range []string{"stage", "target"} {
		if err := os.MkdirAll(h.path(volume, name), 0o700); err != nil {
			return err
		}
	}
	export := h.path(volume, "export")
	if err := os.WriteFile(export, nil, 0o600); err != nil {
		return err
	}
	disk, err := json.Marshal(map[string]any{
		"driver": "rbd", "node-name": "disk", "pool": "rbd", "image": volume, "conf": h.conf, "discard": "unmap",
	})
	if err != nil {
		return err
	}
	steps := []command.Cmd{
		{Name: "qemu-storage-daemon", Args: []string{
			"--daemonize", "--pidfile", h.path(volume, "pid"), "--blockdev", string(disk),
			"--export", "type=fuse,id=export,node-name=disk,writable=on,mountpoint=" + export,
		}},
		{Name: "losetup", Args: []string{"--find", "--show", "--direct-io=on", export}},
	}
	var device string
	for _, c := range steps {
		out, err := h.run.Run(ctx, c)
		if err != nil {
			return err
		}
		device = strings.TrimSpace(string(out.Stdout))
	}
	if err := os.WriteFile(h.path(volume, "device"), []byte(device), 0o600); err != nil {
		return err
	}
	steps = []command.Cmd{
		{Name: "mount", Args: []string{device, h.path(volume, "stage")}},
		{Name: "mount", Args: []string{"--bind", h.path(volume, "stage"), h.path(volume, "target")}},
	}
	if format {
		steps = append([]command.Cmd{{Name: "mkfs.xfs", Args: []string{"-q", "-K", device}}}, steps...)
	}
	for _, c := range steps {
		if _, err := h.run.Run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (h byHand) unmount(ctx context.Context, volume string) error {
	device, err := os.ReadFile(h.path(volume, "device"))
	if err != nil {
		return err
	}
	for _, c := range []command.Cmd{
		{Name: "umount", Args: []string{h.path(volume, "target")}},
		{Name: "umount", Args: []string{h.path(volume, "stage")}},
		{Name: "losetup", Args: []string{"--detach", string(device)}},
	} {
		if _, err := h.run.Run(ctx, c); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(h.path(volume, "pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("pid of the export: %w", err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	return poll.Until(ctx, 5*time.Millisecond, func() (bool, error) {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH), nil
	})
}
