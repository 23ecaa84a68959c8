package attach

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// krbd maps images through sysfs:
// https://docs.kernel.org/admin-guide/abi-testing.html (sysfs-bus-rbd). The key goes
// through the write alone; the rbd command would take seconds and need a keyring file.
type krbd struct {
	sys    string                        // "/sys", elsewhere in tests
	dev    string                        // "/dev"
	put    func(path, line string) error // writes a line to a file of sys
	writes sync.WaitGroup
}

func newKrbd() *krbd { return &krbd{sys: "/sys", dev: "/dev", put: writeLine} }

// A map that finds no monitor gives up after this many seconds, not the kernel's 60.
const krbdMountTimeout = 30

func (k *krbd) bus(parts ...string) string {
	return filepath.Join(append([]string{k.sys, "bus/rbd"}, parts...)...)
}

// addFile is the file that maps; "single major" is what all kernels since 3.14 have.
func (k *krbd) available() bool {
	_, err := os.Stat(k.bus("add_single_major"))
	return err == nil
}

// featureBits are the image features by name; include/rbd/features.h of Ceph.
var featureBits = map[string]uint64{
	"layering": 1, "striping": 2, "exclusive-lock": 4, "object-map": 8, "fast-diff": 16,
	"deep-flatten": 32, "journaling": 64, "data-pool": 128, "operations": 256, "migrating": 512, "non-primary": 1024,
}

// lacks returns the features that this kernel cannot do.
func (k *krbd) lacks(features []string) []string {
	data, err := os.ReadFile(k.bus("supported_features"))
	if err != nil {
		return nil // kernels before 4.11: the map itself will tell
	}
	mask, err := strconv.ParseUint(strings.TrimSpace(string(data)), 0, 64)
	if err != nil {
		return nil
	}
	var missing []string
	for _, f := range features {
		if bit, ok := featureBits[f]; !ok || mask&bit == 0 {
			missing = append(missing, f)
		}
	}
	return missing
}

// mapping is a mapped image as sysfs shows it.
type mapping struct {
	id       string
	readOnly bool
}

// find looks for a mapping of the image's head.
func (k *krbd) find(fsid, pool, namespace, image string) (mapping, bool, error) {
	list, err := k.all(fsid, pool, namespace, image)
	if err != nil || len(list) == 0 {
		return mapping{}, false, err
	}
	return list[0], true, nil
}

// all lists the mappings of the image's head. There is one at most, except when a map that
// was given up on came to its end later.
func (k *krbd) all(fsid, pool, namespace, image string) ([]mapping, error) {
	entries, err := os.ReadDir(k.bus("devices"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list mapped images: %w", err)
	}
	var list []mapping
	for _, e := range entries {
		attr := func(name string) string {
			data, _ := os.ReadFile(k.bus("devices", e.Name(), name))
			return strings.TrimSuffix(string(data), "\n")
		}
		if attr("name") != image || attr("pool") != pool || attr("pool_ns") != namespace || attr("current_snap") != "-" {
			continue
		}
		if have := attr("cluster_fsid"); fsid != "" && have != "" && have != fsid {
			continue
		}
		ro, _ := os.ReadFile(filepath.Join(k.sys, "block/rbd"+e.Name(), "ro"))
		list = append(list, mapping{id: e.Name(), readOnly: strings.TrimSpace(string(ro)) == "1"})
	}
	return list, nil
}

// one returns the image's mapping. Of several those go that nobody has open, until one is
// left: an image in two devices is two caches of one file system. fault.Busy: two are in use.
func (k *krbd) one(ctx context.Context, img Image) (mapping, bool, error) {
	list, err := k.all(img.FSID, img.Pool, img.Namespace, img.Name)
	for i := len(list) - 1; i >= 0 && len(list) > 1; i-- {
		err := k.write(ctx, k.bus("remove_single_major"), list[i].id)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if ignore(err, unix.ENOENT) != nil {
			return mapping{}, false, fmt.Errorf("unmap rbd%s, a second mapping: %w", list[i].id, err)
		}
		list = slices.Delete(list, i, i+1)
	}
	switch {
	case err != nil || len(list) == 0:
		return mapping{}, false, err
	case len(list) > 1:
		return mapping{}, false, fault.New(fault.Busy, "%s/%s is mapped twice, as rbd%s and rbd%s, and both are in use: unmount one by hand", img.Pool, img.Name, list[0].id, list[1].id)
	}
	return list[0], true, nil
}

// attach maps the image, or returns the mapping that is there.
func (k *krbd) attach(ctx context.Context, img Image) (string, error) {
	m, found, err := k.one(ctx, img)
	if err != nil {
		return "", err
	}
	if found && m.readOnly != img.ReadOnly {
		if err := k.remove(ctx, m.id, ""); err != nil {
			return "", err
		}
		found = false
	}
	if !found {
		line, err := krbdLine(ctx, img)
		if err != nil {
			return "", err
		}
		if err := k.write(ctx, k.bus("add_single_major"), line); err != nil {
			return "", krbdError(img, err)
		}
		if m, found, err = k.one(ctx, img); err != nil || !found {
			return "", errors.Join(fmt.Errorf("map %s/%s: the kernel took it but shows no device", img.Pool, img.Name), err)
		}
	}
	path := filepath.Join(k.dev, "rbd"+m.id)
	err = poll.Until(ctx, pollEvery, func() (bool, error) {
		_, err := os.Stat(path)
		return err == nil, nil
	})
	if err != nil {
		return "", fmt.Errorf("wait for %s: %w", path, err)
	}
	return path, nil
}

// write writes a line to sysfs, which can block for krbdMountTimeout. When ctx ends first it
// returns; the write runs out on its own (wait waits for it) and what it made is found by the next call.
func (k *krbd) write(ctx context.Context, path, line string) error {
	done := make(chan error, 1)
	k.writes.Add(1)
	go func() {
		defer k.writes.Done()
		done <- k.put(path, line)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func writeLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// detach unmaps the image, as often as it is mapped.
func (k *krbd) detach(ctx context.Context, d Device) error {
	return poll.Until(ctx, pollEvery, func() (bool, error) {
		list, err := k.all(d.FSID, d.Pool, d.Namespace, d.Image)
		for _, m := range list {
			if err := k.remove(ctx, m.id, d.UnmapOption); err != nil {
				return false, err
			}
		}
		return len(list) == 0, err
	})
}

// remove unmaps, again while the device is open, until ctx ends (fault.Busy).
func (k *krbd) remove(ctx context.Context, id, options string) error {
	line := id
	if hasOption(strings.Split(strings.TrimPrefix(options, "krbd:"), ","), "force") {
		line += " force"
	}
	err := poll.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		err := k.write(ctx, k.bus("remove_single_major"), line)
		if errors.Is(err, unix.EBUSY) {
			return false, nil
		}
		err = ignore(err, unix.ENOENT)
		return err == nil, err
	})
	if errors.Is(err, context.DeadlineExceeded) { // no %w: this is not the cluster's slowness
		return fault.New(fault.Busy, "unmap rbd%s: the device is still open or mounted (%v)", id, err)
	}
	if err != nil {
		return fmt.Errorf("unmap rbd%s: %w", id, err)
	}
	return nil
}

// grow waits until the kernel has seen the image's new size; it learns of it by the
// image's watch, and the refresh hurries it.
func (k *krbd) grow(ctx context.Context, d Device, want storage.Bytes) (storage.Bytes, error) {
	id := strings.TrimPrefix(filepath.Base(d.Path), "rbd")
	size := int64(0)
	err := poll.Until(ctx, 200*time.Millisecond, func() (bool, error) {
		if err := k.write(ctx, k.bus("devices", id, "refresh"), "1"); err != nil {
			return false, fmt.Errorf("refresh rbd%s: %w", id, err)
		}
		var err error
		size, err = k.size(id)
		return size >= int64(want), err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fault.New(fault.Precondition, "rbd%s has %d bytes, not the %d that are wanted: is the image expanded?", id, size, want)
	}
	return storage.Bytes(size), err
}

func (k *krbd) size(id string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(k.sys, "block/rbd"+id, "size"))
	if err != nil {
		return 0, fmt.Errorf("size of rbd%s: %w", id, err)
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return sectors * 512, err
}

// check says what is wrong with a mapped device.
func (k *krbd) check(d Device) error {
	list, err := k.all(d.FSID, d.Pool, d.Namespace, d.Image)
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return Lost("%s/%s is not mapped on this node any more", d.Pool, d.Image)
	case !slices.ContainsFunc(list, func(m mapping) bool { return filepath.Join(k.dev, "rbd"+m.id) == d.Path }):
		return Lost("%s/%s is mapped as rbd%s, not as %s", d.Pool, d.Image, list[0].id, d.Path)
	}
	return nil
}

// guess finds a mapping by the image's name alone, which is unique (it holds a random id).
func (k *krbd) guess(volume, image string) (Device, bool, error) {
	names, err := filepath.Glob(k.bus("devices", "*", "name"))
	if err != nil {
		return Device{}, false, err
	}
	for _, name := range names {
		dir := filepath.Dir(name)
		attr := func(file string) string {
			data, _ := os.ReadFile(filepath.Join(dir, file))
			return strings.TrimSuffix(string(data), "\n")
		}
		if attr("name") == image && attr("current_snap") == "-" {
			return Device{
				Mounter: Krbd, Volume: volume, Path: filepath.Join(k.dev, "rbd"+filepath.Base(dir)), FSID: attr("cluster_fsid"),
				Pool: attr("pool"), Namespace: attr("pool_ns"), Image: image,
			}, true, nil
		}
	}
	return Device{}, false, nil
}
