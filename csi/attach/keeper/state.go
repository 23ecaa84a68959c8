package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// record is what StateDir/<id>/state.json holds. It has no key.
type record struct {
	Spec     Spec    `json:"spec"`
	Process  process `json:"process"`
	Client   string  `json:"client,omitempty"` // ceph-fuse's address in the cluster; noted once its mount stands
	Device   string  `json:"device,omitempty"` // "major:minor" of its mount, which is the same wherever it is bound
	Stopping bool    `json:"stopping,omitempty"`
}

func (k *keeper) dir(id string) string { return filepath.Join(k.cfg.StateDir, id) }

// target is the file or directory that the helper mounts on.
func (k *keeper) target(s Spec) string {
	if s.Kind == KindCephFS {
		return filepath.Join(k.dir(s.ID), "mnt")
	}
	return filepath.Join(k.dir(s.ID), "image")
}

func (k *keeper) save(r record) error {
	r.Spec.Key, r.Spec.Passphrase = "", ""
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode state of %s: %w", r.Spec.ID, err)
	}
	if err := durable.WriteFile(filepath.Join(k.dir(r.Spec.ID), "state.json"), data, 0o600); err != nil {
		return fmt.Errorf("save state of %s: %w", r.Spec.ID, err)
	}
	return nil
}

func (k *keeper) load(id string) (record, error) {
	if !idPattern.MatchString(id) {
		return record{}, fault.New(fault.Invalid, "attachment id %q: want 8 to 32 hex digits", id)
	}
	data, err := os.ReadFile(filepath.Join(k.dir(id), "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, fault.New(fault.NotFound, "there is no attachment %s", id)
	}
	if err != nil {
		return record{}, fmt.Errorf("read state of %s: %w", id, err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil || r.Spec.ID != id {
		// Torn by a crash of the whole machine: nothing of it can still run.
		return record{Spec: Spec{ID: id}}, nil
	}
	if r.Process.PID == 0 {
		if p, ok := find(program(r.Spec.Kind), k.dir(id)+"/"); ok {
			r.Process = p
		}
	}
	return r, nil
}

// records returns all that can be read.
func (k *keeper) records() []record {
	entries, _ := os.ReadDir(k.cfg.StateDir)
	var list []record
	for _, e := range entries {
		if e.IsDir() && idPattern.MatchString(e.Name()) {
			if r, err := k.load(e.Name()); err == nil {
				list = append(list, r)
			}
		}
	}
	return list
}

// unmountAll takes every mount off path, also those of a dead FUSE process.
func unmountAll(path string) error {
	for range 16 {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // no mount there
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return fault.New(fault.Busy, "unmount %s: it stays mounted", path)
}

// tail returns the end of a helper's log, for messages.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if len(data) > 600 {
		data = data[len(data)-600:]
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(data), ""))
}
