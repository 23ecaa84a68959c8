package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// trimStride is how much of a file system is trimmed at a time. Between two strides whoever wants to
// unstage, expand or publish the volume gets his turn.
const trimStride = 16 * storage.GiB

// Trim has the file system of a staged volume give back what it does not use, and returns how much
// that was (as the kernel says it: for xfs newer ones tell all that was looked through): fault.NotFound unless the volume is staged here, fault.Unsupported for what has no file
// system of its own. A volume that is unstaged meanwhile ends it with fault.NotFound.
func (s *Server) Trim(ctx context.Context, volume string) (storage.Bytes, error) {
	var total storage.Bytes
	for start := storage.Bytes(0); ; start += trimStride {
		trimmed, size, err := s.trimStride(ctx, volume, start)
		total += trimmed
		if err != nil || start+trimStride >= size {
			s.cfg.Observer.Trimmed(s.cfg.Driver, total, err)
			return total, err
		}
	}
}

// trimStride trims one stride under the volume's lock, which staging and unstaging take too.
func (s *Server) trimStride(ctx context.Context, volume string, start storage.Bytes) (trimmed, size storage.Bytes, err error) {
	unlock, err := s.locks.Lock(ctx, volume)
	if err != nil {
		return 0, 0, err
	}
	defer unlock()
	v, err := s.current(volume)
	switch {
	case err != nil:
		return 0, 0, err
	case v == nil:
		return 0, 0, fault.New(fault.NotFound, "volume %s is not staged on this node", volume)
	case v.Device == nil:
		return 0, 0, fault.New(fault.Unsupported, "CephFS frees the space of files as they are deleted: there is nothing to trim")
	case v.Block:
		return 0, 0, fault.New(fault.Unsupported, "volume %s is a raw block device: who writes to it knows what can be discarded (blkdiscard)", volume)
	case v.ReadOnly:
		return 0, 0, fault.New(fault.Precondition, "volume %s is mounted read-only", volume)
	}
	if err := s.trouble(ctx, v); err != nil {
		return 0, 0, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(v.Staging, &st); err != nil {
		return 0, 0, fmt.Errorf("look at the file system at %s: %w", v.Staging, err)
	}
	trimmed, err = fitrim(v.Staging, start, trimStride)
	return trimmed, storage.Bytes(int64(st.Blocks) * st.Bsize), err
}

// ioctlFITRIM is FITRIM, _IOWR('X', 121, struct fstrim_range) (linux/fs.h).
const ioctlFITRIM = 0xc0185879

// fitrim trims a part of the file system mounted at path: the kernel answers in len how much was
// trimmed.
func fitrim(path string, start, length storage.Bytes) (storage.Bytes, error) {
	dir, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", path, err)
	}
	defer dir.Close()
	part := struct{ start, length, least uint64 }{uint64(start), uint64(length), 0}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ioctlFITRIM, uintptr(unsafe.Pointer(&part))) //nolint:gosec // the ioctl's own argument
	switch errno {
	case 0:
		return storage.Bytes(part.length), nil
	case unix.EINVAL: // the stride begins beyond the last block: file systems count less than statfs
		return 0, nil
	case unix.EOPNOTSUPP, unix.ENOTTY:
		return 0, fault.New(fault.Unsupported, "the device below %s takes no discards", path)
	default:
		return 0, fmt.Errorf("trim %s: %w", path, errno)
	}
}

// trimLook is how often the schedule is looked at; trimRecords is where it is kept.
const (
	trimLook    = 10 * time.Minute
	trimRecords = "trimmed.json"
)

// TrimEvery trims the volumes staged on this node every so often until ctx ends, one after the
// other. When each was trimmed is kept in the state directory, so that a restart neither forgets
// nor repeats it. A volume that is new waits for a random part of the period.
func (s *Server) TrimEvery(ctx context.Context, every time.Duration) error {
	if every <= 0 || s.cfg.Driver != storage.RBD {
		return nil
	}
	ticker := time.NewTicker(min(trimLook, max(every/10, time.Second)))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.TrimDue(ctx, time.Now(), every)
		}
	}
}

// TrimDue trims what was last trimmed longer than every before now.
func (s *Server) TrimDue(ctx context.Context, now time.Time, every time.Duration) {
	volumes, err := s.state.volumes()
	if err != nil {
		s.cfg.Log.Warn("volumes to be trimmed cannot be listed", obs.KeyError, err)
		return
	}
	path := filepath.Join(s.cfg.StateDir, trimRecords)
	last := map[string]time.Time{}
	if data, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(data, &last) // else all of them are new
	}
	kept := map[string]time.Time{}
	for _, volume := range volumes {
		at, known := last[volume]
		switch {
		case !known:
			at = now.Add(-rand.N(every)) //nolint:gosec // spreads load, hides nothing
		case now.Sub(at) >= every && ctx.Err() == nil:
			trimmed, err := s.Trim(ctx, volume)
			switch {
			case err == nil:
				s.cfg.Log.Info("volume trimmed", obs.KeyVolume, volume, "bytes", int64(trimmed))
			case !errors.Is(err, fault.Unsupported) && !errors.Is(err, fault.NotFound):
				s.cfg.Log.Warn("volume could not be trimmed", obs.KeyVolume, volume, obs.KeyError, err)
			}
			at = now
		}
		kept[volume] = at
	}
	data, err := json.Marshal(kept)
	if err == nil {
		err = durable.WriteFile(path, data, 0o600)
	}
	if err != nil {
		s.cfg.Log.Warn("when volumes were trimmed cannot be kept", obs.KeyError, err)
	}
}

// volumes lists the ids of what is staged.
func (s *store) volumes() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list the state of volumes: %w", err)
	}
	var list []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var v staged
		if err == nil && json.Unmarshal(data, &v) == nil && v.Volume != "" {
			list = append(list, v.Volume)
		}
	}
	return list, nil
}
