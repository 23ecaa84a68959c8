package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/filesystem"
	"github.com/holdfast-storage/holdfast/pkg/lvm"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

// finish reads back what there is: what the load wrote, parity, sizes.
func (g *guest) finish(ctx context.Context) error {
	entries, err := journal.List(filepath.Join(g.dir, "journals"))
	if err != nil || len(entries) == 0 {
		return fmt.Errorf("journals: %d, %w", len(entries), err)
	}
	s := layoutrun.State(entries[len(entries)-1].Plan)
	// What is read must come from the disks.
	if s.Volume.MountPoint != "" {
		if err := filesystem.Unmount(s.Volume.MountPoint); err != nil {
			return err
		}
		if err := g.machine.Activate(ctx, s); err != nil {
			return err
		}
	}
	if g.report.Blocks, err = g.loader(s).Verify(); err != nil {
		return err
	}
	for _, a := range s.Arrays {
		if err := g.array(ctx, a); err != nil {
			return err
		}
	}
	if g.rotten != "" {
		if g.report.Rotten, err = g.disks.Rotten(g.rotten); err != nil {
			return err
		}
	}
	volumes, err := g.machine.LVM.LVs(ctx, s.Volume.Group)
	if err != nil || len(volumes) != 1 {
		return fmt.Errorf("volumes: %v, %w", volumes, err)
	}
	g.report.Volume = volumes[0].Size
	if g.report.FileSystem, err = filesystem.MountedSize(s.Volume.FileSystem, lvm.Path(s.Volume.Group, s.Volume.Name), s.Volume.MountPoint); err != nil {
		return err
	}
	if err := filesystem.Unmount(s.Volume.MountPoint); err != nil {
		return err
	}
	data, err := json.Marshal(g.report)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(g.dir, layoutrun.ReportFile), data, 0o600)
}

// array scrubs an array and reads its shape back.
func (g *guest) array(ctx context.Context, want stack.Array) error {
	a, err := g.machine.MD.Find(want.UUID)
	if err != nil {
		return err
	}
	if err := g.machine.MD.Scrub(a); err != nil {
		return err
	}
	err = poll.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		a, err = g.machine.MD.Find(want.UUID)
		return err == nil && !a.Busy(), err
	})
	if err != nil {
		return err
	}
	g.report.Arrays = append(g.report.Arrays, layoutrun.Array{
		Name: want.Name, Level: a.Level, Disks: a.Disks, Capacity: a.Capacity, Degraded: a.Degraded, Mismatches: a.Mismatches, Consistency: a.Consistency,
	})
	return nil
}
