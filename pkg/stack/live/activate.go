package live

import (
	"context"
	"errors"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/filesystem"
	"github.com/holdfast-storage/holdfast/pkg/lvm"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// Activate brings a stack up after a boot, as far as it is there: arrays, also in the middle of a reshape, then the
// volume, then the mount. It makes nothing. A stack whose plan did not come to its volume is not an error.
func (m *Machine) Activate(ctx context.Context, s stack.Stack) error {
	for _, a := range s.Arrays {
		if err := m.start(ctx, a, s.Disks); err != nil {
			return err
		}
	}
	list, err := m.LVM.LVs(ctx, s.Volume.Group)
	if err != nil || len(list) == 0 {
		return err
	}
	if err := m.LVM.Activate(ctx, s.Volume.Group); err != nil {
		return err
	}
	if err := m.mount(s.Volume); err != nil {
		return err
	}
	for _, a := range s.Arrays {
		if err := m.rememberOne(a.UUID); err != nil {
			return err
		}
	}
	return nil
}

// rememberOne keeps how far an array has come, if it runs.
func (m *Machine) rememberOne(uuid string) error {
	a, err := m.MD.Find(uuid)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.remember(a)
}

// Rejoin takes members back that were away for a while, and returns their devices. A member that has failed and is still
// there stays out: it is to be replaced.
func (m *Machine) Rejoin(ctx context.Context, s stack.Stack) ([]string, error) {
	var added []string
	for _, a := range s.Arrays {
		list, err := m.join(ctx, a)
		added = append(added, list...)
		if err != nil {
			return added, err
		}
	}
	return added, nil
}

// start assembles an array of all partitions whose superblock names it. It may have members that the plan takes out, and lack those
// that it brings in.
func (m *Machine) start(ctx context.Context, want stack.Array, disks []stack.Disk) error {
	a, err := m.MD.Find(want.UUID)
	if errors.Is(err, fault.NotFound) {
		devices, found := m.marked(ctx, want.UUID, disks)
		if found != nil || len(devices) == 0 {
			return found
		}
		if err := m.assemble(ctx, want, devices); err != nil {
			return err
		}
		a, err = m.MD.Find(want.UUID)
	}
	if err != nil {
		return err
	}
	// An array that was in a reshape waits for the first write; nothing would go on without one.
	if slices.Contains([]string{"read-auto", "readonly"}, a.State) {
		return m.MD.Writable(ctx, a)
	}
	return nil
}

// marked lists the partitions on the disks whose superblock names an array.
func (m *Machine) marked(ctx context.Context, uuid string, disks []stack.Disk) ([]string, error) {
	var list []string
	for _, d := range disks {
		_, t, err := m.table(ctx, d.ID)
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, p := range t.Partitions {
			// A member that cannot be read is as good as gone.
			if found, err := m.MD.MemberOf(p.Device); err == nil && found == uuid {
				list = append(list, p.Device)
			}
		}
	}
	return list, nil
}

func (m *Machine) mount(v stack.Volume) error {
	if v.MountPoint == "" {
		return nil
	}
	device := lvm.Path(v.Group, v.Name)
	there, err := filesystem.MountedFrom(device, v.MountPoint)
	if err != nil || there {
		return err
	}
	info, err := filesystem.Probe(device)
	if err != nil || info.Type != v.FileSystem {
		return err
	}
	return filesystem.Mount(v.FileSystem, device, v.MountPoint)
}
