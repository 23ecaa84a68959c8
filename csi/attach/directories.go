package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/attach/keeper"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
)

// Directories mounts CephFS directories.
type Directories struct {
	keeper *keeper.Client
	runner command.Runner
	log    *slog.Logger
	mounts sync.WaitGroup
}

// NewDirectories returns the attacher of CephFS directories.
func NewDirectories(cfg Config) *Directories {
	return &Directories{keeper: keeper.NewClient(cfg.Socket), runner: cfg.Runner, log: cfg.Log}
}

// Close waits for mounts that their callers gave up on.
func (d *Directories) Close() { d.mounts.Wait() }

// Mount mounts the directory on target, an existing directory on which nothing is
// mounted. It does not find what is mounted already: see Adopt.
func (d *Directories) Mount(ctx context.Context, dir Directory, target string) (Mount, error) {
	mounter, why, err := d.choose(ctx, dir)
	if err != nil {
		return Mount{}, err
	}
	d.log.Debug("attacher chosen", obs.KeyVolume, dir.Volume, "mounter", mounter, "reason", why)
	if mounter == KernelFS {
		err = d.mountKernel(ctx, dir, target)
	} else {
		err = d.mountUser(ctx, dir, target)
	}
	if err != nil {
		return Mount{}, fmt.Errorf("mount %s by %s: %w", dir.Path, mounter, err)
	}
	return Mount{Mounter: mounter, Volume: dir.Volume, Target: target}, nil
}

// choose picks the kernel's client where there is one.
func (d *Directories) choose(ctx context.Context, dir Directory) (mounter, why string, err error) {
	switch dir.Mounter {
	case UserFS:
		return UserFS, "asked for", nil
	case KernelFS:
		if !d.kernelCeph(ctx) {
			return "", "", fault.New(fault.Unsupported, "mounter kernel: the kernel of this node has no ceph (modprobe ceph); mounter auto or fuse works without")
		}
		return KernelFS, "asked for", nil
	case "", Auto:
	default:
		return "", "", fault.New(fault.Invalid, "mounter %q is none of auto, kernel, fuse", dir.Mounter)
	}
	if d.kernelCeph(ctx) {
		return KernelFS, "the kernel has ceph", nil
	}
	return UserFS, "the kernel has no ceph", nil
}

func (d *Directories) kernelCeph(ctx context.Context) bool {
	if knowsFilesystem("ceph") {
		return true
	}
	if _, err := d.runner.Run(ctx, command.Cmd{Name: "modprobe", Args: []string{"ceph"}}); err != nil {
		return false
	}
	return knowsFilesystem("ceph")
}

func knowsFilesystem(name string) bool {
	data, _ := os.ReadFile("/proc/filesystems")
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
			return true
		}
	}
	return false
}

// Describe says how this node mounts CephFS, for logs.
func (d *Directories) Describe(ctx context.Context) string {
	if d.kernelCeph(ctx) {
		return "kernel"
	}
	a, err := d.keeper.Ability(ctx)
	switch {
	case err != nil:
		return "none: the kernel has no ceph; " + err.Error()
	case !a.CephFS:
		return "none: the kernel has no ceph; " + a.Reason
	}
	return "fuse (the kernel has no ceph)"
}

// mountKernel mounts by mount(2): the key stands in the call's data, in no argument.
// https://docs.kernel.org/filesystems/ceph.html
func (d *Directories) mountKernel(ctx context.Context, dir Directory, target string) error {
	options := splitQuoted(dir.KernelOptions)
	for _, o := range dir.Options {
		options = append(options, splitQuoted(o)...)
	}
	// A client of its own, which alone can be fenced; one that takes another address by itself
	// ("recover_session=clean") would come back from that.
	for _, key := range []string{"name", "secret", "secretfile", "mds_namespace", "fs", "fsid", "mon_addr", "share", "noshare", "recover_session"} {
		if hasOption(options, key) {
			return fault.New(fault.Invalid, "kernelMountOptions: option %q is set by Holdfast itself", key)
		}
	}
	addrs, options, err := kernelMonitors(dir.Endpoint.Monitors, options)
	if err != nil {
		return err
	}
	if addrs, err = resolve(ctx, addrs); err != nil {
		return err
	}
	flags, rest := MountOptions(options)
	if dir.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	for _, word := range []string{dir.Credentials.User, dir.Credentials.Key.Reveal(), dir.Filesystem} {
		if strings.ContainsAny(word, ",\n") {
			return fault.New(fault.Invalid, "the kernel takes no commas in the name of a user or a file system")
		}
	}
	data := "name=" + dir.Credentials.User + ",secret=" + dir.Credentials.Key.Reveal() + ",noshare"
	if dir.Filesystem != "" {
		data += ",mds_namespace=" + dir.Filesystem
	}
	if rest != "" {
		data += "," + rest
	}
	if !hasOption(options, "mount_timeout") {
		data += fmt.Sprintf(",mount_timeout=%d", krbdMountTimeout)
	}
	mounted, inside := source(dir.Path)
	devices := strings.Join(addrs, ",") + ":" + mounted
	if inside != "/" {
		return d.kernelInside(ctx, devices, inside, target, flags, data)
	}
	return d.mount(ctx, devices, target, flags, data)
}

// mount calls mount(2), which blocks while the cluster does not answer. When ctx ends
// first the call runs out on its own; a mount that comes late is taken off again.
func (d *Directories) mount(ctx context.Context, source, target string, flags uintptr, data string) error {
	done := make(chan error)
	d.mounts.Add(1)
	go func() {
		defer d.mounts.Done()
		err := unix.Mount(source, target, "ceph", flags, data)
		select {
		case done <- err:
		case <-ctx.Done():
			if err == nil {
				_ = unix.Unmount(target, unix.MNT_DETACH) // nobody waits for it any more
			}
		}
	}()
	select {
	case err := <-done:
		return kernelMountError(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func kernelMountError(err error) error {
	var errno unix.Errno
	if err == nil || !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.ENOENT:
		return fault.New(fault.NotFound, "no such directory or file system in the cluster: %w", errno)
	case unix.EPERM, unix.EACCES:
		return fault.New(fault.Denied, "the cluster refuses the user or its key, or the user may not mount this directory: %w", errno)
	case unix.EINVAL:
		return fault.New(fault.Invalid, "the kernel refuses the mount options, see dmesg: %w", errno)
	}
	return fault.New(fault.Unavailable, "the cluster does not answer, or has no active MDS: %w", errno)
}

// mountUser has the keeper run ceph-fuse on a directory of its own and hands that mount over
// to target, so that the keeper needs to see its own directory alone.
func (d *Directories) mountUser(ctx context.Context, dir Directory, target string) error {
	mounted, inside := source(dir.Path)
	options := append([]string{dir.FuseOptions}, dir.Options...)
	spec := keeper.Spec{
		ID: ID(dir.Volume), Kind: keeper.KindCephFS, Volume: dir.Volume, FSID: dir.FSID, Monitors: dir.Endpoint.Monitors,
		User: dir.Credentials.User, Key: dir.Credentials.Key.Reveal(), ReadOnly: dir.ReadOnly,
		Filesystem: dir.Filesystem, Directory: mounted, Options: fuseOptions(options),
	}
	if err := d.fence(ctx, dir, spec.ID); err != nil {
		return err
	}
	status, err := d.keeper.Start(ctx, spec)
	if errors.Is(err, fault.Exists) {
		if err = d.keeper.Stop(ctx, spec.ID); err == nil {
			status, err = d.keeper.Start(ctx, spec)
		}
	}
	if err != nil {
		return err
	}
	if err := show(status.Path, inside, target); err != nil {
		return errors.Join(err, d.keeper.Stop(context.WithoutCancel(ctx), spec.ID))
	}
	// target is the one mount from here on: kubelet takes a second one of the same directory for
	// another user of the volume and never unstages it (its GetDeviceMountRefs).
	if err := unix.Unmount(status.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return errors.Join(fmt.Errorf("hand over %s: %w", status.Path, err), unix.Unmount(target, unix.MNT_DETACH), d.keeper.Stop(context.WithoutCancel(ctx), spec.ID))
	}
	return nil
}

// fence shuts a client out of the cluster whose process died. Without that the MDS keeps
// what the client held until its session is stale (60 s), in the way of all others.
func (d *Directories) fence(ctx context.Context, dir Directory, id string) error {
	status, err := d.keeper.Describe(ctx, id)
	if errors.Is(err, fault.NotFound) || err == nil && (status.Alive || status.Client == "") || dir.Cluster == nil {
		return nil
	}
	if err != nil {
		return err
	}
	command := map[string]any{"prefix": "osd blocklist", "blocklistop": "add", "addr": status.Client} // for an hour, Ceph's default
	if _, err := dir.Cluster.Mon(ctx, command, nil); err != nil {
		d.log.Warn("a dead client is not fenced and may be in the way for a minute", obs.KeyVolume, dir.Volume, "client", status.Client, obs.KeyError, err)
		return nil
	}
	d.log.Info("dead client fenced", obs.KeyVolume, dir.Volume, "client", status.Client)
	return nil
}

// fuseOptions joins options, without those that are for mount(8) alone.
func fuseOptions(options []string) string {
	var out []string
	for _, o := range options {
		for _, one := range splitQuoted(o) {
			switch one = strings.TrimSpace(one); one {
			case "", "_netdev", "defaults", "auto", "noauto", "nofail":
			default:
				out = append(out, one)
			}
		}
	}
	return strings.Join(out, ",")
}

// Check says what is wrong with the attacher behind a mount, nil if nothing is.
func (d *Directories) Check(ctx context.Context, m Mount) error {
	if m.Mounter == KernelFS {
		return nil
	}
	status, err := d.keeper.Describe(ctx, ID(m.Volume))
	switch {
	case errors.Is(err, fault.NotFound):
		return Lost("the attach daemon knows nothing of the volume")
	case err != nil:
		return err
	case !status.Alive:
		return Lost("%s", status.Message)
	}
	return nil
}
