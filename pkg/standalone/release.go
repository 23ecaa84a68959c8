package standalone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// helperPatience is for an attacher that writes back what it has: without --force it is
// never killed.
const helperPatience = 60 * time.Second

// visible are the mount points that a person knows: not those of staging, below DIR.
func (u usage) visible(dir string) []string {
	var list []string
	for _, m := range u.mounts {
		if !strings.HasPrefix(m, dir+"/") {
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		list = append(list, u.mounts...)
	}
	for _, dev := range u.bare {
		list = append(list, dev+" (attached, not mounted)")
	}
	if len(list) == 0 { // its mounts are out of sight: in another namespace, or detached with files open
		for _, p := range u.helpers {
			list = append(list, p.helper()+" serves a volume that is not mounted in sight")
		}
	}
	return list
}

// helper names an attacher to a person.
func (p process) helper() string { return fmt.Sprintf("%s (pid %d)", filepath.Base(p.Args[0]), p.PID) }

func (u usage) inUse() bool {
	return len(u.mounts)+len(u.loops)+len(u.mapped)+len(u.helpers) > 0
}

// checkMounts refuses to take the cluster away under a mounted volume.
func (s *Supervisor) checkMounts(request localapi.DownRequest) error {
	if request.Force {
		return nil
	}
	u, err := s.usage()
	if err != nil {
		return err
	}
	if !u.inUse() {
		return nil
	}
	return fault.New(fault.Busy, "volumes are in use on this machine:\n  %s\nunmount them first (holdfast volume umount NAME; `holdfast volume list` shows the names; what Kubernetes or another CSI client mounted, by that), or add --force: whoever uses them gets I/O errors",
		strings.Join(u.visible(s.dir), "\n  "))
}

// release takes away what is left of volumes on this machine: mounts (lazily: a process
// that has a file open keeps it, and gets errors), loop devices, mapped images, helpers.
// Without force nothing but a helper at its end can be left, since checkMounts was asked:
// a volume that came between is refused as it is there.
func (s *Supervisor) release(ctx context.Context, request localapi.DownRequest) error {
	u, err := s.usage()
	if err != nil {
		return err
	}
	if !request.Force && len(u.mounts)+len(u.loops)+len(u.mapped) > 0 {
		return s.checkMounts(request)
	}
	var errs []error
	for _, m := range slices.Backward(u.mounts) {
		errs = append(errs, detachMount(m))
	}
	for _, l := range u.loops {
		_, err := s.tools.Runner.Run(ctx, command.Cmd{Name: "losetup", Args: []string{"--detach", l}})
		errs = append(errs, err)
	}
	for _, id := range u.mapped {
		if err := os.WriteFile("/sys/bus/rbd/remove_single_major", []byte(id+" force"), 0o200); err != nil {
			errs = append(errs, fmt.Errorf("unmap /dev/rbd%s: %w", id, err))
		}
	}
	for _, m := range slices.Backward(u.roots) {
		errs = append(errs, detachMount(m))
	}
	return errors.Join(append(errs, s.endHelpers(ctx, u.helpers, request.Force))...)
}

func detachMount(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// endHelpers ends attachers, all at once. Nothing is mounted on them any more.
func (s *Supervisor) endHelpers(ctx context.Context, helpers []process, force bool) error {
	patience := helperPatience
	if force {
		patience = termGrace
	}
	errs := make([]error, len(helpers))
	var wg sync.WaitGroup
	for i, p := range helpers {
		wg.Go(func() { errs[i] = s.endHelper(ctx, p, patience, force) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// endHelper asks an attacher to end, upon which it writes back what it has. When that takes
// longer than patience it is killed, but only by force.
func (s *Supervisor) endHelper(ctx context.Context, p process, patience time.Duration, force bool) error {
	h, err := open(p)
	if err != nil {
		return nil // it has ended by itself
	}
	defer h.close()
	s.tools.Log.Info("ending attacher", obs.KeyName, filepath.Base(p.Args[0]), "pid", p.PID)
	if err := h.signal(unix.SIGTERM); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = h.wait(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
		return err
	case !force:
		return fault.New(fault.Busy, "%s has not ended after %s: it may still be writing a volume's data, and was left alone; run `holdfast down` again, or add --force: what it has not written is lost", p.helper(), patience)
	}
	s.tools.Log.Warn("attacher does not end by SIGTERM: killing it", "pid", p.PID)
	if err := h.signal(unix.SIGKILL); err != nil {
		return err
	}
	return h.wait(ctx)
}
