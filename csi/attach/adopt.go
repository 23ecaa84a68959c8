package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/attach/keeper"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
)

// Adopt shows the directory at target if a living ceph-fuse still has it mounted on this
// node, at target or for pods elsewhere: the record of it, or the mount at target, was
// lost. False without one. Whether the mount answers is for the caller to find out.
func (d *Directories) Adopt(ctx context.Context, dir Directory, target string) (Mount, bool, error) {
	mounter, _, err := d.choose(ctx, dir)
	if err != nil || mounter != UserFS {
		return Mount{}, false, err
	}
	status, err := d.keeper.Describe(ctx, ID(dir.Volume))
	if errors.Is(err, fault.NotFound) {
		return Mount{}, false, nil
	}
	if err != nil {
		return Mount{}, false, err
	}
	if !status.Alive || status.Spec.ReadOnly != dir.ReadOnly {
		return Mount{}, false, nil
	}
	list, err := standing(status)
	if err != nil {
		return Mount{}, false, err
	}
	// A subdirectory of the volume (a pod's subPath) is not the volume.
	_, root := source(dir.Path)
	list = slices.DeleteFunc(list, func(m *mountinfo.Info) bool { return m.Root != root })
	found, err := showAgain(status, list, root, target)
	if err != nil || !found {
		return Mount{}, false, err
	}
	// See mountUser: a crash may have come before this.
	if err := unix.Unmount(status.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); ignore(ignore(err, unix.EINVAL), unix.ENOENT) != nil {
		return Mount{}, false, fmt.Errorf("hand over %s: %w", status.Path, err)
	}
	d.log.Info("living mount adopted", obs.KeyVolume, dir.Volume, obs.KeyPath, target, "pid", status.PID)
	return Mount{Mounter: UserFS, Volume: dir.Volume, Target: target}, true, nil
}

// standing lists where an attachment's ceph-fuse is mounted, as the mount table says: no
// file system is touched, so a dead one does not hang it. A device number is given out
// again, so the source must be the attachment's, too.
func standing(status keeper.Status) ([]*mountinfo.Info, error) {
	if status.Device == "" {
		return nil, nil
	}
	list, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return !is(m, status), false })
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	return list, nil
}

func is(m *mountinfo.Info, status keeper.Status) bool {
	return fmt.Sprintf("%d:%d", m.Major, m.Minor) == status.Device && m.Source == keeper.Source(status.Spec.ID)
}

// topmost returns the mount that one sees at path, nil without one.
func topmost(path string) (*mountinfo.Info, error) {
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list[len(list)-1], nil
}

// showAgain makes the topmost mount at target one of list, all of which have that root; false if none stands any more.
func showAgain(status keeper.Status, list []*mountinfo.Info, root, target string) (bool, error) {
	at, err := topmost(target)
	if err != nil {
		return false, err
	}
	if at != nil && at.Root == root && is(at, status) {
		return true, nil
	}
	for _, from := range list {
		if from.Mountpoint == target { // covered by something else
			continue
		}
		if at != nil {
			if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return false, fmt.Errorf("unmount %s: %w", target, err)
			}
		}
		if err := unix.Mount(from.Mountpoint, target, "", unix.MS_BIND, ""); err != nil {
			continue // it went away meanwhile
		}
		if at, err = topmost(target); err != nil {
			return false, err
		}
		if at != nil && at.Root == root && is(at, status) {
			return true, writable(at, status.Spec.ReadOnly)
		}
	}
	return false, nil
}

// writable undoes what a bind has from a read-only publication.
func writable(at *mountinfo.Info, readOnly bool) error {
	flags, _ := MountOptions([]string{at.Options})
	if readOnly || flags&unix.MS_RDONLY == 0 {
		return nil
	}
	if err := unix.Mount("", at.Mountpoint, "", flags&^unix.MS_RDONLY|unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
		return errors.Join(fmt.Errorf("make %s writable: %w", at.Mountpoint, err), unix.Unmount(at.Mountpoint, unix.MNT_DETACH))
	}
	return nil
}

// Release ends what stands behind a mount whose target has been unmounted; for the
// kernel's client that is nothing. fault.Busy while other mounts use it.
func (d *Directories) Release(ctx context.Context, volume, mounter string) error {
	if mounter == KernelFS {
		return nil
	}
	if status, err := d.keeper.Describe(ctx, ID(volume)); err == nil && status.Alive {
		list, err := standing(status)
		if err != nil {
			return err
		}
		for _, m := range list {
			if m.Mountpoint != status.Path {
				return fault.New(fault.Busy, "the volume is still mounted at %s: unpublish it there first", m.Mountpoint)
			}
		}
	}
	err := d.keeper.Stop(ctx, ID(volume))
	if mounter == "" && (errors.Is(err, fault.Unsupported) || errors.Is(err, fault.Unavailable)) {
		return nil // how it was mounted is not known and there is no keeper: it was the kernel
	}
	return err
}

// Discard ends a ceph-fuse whose mount is known to be dead (its client was cut off from
// the cluster), whoever still has it mounted.
func (d *Directories) Discard(ctx context.Context, volume string) error {
	d.log.Warn("living ceph-fuse with a dead mount is ended", obs.KeyVolume, volume)
	return d.keeper.Discard(ctx, ID(volume))
}
