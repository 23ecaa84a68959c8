package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// start attaches, or returns what is attached already. A dead attachment is cleaned up
// and made anew. fault.Exists: the id is in use for something else.
func (k *keeper) start(ctx context.Context, s Spec) (Status, error) {
	if err := s.validate(); err != nil {
		return Status{}, err
	}
	unlock, err := k.locks.Lock(ctx, s.ID)
	if err != nil {
		return Status{}, err
	}
	defer unlock()
	old, err := k.load(s.ID)
	switch {
	case errors.Is(err, fault.NotFound):
	case err != nil:
		return Status{}, err
	case k.healthy(old) == nil && k.mounted(old.Spec) && !old.Stopping:
		if !old.Spec.same(s) {
			return Status{}, fault.New(fault.Exists, "attachment %s of volume %s is there with other settings", s.ID, old.Spec.Volume)
		}
		if old, err = k.note(ctx, old); err != nil {
			return Status{}, fmt.Errorf("attach %s: %w", s.Volume, err)
		}
		return k.status(old), nil
	default:
		if err := k.clear(ctx, old, false); err != nil {
			return Status{}, err
		}
	}
	r, err := k.launch(s)
	if err == nil {
		err = k.await(ctx, r)
	}
	if err == nil {
		r, err = k.note(ctx, r)
	}
	if err != nil {
		return Status{}, errors.Join(fmt.Errorf("attach %s: %w", s.Volume, err), k.abandon(ctx, r))
	}
	k.cfg.Log.Info("attached", obs.KeyVolume, s.Volume, "kind", s.Kind, "pid", r.Process.PID)
	return k.status(r), nil
}

// note keeps what a mounted ceph-fuse is known by later, when its mount is handed over.
func (k *keeper) note(ctx context.Context, r record) (record, error) {
	if r.Spec.Kind != KindCephFS || r.Device != "" {
		return r, nil
	}
	client, err := clientAddress(ctx, filepath.Join(k.dir(r.Spec.ID), "asok"))
	if err != nil {
		return r, err
	}
	var st unix.Stat_t
	if err := unix.Stat(k.target(r.Spec), &st); err != nil {
		return r, fmt.Errorf("look at the mount: %w", err)
	}
	r.Client, r.Device = client, fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	return r, k.save(r)
}

// launch prepares the attachment's directory and starts its helper.
func (k *keeper) launch(s Spec) (record, error) {
	r := record{Spec: s}
	if err := os.MkdirAll(k.dir(s.ID), 0o700); err != nil {
		return r, fmt.Errorf("make directory: %w", err)
	}
	conf, err := k.config(s)
	if err != nil {
		return r, err
	}
	argv, err := k.arguments(s)
	if err != nil {
		return r, err
	}
	target := k.target(s)
	if s.Kind == KindCephFS {
		err = os.MkdirAll(target, 0o700)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	err = errors.Join(err, durable.WriteFile(filepath.Join(k.dir(s.ID), "ceph.conf"), conf, 0o600), k.save(r))
	if err != nil {
		return r, fmt.Errorf("prepare directory: %w", err)
	}
	logPath := filepath.Join(k.dir(s.ID), "log")
	_ = os.Remove(logPath) // an earlier helper's
	if r.Process, err = launch(argv, secrets(s), logPath); err != nil {
		return r, err
	}
	return r, k.save(r)
}

// await returns once the helper's mount stands.
func (k *keeper) await(ctx context.Context, r record) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	err := poll.Until(ctx, 5*time.Millisecond, func() (bool, error) {
		r.Process.reap()
		if !r.Process.alive() {
			return false, fault.New(fault.Unavailable, "%s ended: %s", r.Process.Name, tail(filepath.Join(k.dir(r.Spec.ID), "log")))
		}
		return k.mounted(r.Spec), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.As(fault.Unavailable, fmt.Errorf("%s does not come up, the cluster may be unreachable: %w: %s",
			r.Process.Name, err, tail(filepath.Join(k.dir(r.Spec.ID), "log"))))
	}
	return err
}

// mounted reports whether the helper's FUSE mount stands on the target.
func (k *keeper) mounted(s Spec) bool {
	var parent, self unix.Stat_t
	if unix.Stat(k.dir(s.ID), &parent) != nil || unix.Stat(k.target(s), &self) != nil {
		return false
	}
	return parent.Dev != self.Dev
}

// abandon undoes a start that did not work; its ctx may have ended already.
func (k *keeper) abandon(ctx context.Context, r record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return k.clear(ctx, r, false)
}

// stop ends an attachment. One that is not there is stopped already. fault.Busy: it is
// still in use (its mount is bound elsewhere, or does not end). dead: the caller knows
// that its mount works for nobody any more, and it is ended whoever has it.
func (k *keeper) stop(ctx context.Context, id string, dead bool) error {
	unlock, err := k.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := k.load(id)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r.Stopping = true
	if err := k.save(r); err != nil {
		return err
	}
	if err := k.clear(ctx, r, dead); err != nil {
		if r.Spec.Kind == KindCephFS && r.Process.alive() { // it serves on, and its death would be news
			r.Stopping = false
			err = errors.Join(err, k.save(r))
		}
		return fmt.Errorf("detach %s: %w", r.Spec.Volume, err)
	}
	k.cfg.Log.Info("detached", obs.KeyVolume, r.Spec.Volume, "kind", r.Spec.Kind)
	return nil
}

// clear ends the helper, writes back what it has, and removes every trace. fault.Busy: a
// ceph-fuse whose mount was handed over lives on, so somebody has that mount.
func (k *keeper) clear(ctx context.Context, r record, dead bool) error {
	target := k.target(r.Spec)
	if r.Process.alive() {
		// ceph-fuse writes back and ends once its last mount is gone; qemu-storage-daemon
		// flushes and unmounts on SIGTERM.
		if r.Spec.Kind == KindCephFS {
			if err := unmountAll(target); err != nil {
				return err
			}
			short, cancel := context.WithTimeout(ctx, 15*time.Second)
			var err error
			if !dead {
				err = r.Process.wait(short)
			}
			cancel()
			if err != nil && r.Client != "" {
				return fault.New(fault.Busy, "%s (pid %d) lives on, so its mount is still in use, or the cluster does not take what it has to write", r.Process.Name, r.Process.PID)
			}
		}
		short, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := r.Process.stop(short, syscall.SIGTERM); err != nil {
			return err
		}
	}
	r.Process.reap()
	if err := errors.Join(unmountAll(filepath.Join(k.dir(r.Spec.ID), "mnt")), unmountAll(filepath.Join(k.dir(r.Spec.ID), "image"))); err != nil {
		return err
	}
	return removeFiles(k.dir(r.Spec.ID))
}

// removeFiles removes an attachment's directory with what a keeper puts into it. Not RemoveAll: if something is still mounted there, its
// files are a volume's.
func removeFiles(dir string) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	paths, err := durable.Leftovers(in("ceph.conf"), in("state.json"))
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	for _, name := range []string{"mnt", "image", "qmp.sock", "asok", "ceph.conf", "log", "state.json.tmp", "ceph.conf.tmp", "state.json", "."} { // .tmp: by earlier versions
		paths = append(paths, in(name))
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("clean up: %w", err)
		}
	}
	return nil
}

// healthy says what is wrong with an attachment. The mount of a directory has been handed
// over by then, and ceph-fuse ends with its last mount.
func (k *keeper) healthy(r record) error {
	switch {
	case !r.Process.alive():
		return fault.New(fault.Unavailable, "the attacher process (%s, pid %d) is dead", r.Process.Name, r.Process.PID)
	case r.Spec.Kind == KindRBD && !k.mounted(r.Spec):
		return fault.New(fault.Unavailable, "the FUSE mount at %s is gone", k.target(r.Spec))
	}
	return nil
}

func (k *keeper) status(r record) Status {
	s := Status{Spec: r.Spec, PID: r.Process.PID, Path: k.target(r.Spec), Alive: true, Running: r.Process.alive(), Client: r.Client, Device: r.Device}
	s.Spec.Key, s.Spec.Passphrase = "", ""
	if err := k.healthy(r); err != nil {
		s.Alive, s.Message = false, err.Error()
	}
	return s
}

func (k *keeper) describe(id string) (Status, error) {
	r, err := k.load(id)
	if err != nil {
		return Status{}, err
	}
	return k.status(r), nil
}

func (k *keeper) list() []Status {
	list := []Status{}
	for _, r := range k.records() {
		list = append(list, k.status(r))
	}
	return list
}

// resize makes an export show an image of size bytes, the header of an encrypted one
// included. QEMU truncates the image itself to that size, so a smaller one than now is refused.
func (k *keeper) resize(ctx context.Context, id string, size int64) (Status, error) {
	unlock, err := k.locks.Lock(ctx, id)
	if err != nil {
		return Status{}, err
	}
	defer unlock()
	r, err := k.load(id)
	if err != nil {
		return Status{}, err
	}
	if err := k.healthy(r); err != nil {
		return Status{}, err
	}
	if r.Spec.Kind != KindRBD {
		return Status{}, fault.New(fault.Unsupported, "attachment %s is no block device", id)
	}
	path := k.target(r.Spec)
	now, err := knownSize(path)
	now += r.Spec.Header
	switch {
	case err != nil:
		return Status{}, fmt.Errorf("resize: %w", err)
	case size < now:
		return Status{}, fault.New(fault.Range, "shrinking from %d to %d bytes would lose data", now, size)
	case size == now:
		return k.status(r), nil
	}
	arguments := map[string]any{"node-name": diskNode, "size": size}
	if err := qmp(ctx, filepath.Join(k.dir(id), "qmp.sock"), "block_resize", arguments); err != nil {
		return Status{}, fmt.Errorf("resize %s: %w", r.Spec.Volume, err)
	}
	err = poll.Until(ctx, 50*time.Millisecond, func() (bool, error) {
		now, err := knownSize(path)
		return now+r.Spec.Header >= size, err
	})
	if err != nil {
		return Status{}, fmt.Errorf("resize %s: wait for the new size: %w", r.Spec.Volume, err)
	}
	k.cfg.Log.Info("resized", obs.KeyVolume, r.Spec.Volume, "bytes", size)
	return k.status(r), nil
}

// knownSize returns the size by which the kernel judges reads and writes of a file on FUSE.
// stat(2) may be ahead of it: it shows an answer that the kernel has thrown away, as it does
// with every one that I/O overtook. Both are up to a second old.
func knownSize(path string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return file.Seek(0, io.SeekEnd)
}
