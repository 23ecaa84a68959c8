package osd

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/lvm"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// VolumeDisk is a stack's volume as a disk.
func VolumeDisk(v stack.Volume) storage.DiskID {
	return storage.VolumeDisk(lvm.Mapped(v.Group, v.Name))
}

// VolumeRegistry binds the steps by which a stack's plan makes and grows the OSD on its volume. The Node's scanner must take the volume for a disk.
func VolumeRegistry(connect Connect) executor.Registry {
	bind := func(steps func(context.Context, *Node, stack.Volume) ([]Step, error)) executor.Make {
		return func(s plan.Step, _ func(executor.Progress)) (executor.Step, error) {
			var a stack.VolumeArgs
			if err := json.Unmarshal(s.Args, &a); err != nil {
				return nil, fault.New(fault.Invalid, "arguments of step %s: %w", s.Kind, err)
			}
			if a.Volume.OSD == nil {
				return nil, fault.New(fault.Invalid, "arguments of step %s: they say nothing of an OSD", s.Kind)
			}
			return &onVolume{connect: connect, volume: a.Volume, steps: steps}, nil
		}
	}
	return executor.Registry{stack.KindMakeOSD: bind(makeOnVolume), stack.KindGrowOSD: bind(growOnVolume)}
}

func makeOnVolume(_ context.Context, n *Node, v stack.Volume) ([]Step, error) {
	return n.Prepare(Request{UUID: v.OSD.UUID, Disk: VolumeDisk(v), Class: v.OSD.Class})
}

// growOnVolume has nothing to do where somebody has removed the OSD. Where a person has made another one in its place, that is grown.
func growOnVolume(ctx context.Context, n *Node, v stack.Volume) ([]Step, error) {
	d, err := n.Disks.Find(ctx, VolumeDisk(v))
	if err != nil {
		return nil, err
	}
	uuid := v.OSD.UUID
	if osd := onDisk(d); osd != nil && osd.FSID == n.FSID {
		uuid = osd.UUID
	}
	e, err := n.byUUID(ctx, uuid)
	if errors.Is(err, fault.NotFound) || err == nil && e.destroyed() {
		return nil, nil
	}
	return n.Grow(Growth{ID: e.ID, UUID: uuid, Disk: d.ID, Interrupt: true}), err
}

// onVolume is one step of a stack's plan: a list of an OSD's own steps, which find out by themselves how far they have come.
type onVolume struct {
	connect Connect
	volume  stack.Volume
	steps   func(context.Context, *Node, stack.Volume) ([]Step, error)
}

var _ executor.Step = (*onVolume)(nil)

func (s *onVolume) list(ctx context.Context) ([]Step, error) {
	n, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	return s.steps(ctx, n, s.volume)
}

// Check implements executor.Step.
func (s *onVolume) Check(ctx context.Context) (State, error) {
	steps, err := s.list(ctx)
	if err != nil {
		return Todo, err
	}
	found := Todo
	for _, step := range steps {
		state, err := step.Check(ctx)
		if err != nil || state != Done {
			return max(found, state), err
		}
		found = Begun
	}
	return Done, nil
}

// Do implements executor.Step.
func (s *onVolume) Do(ctx context.Context) error {
	steps, err := s.list(ctx)
	if err != nil {
		return err
	}
	return Run(ctx, steps, nil)
}

// Verify implements executor.Step.
func (s *onVolume) Verify(ctx context.Context) error {
	steps, err := s.list(ctx)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := step.Verify(ctx); err != nil {
			return err
		}
	}
	return nil
}
