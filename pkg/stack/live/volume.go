package live

import (
	"context"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/filesystem"
	"github.com/holdfast-storage/holdfast/pkg/lvm"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// pv is what the steps on physical volumes share.
type pv struct {
	*Machine
	args stack.PVArgs
}

// find looks for the array among the physical volumes.
func (s *pv) find(ctx context.Context) (device string, found lvm.PV, err error) {
	a, err := s.MD.Find(s.args.Array.UUID)
	if err != nil {
		return "", lvm.PV{}, err
	}
	list, err := s.LVM.PVs(ctx)
	if err != nil {
		return "", lvm.PV{}, err
	}
	for _, p := range list {
		if base(p.Device) == a.Device || base(p.Device) == s.args.Array.Name {
			return a.Path(), p, nil
		}
	}
	return a.Path(), lvm.PV{}, nil
}

func (s *pv) Verify(ctx context.Context) error {
	device, found, err := s.find(ctx)
	if err != nil {
		return err
	}
	if found.Group != s.args.Group || found.Size != s.args.Bytes {
		return fault.New(fault.Precondition, "array %s gives %d bytes to group %q, the plan says %d to %q", device, found.Size, found.Group, s.args.Bytes, s.args.Group)
	}
	return nil
}

// pvCreate adds an array to the volume group.
type pvCreate struct{ pv }

func (s *pvCreate) Check(ctx context.Context) (executor.State, error) {
	device, found, err := s.find(ctx)
	switch {
	case err != nil:
		return executor.Todo, err
	case found.Group == s.args.Group:
		return executor.Done, nil
	case found.Group != "":
		return executor.Todo, fault.New(fault.Precondition, "array %s is in volume group %s", device, found.Group)
	case found.Device != "":
		return executor.Begun, nil
	}
	held, err := s.GPT.Signatures(ctx, device)
	if err == nil && len(held) > 0 {
		err = fault.New(fault.Precondition, "array %s holds %s", device, strings.Join(held, ", "))
	}
	return executor.Todo, err
}

func (s *pvCreate) Do(ctx context.Context) error {
	device, found, err := s.find(ctx)
	if err != nil {
		return err
	}
	if found.Device == "" {
		if err := s.LVM.CreatePV(ctx, device, stack.PVHead); err != nil {
			return err
		}
	}
	if s.args.First {
		return s.LVM.CreateGroup(ctx, s.args.Group, device, stack.Extent)
	}
	return s.LVM.ExtendGroup(ctx, s.args.Group, device)
}

// pvGrow lets LVM use an array that has grown.
type pvGrow struct{ pv }

func (s *pvGrow) Check(ctx context.Context) (executor.State, error) {
	device, found, err := s.find(ctx)
	switch {
	case err != nil:
		return executor.Todo, err
	case found.Group != s.args.Group:
		return executor.Todo, fault.New(fault.Precondition, "array %s is in volume group %q, the plan says %q", device, found.Group, s.args.Group)
	case found.Size == s.args.Bytes:
		return executor.Done, nil
	}
	return executor.Todo, nil
}

func (s *pvGrow) Do(ctx context.Context) error {
	device, _, err := s.find(ctx)
	if err != nil {
		return err
	}
	return s.LVM.ResizePV(ctx, device)
}

// volume is what the steps on the logical volume share.
type volume struct {
	*Machine
	args stack.VolumeArgs
}

func (s *volume) device() string { return lvm.Path(s.args.Volume.Group, s.args.Volume.Name) }

// find looks for the volume; false if there is none.
func (s *volume) find(ctx context.Context) (lvm.LV, bool, error) {
	list, err := s.LVM.LVs(ctx, s.args.Volume.Group)
	if err != nil {
		return lvm.LV{}, false, err
	}
	for _, v := range list {
		if v.Name == s.args.Volume.Name {
			return v, true, nil
		}
	}
	return lvm.LV{}, false, nil
}

func (s *volume) Verify(ctx context.Context) error {
	v, _, err := s.find(ctx)
	if err == nil && v.Size != s.args.Bytes {
		return fault.New(fault.Precondition, "volume %s has %d bytes, the plan says %d", s.device(), v.Size, s.args.Bytes)
	}
	return err
}

type volumeCreate struct{ volume }

func (s *volumeCreate) Check(ctx context.Context) (executor.State, error) {
	v, there, err := s.find(ctx)
	switch {
	case err != nil || !there:
		return executor.Todo, err
	case v.New:
		return executor.Begun, nil
	}
	return executor.Done, nil
}

// Do wipes what an earlier volume left at the same place: its file system would be taken for the new one.
func (s *volumeCreate) Do(ctx context.Context) error {
	v := s.args.Volume
	_, there, err := s.find(ctx)
	if err != nil {
		return err
	}
	if !there {
		err = s.LVM.CreateVolume(ctx, v.Group, v.Name, s.args.Bytes)
	} else {
		err = s.GPT.Wipe(ctx, s.device())
	}
	if err == nil && v.OSD != nil {
		err = disk.Blank(s.device())
	}
	if err != nil {
		return err
	}
	return s.LVM.Cleared(ctx, v.Group, v.Name)
}

type volumeGrow struct{ volume }

func (s *volumeGrow) Check(ctx context.Context) (executor.State, error) {
	v, there, err := s.find(ctx)
	switch {
	case err != nil:
		return executor.Todo, err
	case !there || v.Size > s.args.Bytes:
		return executor.Todo, fault.New(fault.Precondition, "volume %s has %d bytes, the plan grows it to %d", s.device(), v.Size, s.args.Bytes)
	case v.Size == s.args.Bytes:
		return executor.Done, nil
	}
	return executor.Todo, nil
}

func (s *volumeGrow) Do(ctx context.Context) error {
	return s.LVM.ExtendVolume(ctx, s.args.Volume.Group, s.args.Volume.Name, s.args.Bytes)
}

// makeFS makes the file system. Both kinds write the mark by which they are known last, so what has it is whole.
type makeFS struct{ volume }

func (s *makeFS) Check(ctx context.Context) (executor.State, error) {
	info, err := filesystem.Probe(s.device())
	switch {
	case err != nil:
		return executor.Todo, err
	case info.Type == s.args.Volume.FileSystem:
		return executor.Done, nil
	case info.Type != "":
		return executor.Todo, fault.New(fault.Precondition, "volume %s holds %s", s.device(), info.Type)
	}
	held, err := s.GPT.Signatures(ctx, s.device())
	if err == nil && len(held) > 0 && held[0] != s.args.Volume.FileSystem {
		err = fault.New(fault.Precondition, "volume %s holds %s", s.device(), strings.Join(held, ", "))
	}
	return executor.Todo, err
}

func (s *makeFS) Do(ctx context.Context) error {
	return s.FS.Make(ctx, s.args.Volume.FileSystem, s.device())
}

func (s *makeFS) Verify(context.Context) error {
	info, err := filesystem.Probe(s.device())
	if err == nil && info.Type != s.args.Volume.FileSystem {
		return fault.New(fault.Precondition, "volume %s holds %q, not %s", s.device(), info.Type, s.args.Volume.FileSystem)
	}
	return err
}

type mount struct{ volume }

func (s *mount) Check(context.Context) (executor.State, error) {
	there, err := filesystem.MountedFrom(s.device(), s.args.Volume.MountPoint)
	if err != nil || !there {
		return executor.Todo, err
	}
	return executor.Done, nil
}

func (s *mount) Do(context.Context) error {
	return filesystem.Mount(s.args.Volume.FileSystem, s.device(), s.args.Volume.MountPoint)
}

func (s *mount) Verify(context.Context) error {
	there, err := filesystem.MountedFrom(s.device(), s.args.Volume.MountPoint)
	if err == nil && !there {
		return fault.New(fault.Precondition, "nothing is mounted at %s", s.args.Volume.MountPoint)
	}
	return err
}

// growFS grows the mounted file system to its volume.
type growFS struct{ volume }

func (s *growFS) Check(context.Context) (executor.State, error) {
	v := s.args.Volume
	there, err := filesystem.MountedFrom(s.device(), v.MountPoint)
	switch {
	case err != nil:
		return executor.Todo, err
	case !there:
		return executor.Todo, fault.New(fault.Precondition, "%s is not mounted at %s: it grows while it is", v.FileSystem, v.MountPoint)
	}
	// What Verify allows for may be what is to be grown by, so only the exact size says that nothing is left to do.
	size, err := filesystem.MountedSize(v.FileSystem, s.device(), v.MountPoint)
	if err != nil || size != s.args.Bytes {
		return executor.Todo, err
	}
	return executor.Done, nil
}

func (s *growFS) Do(ctx context.Context) error {
	return s.FS.Grow(ctx, s.args.Volume.FileSystem, s.device(), s.args.Volume.MountPoint)
}

// Verify allows for an eighth of ext4's last group of blocks, which it leaves out where that is too short for its own tables.
func (s *growFS) Verify(context.Context) error {
	v := s.args.Volume
	info, err := filesystem.Probe(s.device())
	if err != nil {
		return err
	}
	size, err := filesystem.MountedSize(v.FileSystem, s.device(), v.MountPoint)
	if err == nil && size < s.args.Bytes && size+info.Group/8 <= s.args.Bytes {
		return fault.New(fault.Precondition, "%s at %s has %d bytes, its volume %d", v.FileSystem, v.MountPoint, size, s.args.Bytes)
	}
	return err
}
