// Package live makes what package stack plans real: partitions by gpt, arrays by md, volumes by lvm, file systems by
// filesystem. Each kind of step is a small type with Check, Do and Verify.
//
// Invariant: a disk is found by its identity at every call, never by a name that was true before; nothing
// is written where something unknown lies.
//
// It must not import the packages that plan a layout, nor decide anything that is not in a step.
package live

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/filesystem"
	"github.com/holdfast-storage/holdfast/pkg/gpt"
	"github.com/holdfast-storage/holdfast/pkg/lvm"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Device is where a disk is now.
type Device struct {
	Path string
	Size storage.Bytes
}

// Devices finds disks by their identity. Find returns fault.NotFound for a disk that is not there, and
// fault.Precondition where two devices have one identity.
type Devices interface {
	Find(ctx context.Context, id plan.DiskID) (Device, error)
}

// Machine is the machine that has the disks.
type Machine struct {
	Devices Devices
	MD      md.Tool
	LVM     lvm.Tool
	GPT     gpt.Tool
	FS      filesystem.Tool
	// Limit is how fast md may sync now, in bytes a second; 0 for as fast as it can. It is asked again all the time.
	Limit func() storage.Bytes
	// Events is the directory, outside of all stacks, that keeps how far each array had come; "" for none.
	Events string
	// Interval is how often md is looked at while it works.
	Interval time.Duration
}

// New is a Machine with the machine's own tools.
func New(devices Devices, run command.Runner, limit func() storage.Bytes) *Machine {
	_, err := os.Stat("/run/udev/control")
	return &Machine{
		Devices: devices, Limit: limit, Interval: 500 * time.Millisecond,
		MD: md.Tool{Run: run, Sys: "/sys"}, LVM: lvm.Tool{Run: run, NoUdev: errors.Is(err, os.ErrNotExist)}, GPT: gpt.Tool{Run: run}, FS: filesystem.Tool{Run: run},
	}
}

// Registry binds the kinds of package stack to their behaviour on the machine.
func (m *Machine) Registry() executor.Registry {
	return executor.Registry{
		stack.KindLabel:         bind(func(a stack.DiskArgs, _ report) executor.Step { return &label{m, a.Disk} }),
		stack.KindDiskGrow:      bind(func(a stack.DiskArgs, _ report) executor.Step { return &diskGrow{m, a.Disk} }),
		stack.KindRelease:       bind(func(a stack.DiskArgs, _ report) executor.Step { return &release{m, a.Disk} }),
		stack.KindPartition:     bind(func(a stack.PartitionArgs, _ report) executor.Step { return &partition{m, a} }),
		stack.KindPartitionGrow: bind(func(a stack.PartitionArgs, _ report) executor.Step { return &partitionGrow{partition{m, a}} }),
		stack.KindCreate:        bind(func(a stack.ArrayArgs, r report) executor.Step { return &create{array{m, a, r}} }),
		stack.KindRecover:       bind(func(a stack.ArrayArgs, r report) executor.Step { return &reshape{array{m, a, r}} }),
		stack.KindReshape:       bind(func(a stack.ArrayArgs, r report) executor.Step { return &reshape{array{m, a, r}} }),
		stack.KindReplace:       bind(func(a stack.ArrayArgs, r report) executor.Step { return &replace{array{m, a, r}} }),
		stack.KindDrop:          bind(func(a stack.ArrayArgs, r report) executor.Step { return &drop{array{m, a, r}} }),
		stack.KindWiden:         bind(func(a stack.ArrayArgs, r report) executor.Step { return &widen{array{m, a, r}} }),
		stack.KindProtect:       bind(func(a stack.ArrayArgs, r report) executor.Step { return &protect{array{m, a, r}} }),
		stack.KindPVCreate:      bind(func(a stack.PVArgs, _ report) executor.Step { return &pvCreate{pv{m, a}} }),
		stack.KindPVGrow:        bind(func(a stack.PVArgs, _ report) executor.Step { return &pvGrow{pv{m, a}} }),
		stack.KindVolumeCreate:  bind(func(a stack.VolumeArgs, _ report) executor.Step { return &volumeCreate{volume{m, a}} }),
		stack.KindVolumeGrow:    bind(func(a stack.VolumeArgs, _ report) executor.Step { return &volumeGrow{volume{m, a}} }),
		stack.KindMakeFS:        bind(func(a stack.VolumeArgs, _ report) executor.Step { return &makeFS{volume{m, a}} }),
		stack.KindMount:         bind(func(a stack.VolumeArgs, _ report) executor.Step { return &mount{volume{m, a}} }),
		stack.KindGrowFS:        bind(func(a stack.VolumeArgs, _ report) executor.Step { return &growFS{volume{m, a}} }),
	}
}

type report = func(executor.Progress)

// bind reads a step's arguments for its behaviour.
func bind[A any](build func(A, report) executor.Step) executor.Make {
	return func(s plan.Step, r func(executor.Progress)) (executor.Step, error) {
		var args A
		if err := json.Unmarshal(s.Args, &args); err != nil {
			return nil, fault.New(fault.Invalid, "arguments of step %s: %w", s.Kind, err)
		}
		return build(args, r), nil
	}
}

// table finds a disk and reads its partition table.
func (m *Machine) table(ctx context.Context, id plan.DiskID) (Device, gpt.Table, error) {
	d, err := m.Devices.Find(ctx, id)
	if err != nil {
		return d, gpt.Table{}, err
	}
	t, err := m.GPT.Read(ctx, d.Path)
	return d, t, err
}

// member finds the device of a partition by its UUID in the table of the disk that it belongs to.
func (m *Machine) member(ctx context.Context, p stack.Partition) (string, error) {
	_, t, err := m.table(ctx, p.Disk)
	if err != nil {
		return "", err
	}
	found, ok := t.Partition(p.UUID)
	if !ok {
		return "", fault.New(fault.NotFound, "disk %s has no partition %s", p.Disk, p.UUID)
	}
	// A disk that came back has its nodes only after its table was read again.
	if _, err := os.Stat(found.Device); err != nil {
		return "", fault.New(fault.NotFound, "partition %s of disk %s: %w", p.UUID, p.Disk, err)
	}
	return found.Device, nil
}
