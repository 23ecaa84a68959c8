package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-storage/holdfast/csi/attach/keeper"
	"github.com/holdfast-storage/holdfast/csi/luks"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Devices attaches RBD images as block devices.
type Devices struct {
	krbd   *krbd
	keeper *keeper.Client
	runner command.Runner
	log    *slog.Logger
	lacks  atomic.Int64 // when modprobe found no rbd, in Unix seconds
}

// NewDevices returns the attacher of block devices.
func NewDevices(cfg Config) *Devices {
	return &Devices{krbd: newKrbd(), keeper: keeper.NewClient(cfg.Socket), runner: cfg.Runner, log: cfg.Log}
}

// Close waits for writes to the kernel that their callers gave up on.
func (d *Devices) Close() { d.krbd.writes.Wait() }

// Find returns the device that the image has on this node already, if any; its path is
// empty when a crash has left all of it but the device node.
func (d *Devices) Find(ctx context.Context, img Image) (Device, bool, error) {
	if m, ok, err := d.krbd.find(img.FSID, img.Pool, img.Namespace, img.Name); ok || err != nil {
		return device(img, Krbd, filepath.Join(d.krbd.dev, "rbd"+m.id)), ok, err
	}
	list, err := tagged(ID(img.Volume))
	if err != nil {
		return Device{}, false, err
	}
	for _, s := range list {
		if dev := device(img, FuseLoop, s.path); d.Check(ctx, dev) == nil {
			return dev, true, nil
		}
	}
	// An export whose device is gone has the image open, too; Attach puts a device on it.
	status, err := d.keeper.Describe(ctx, ID(img.Volume))
	return device(img, FuseLoop, ""), err == nil && status.Alive, nil
}

// Attach makes the image a block device. Repeated, it returns the same device; what is
// left of a dead attacher is cleaned up first.
func (d *Devices) Attach(ctx context.Context, img Image) (Device, error) {
	mounter, why, err := d.choose(ctx, img)
	if err != nil {
		return Device{}, err
	}
	d.log.Debug("attacher chosen", obs.KeyVolume, img.Volume, "mounter", mounter, "reason", why)
	var path string
	switch mounter {
	case Krbd:
		path, err = d.attachMapped(ctx, img)
	case FuseLoop:
		path, err = d.attachLoop(ctx, img)
	}
	if err != nil {
		return Device{}, fmt.Errorf("attach by %s: %w", mounter, err)
	}
	dev := device(img, mounter, path)
	if dev.Encrypted && mounter == Krbd {
		return d.unlock(ctx, img, dev)
	}
	return dev, nil
}

// attachMapped maps the image; dm-crypt over a mapping of the other kind of access would keep
// that from being replaced.
func (d *Devices) attachMapped(ctx context.Context, img Image) (string, error) {
	m, found, err := d.krbd.find(img.FSID, img.Pool, img.Namespace, img.Name)
	if err != nil {
		return "", err
	}
	if !found || m.readOnly != img.ReadOnly {
		if err := d.lock(ctx, ID(img.Volume)); err != nil {
			return "", err
		}
	}
	return d.krbd.attach(ctx, img)
}

// unlock opens a mapped encrypted image by dm-crypt.
func (d *Devices) unlock(ctx context.Context, img Image, dev Device) (Device, error) {
	id := ID(dev.Volume)
	if err := luks.Open(ctx, d.runner, dev.Path, id, img.Passphrase, img.ReadOnly); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		return Device{}, errors.Join(fmt.Errorf("open %s: %w", dev.Path, err), d.krbd.detach(undo, dev))
	}
	dev.Path, dev.Mapped = luks.Path(id), dev.Path
	return dev, nil
}

// undoLimit bounds the end of an attachment that did not come about.
const undoLimit = 20 * time.Second

func device(img Image, mounter, path string) Device {
	return Device{
		Mounter: mounter, Volume: img.Volume, Path: path, FSID: img.FSID, Pool: img.Pool, Namespace: img.Namespace,
		Image: img.Name, ReadOnly: img.ReadOnly, UnmapOption: img.UnmapOption, Encrypted: img.Passphrase.Reveal() != "",
	}
}

// choose picks krbd where the kernel has it and can do the image's features, FUSE and
// loop otherwise; a mounter that is asked for by name is taken or refused.
func (d *Devices) choose(ctx context.Context, img Image) (mounter, why string, err error) {
	switch img.Mounter {
	case FuseLoop:
		return FuseLoop, "asked for", nil
	case Krbd:
		if !d.kernelRBD(ctx) {
			return "", "", fault.New(fault.Unsupported, "mounter krbd: the kernel of this node has no rbd (modprobe rbd); mounter auto or fuse-loop works without")
		}
		return Krbd, "asked for", nil
	case "", Auto:
	default:
		return "", "", fault.New(fault.Invalid, "mounter %q is none of auto, krbd, fuse-loop", img.Mounter)
	}
	if list, _ := tagged(ID(img.Volume)); len(list) > 0 {
		return FuseLoop, "attached that way already", nil
	}
	if !d.kernelRBD(ctx) {
		return FuseLoop, "the kernel has no rbd", nil
	}
	if missing := d.krbd.lacks(img.Features); len(missing) > 0 {
		return FuseLoop, "the kernel's rbd lacks " + strings.Join(missing, ", "), nil
	}
	if img.Passphrase.Reveal() != "" && !d.kernelCrypt(ctx) {
		return FuseLoop, "the kernel has no dm-crypt", nil
	}
	return Krbd, "the kernel has rbd", nil
}

// lackFor is how long a kernel without rbd counts as one: somebody may install its modules.
const lackFor = time.Minute

func (d *Devices) kernelRBD(ctx context.Context) bool {
	if d.krbd.available() {
		return true
	}
	if time.Since(time.Unix(d.lacks.Load(), 0)).Abs() < lackFor {
		return false
	}
	if _, err := d.runner.Run(ctx, command.Cmd{Name: "modprobe", Args: []string{"rbd", "single_major=Y"}}); err != nil {
		d.lacks.Store(time.Now().Unix())
		return false
	}
	return d.krbd.available()
}

// kernelCrypt reports whether the kernel has dm-crypt.
func (d *Devices) kernelCrypt(ctx context.Context) bool {
	if _, err := os.Stat("/sys/module/dm_crypt"); err == nil {
		return true
	}
	_, err := d.runner.Run(ctx, command.Cmd{Name: "modprobe", Args: []string{"dm_crypt"}})
	return err == nil
}

// Describe says how this node attaches images, for logs.
func (d *Devices) Describe(ctx context.Context) string {
	if d.kernelRBD(ctx) {
		return "krbd"
	}
	a, err := d.keeper.Ability(ctx)
	switch {
	case err != nil:
		return "none: the kernel has no rbd; " + err.Error()
	case !a.RBD:
		return "none: the kernel has no rbd; " + a.Reason
	}
	return "fuse-loop (the kernel has no rbd)"
}

// attachLoop has the keeper export the image as a file and puts a loop device on it.
func (d *Devices) attachLoop(ctx context.Context, img Image) (string, error) {
	id := ID(img.Volume)
	tag := tagPrefix + id
	if path, err := d.reuse(ctx, id, img.ReadOnly); path != "" || err != nil {
		return path, err
	}
	spec := keeper.Spec{
		ID: id, Kind: keeper.KindRBD, Volume: img.Volume, FSID: img.FSID, Monitors: img.Endpoint.Monitors,
		User: img.Credentials.User, Key: img.Credentials.Key.Reveal(), ReadOnly: img.ReadOnly,
		Pool: img.Pool, Namespace: img.Namespace, Image: img.Name, Passphrase: img.Passphrase.Reveal(),
	}
	if spec.Passphrase != "" {
		spec.Header = int64(luks.HeaderSize)
	}
	status, err := d.keeper.Start(ctx, spec)
	if errors.Is(err, fault.Exists) { // no loop device on it, and another purpose
		if err = d.keeper.Stop(ctx, id); err == nil {
			status, err = d.keeper.Start(ctx, spec)
		}
	}
	if err != nil {
		return "", err
	}
	path, err := loopAttach(ctx, status.Path, tag, img.ReadOnly)
	if err != nil {
		return "", errors.Join(err, d.keeper.Stop(context.WithoutCancel(ctx), id))
	}
	return path, nil
}

// reuse returns the healthy loop device of the attachment, if there is one. All others
// with its tag are dead and are freed, at the latest when their last user goes.
func (d *Devices) reuse(ctx context.Context, id string, readOnly bool) (string, error) {
	status, err := d.keeper.Describe(ctx, id)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return "", err
	}
	list, err := tagged(id)
	if err != nil {
		return "", err
	}
	for _, s := range list {
		alive := status.Alive && s.on(status.Path)
		if alive && status.Spec.ReadOnly == readOnly {
			err := loopKeep(s.path, s.tag)
			if errors.Is(err, ErrLost) { // freed this moment
				continue
			}
			return s.path, err
		}
		if err := d.free(ctx, s, alive); err != nil {
			return "", err
		}
	}
	return "", nil
}

// deadLoopPatience is how long the users of a dead loop device are waited for.
const deadLoopPatience = 2 * time.Second

// free frees a loop device. One whose helper is dead can only give errors: if a pod still
// holds it, the kernel frees it when the pod goes, and nobody has to wait for that.
func (d *Devices) free(ctx context.Context, s loopStatus, alive bool) error {
	if alive {
		err := loopDetach(ctx, s.path, s.tag)
		if err == nil {
			return nil
		}
		keepErr := loopKeep(s.path, s.tag)
		if errors.Is(keepErr, ErrLost) { // freed at last
			return nil
		}
		return errors.Join(err, keepErr)
	}
	short, cancel := context.WithTimeout(ctx, deadLoopPatience)
	defer cancel()
	err := loopDetach(short, s.path, s.tag)
	if errors.Is(err, fault.Busy) && ctx.Err() == nil {
		d.log.Warn("a dead device is still in use and goes with its last user", obs.KeyDevice, s.path)
		return nil
	}
	return err
}

// Detach takes the device away; one that is gone is detached. fault.Busy while it is open.
func (d *Devices) Detach(ctx context.Context, dev Device) error {
	id := ID(dev.Volume)
	if dev.Mounter == Krbd {
		if err := d.lock(ctx, id); err != nil {
			return err
		}
		return d.krbd.detach(ctx, dev)
	}
	status, err := d.keeper.Describe(ctx, id)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	list, err := tagged(id)
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := d.free(ctx, s, status.Alive && s.on(status.Path)); err != nil {
			return err
		}
	}
	if err := d.Forget(ctx, dev); err != nil {
		return err
	}
	return d.keeper.Stop(ctx, id)
}

// lock ends dm-crypt over an encrypted image, if there is any, when its last user goes.
func (d *Devices) lock(ctx context.Context, id string) error {
	var last error
	err := poll.Until(ctx, pollEvery, func() (bool, error) {
		last = luks.Close(ctx, d.runner, id)
		if errors.Is(last, fault.Busy) {
			return false, nil
		}
		return last == nil, last
	})
	if errors.Is(err, context.DeadlineExceeded) && last != nil { // no %w: this is not the cluster's slowness
		return fault.New(fault.Busy, "close %s: it is still open or mounted (%v)", luks.Path(id), last)
	}
	return err
}

// Forget lets go of a device that is lost: it is freed when its last user goes.
func (d *Devices) Forget(_ context.Context, dev Device) error {
	if dev.Mounter == Krbd || dev.Path == "" {
		return nil
	}
	return loopForget(dev.Path)
}

// Keep takes back what a Detach that was given up on, or cut off by a crash, has begun. ErrLost
// when the device is gone. It must not run beside another call for the volume.
func (d *Devices) Keep(_ context.Context, dev Device) error {
	if dev.Mounter == Krbd {
		return nil // an unmap is done at once or refused
	}
	return loopKeep(dev.Path, tagPrefix+ID(dev.Volume))
}

// Grow makes the device show an image of at least want bytes, and returns the device's size, from
// which the header of an encrypted image is taken off. For fuse-loop want must be the image's true
// size: QEMU sets the image to it.
func (d *Devices) Grow(ctx context.Context, dev Device, want storage.Bytes) (storage.Bytes, error) {
	if dev.Mounter == Krbd {
		return d.growMapped(ctx, dev, want)
	}
	if err := d.Check(ctx, dev); err != nil {
		return 0, err
	}
	data := int64(dev.Data(want))
	size, err := DeviceSize(dev.Path)
	if err != nil || size >= data {
		return storage.Bytes(size), err
	}
	if _, err := d.keeper.Resize(ctx, ID(dev.Volume), int64(want)); err != nil {
		return 0, err
	}
	err = poll.Until(ctx, pollEvery, func() (bool, error) {
		if err := loopRefresh(dev.Path); err != nil {
			return false, err
		}
		size, err = DeviceSize(dev.Path)
		return size >= data, err
	})
	if err != nil {
		return 0, fmt.Errorf("grow %s from %d to %d bytes: %w", dev.Path, size, data, err)
	}
	return storage.Bytes(size), nil
}

// growMapped grows the kernel's device, and dm-crypt over it.
func (d *Devices) growMapped(ctx context.Context, dev Device, want storage.Bytes) (storage.Bytes, error) {
	size, err := d.krbd.grow(ctx, dev.mapped(), want)
	if err != nil || !dev.Encrypted {
		return size, err
	}
	if err := luks.Grow(ctx, d.runner, ID(dev.Volume)); err != nil {
		return 0, err
	}
	return dev.Data(size), nil
}

// Check says what is wrong with an attached device, nil if nothing is: a dead attacher,
// a mapping that is gone.
func (d *Devices) Check(ctx context.Context, dev Device) error {
	if dev.Mounter == Krbd {
		if dev.Encrypted && !luks.Opened(ID(dev.Volume)) {
			return Lost("%s is not open any more", dev.Path)
		}
		return d.krbd.check(dev.mapped())
	}
	s, err := loopGet(dev.Path)
	if err != nil || s.tag != tagPrefix+ID(dev.Volume) {
		return Lost("%s is not the volume's device any more", dev.Path)
	}
	status, err := d.keeper.Describe(ctx, ID(dev.Volume))
	switch {
	case errors.Is(err, fault.NotFound):
		return Lost("the attach daemon knows nothing of the volume")
	case err != nil:
		return err
	case !status.Alive:
		return Lost("%s", status.Message)
	case !s.on(status.Path):
		return Lost("%s stands on an export that is gone", dev.Path)
	}
	return nil
}

// Guess finds the device of a volume of which the node's state is lost: by the loop
// device's tag, by what the keeper has, or by the name of a mapped image.
func (d *Devices) Guess(ctx context.Context, volume, image string) (Device, bool, error) {
	list, err := tagged(ID(volume))
	if err != nil {
		return Device{}, false, err
	}
	if len(list) > 0 {
		return Device{Mounter: FuseLoop, Volume: volume, Path: list[0].path, Image: image}, true, nil
	}
	if _, err := d.keeper.Describe(ctx, ID(volume)); err == nil { // an export without a device
		return Device{Mounter: FuseLoop, Volume: volume, Image: image}, true, nil
	}
	return d.krbd.guess(volume, image)
}
