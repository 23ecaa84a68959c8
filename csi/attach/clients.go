package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/attach/keeper"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Client returns the address by which the cluster knows the device's client, "" where this machine
// does not show it: then it is found among the image's watchers.
func (d *Devices) Client(_ context.Context, dev Device) (ceph.ClientAddress, error) {
	if dev.Mounter != Krbd {
		return "", nil
	}
	data, err := os.ReadFile(d.krbd.bus("devices", strings.TrimPrefix(filepath.Base(dev.mapped().Path), "rbd"), "client_addr"))
	if errors.Is(err, os.ErrNotExist) { // a kernel before 4.9
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("address of the client of %s: %w", dev.Path, err)
	}
	return ceph.ParseClient(strings.TrimSpace(string(data)))
}

// Living reports whether a client that this machine had may still write to the volume.
func (d *Devices) Living(ctx context.Context, volume, mounter string, client ceph.ClientAddress) (bool, error) {
	if mounter != Krbd {
		return helperLives(d.keeper.Describe(ctx, ID(volume)))
	}
	files, err := filepath.Glob(d.krbd.bus("devices", "*", "client_addr"))
	if err != nil {
		return false, err
	}
	for _, file := range files {
		data, _ := os.ReadFile(file) // it may go this moment
		if have, err := ceph.ParseClient(strings.TrimSpace(string(data))); err == nil && have == client {
			return true, nil
		}
	}
	return false, nil
}

// helperLives judges by what the keeper answers: an attachment has one helper at a time, and an
// earlier one is dead before the next begins.
func helperLives(status keeper.Status, err error) (bool, error) {
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil && status.Lives(), err
}

// Client returns the address by which the cluster knows a mount's client, "" where the kernel
// does not tell it.
func (d *Directories) Client(ctx context.Context, m Mount) (ceph.ClientAddress, error) {
	if m.Mounter != KernelFS {
		status, err := d.keeper.Describe(ctx, ID(m.Volume))
		if err != nil {
			return "", err
		}
		return ceph.ParseClient(status.Client)
	}
	id := make([]byte, 64)
	n, err := unix.Getxattr(m.Target, "ceph.client_id", id) // "client4242"; Linux 5.11 on
	if err != nil {
		return "", nil //nolint:nilerr // an older kernel
	}
	list, err := kernelClients()
	if errors.Is(err, fault.Unsupported) {
		return "", nil // a kernel without debugfs
	}
	return list[strings.TrimPrefix(string(id[:n]), "client")], err
}

// Living reports whether a client that this machine had may still write to the volume.
func (d *Directories) Living(ctx context.Context, volume, mounter string, client ceph.ClientAddress) (bool, error) {
	if mounter != KernelFS {
		status, err := d.keeper.Describe(ctx, ID(volume))
		if have, bad := ceph.ParseClient(status.Client); bad == nil && have != client {
			return false, err // a later one
		}
		return helperLives(status, err)
	}
	list, err := kernelClients()
	if err != nil {
		return false, err
	}
	for _, have := range list {
		if have == client {
			return true, nil
		}
	}
	return false, nil
}

// instance is the line of debugfs's ceph/FSID.clientID/status that names the client:
// "instance: client.4242 (2)10.0.0.1:0/123" (net/ceph/debugfs.c).
var instance = regexp.MustCompile(`(?m)^instance: client\.(\d+) (?:\(\d+\))?(\S+)$`)

// kernelClients lists the kernel's own CephFS and RBD clients by their number.
func kernelClients() (map[string]ceph.ClientAddress, error) {
	const debug = "/sys/kernel/debug"
	if _, err := os.Stat(debug + "/ceph"); err == nil {
		return readClients(debug + "/ceph")
	}
	// Not mounted here (a container): for a moment, elsewhere.
	dir, err := os.MkdirTemp("", "debug")
	if err != nil {
		return nil, fmt.Errorf("look for clients of the kernel: %w", err)
	}
	defer os.Remove(dir)
	if err := unix.Mount("none", dir, "debugfs", 0, ""); err != nil {
		return nil, fault.As(fault.Unsupported, fmt.Errorf("look for clients of the kernel (debugfs): %w", err))
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	return readClients(filepath.Join(dir, "ceph"))
}

func readClients(dir string) (map[string]ceph.ClientAddress, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "status"))
	if err != nil {
		return nil, err
	}
	list := map[string]ceph.ClientAddress{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // it went this moment
		}
		if err != nil {
			return nil, fmt.Errorf("look for clients of the kernel: %w", err)
		}
		id, client, ok := parseInstance(data)
		if ok {
			list[id] = client
		}
	}
	return list, nil
}

func parseInstance(status []byte) (id string, client ceph.ClientAddress, ok bool) {
	found := instance.FindSubmatch(bytes.TrimSpace(status))
	if found == nil {
		return "", "", false
	}
	client, err := ceph.ParseClient(string(found[2]))
	return string(found[1]), client, err == nil
}
