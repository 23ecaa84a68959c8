package standalone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// errRunning says that the directory has a living supervisor.
var errRunning = fault.New(fault.Busy, "a supervisor already runs in this directory")

// lockPatience is for a supervisor that has done its work and is about to end.
const lockPatience = 5 * time.Second

// claim makes the directory's skeleton and takes its lock, which lives as long as the
// returned file and is not inherited by children. A directory that holds something else
// is refused before anything is written into it.
func claim(ctx context.Context, dir string) (*os.File, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	p := daemon.Paths{Dir: dir}
	for path, mode := range map[string]os.FileMode{dir: 0o755, p.Run(): 0o755, p.Log(): 0o755} {
		if err := os.MkdirAll(path, mode); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(p.Run(), "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the directory's lock: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	err = poll(limited, 20*time.Millisecond, func(context.Context) (bool, error) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		return err == nil, err
	})
	if err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errRunning
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if err := clearHalves(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("remove what was cut off: %w", err), lock.Close())
	}
	return lock, nil
}

// leftBehind tells what a first `up` that was cut off leaves.
func leftBehind(entry os.DirEntry) bool {
	if entry.IsDir() {
		return entry.Name() == "run" || entry.Name() == "log"
	}
	return durable.IsLeftover(localapi.StateFile(""), entry.Name()) && entry.Type().IsRegular()
}

// clearHalves removes state files that were cut off while they were written. The lock is held: nobody writes one.
func clearHalves(dir string) error {
	halves, err := durable.Leftovers(localapi.StateFile(dir))
	for _, path := range halves {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// checkDir refuses a directory that is neither Holdfast's nor free to use. What a first
// `up` leaves when it is cut off early (run/, log/ and a half-written state) counts as free.
func checkDir(dir string) error {
	if !filepath.IsAbs(dir) {
		return fault.New(fault.Invalid, "--data-dir %s is not an absolute path", dir)
	}
	if len(dir) > maxDataDir {
		return fault.New(fault.Invalid, "--data-dir %s has %d bytes: at most %d, because the path of a unix socket below it must stay under 108; take a shorter one", dir, len(dir), maxDataDir)
	}
	_, err := loadState(dir)
	if err == nil || !errors.Is(err, fault.NotFound) {
		if errors.Is(err, fault.Invalid) {
			return fmt.Errorf("%w: choose another --data-dir", err)
		}
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read --data-dir: %w", err)
	}
	for _, entry := range entries {
		if !leftBehind(entry) {
			return fault.New(fault.Precondition, "--data-dir %s is not empty (it holds %s) and is not Holdfast's: nothing was touched; choose another directory", dir, entry.Name())
		}
	}
	return nil
}
