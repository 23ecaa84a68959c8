package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/machine"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutdisks"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

// fabric makes the guest's disks what the job wants them to be.
func (g *guest) fabric() (live.Devices, error) {
	if g.job.Fabric == "" {
		var asked []string
		for _, d := range g.job.Disks {
			asked = append(asked, d.Path)
		}
		return machine.NewDisks(disk.Config{Asked: asked}), nil
	}
	g.disks = &layoutdisks.Disks{}
	if err := layoutdisks.Setup(); err != nil {
		return nil, err
	}
	if g.job.Fabric == "cached" {
		if err := layoutdisks.OpenStore("/dev/ubda"); err != nil {
			return nil, err
		}
	}
	whole := "/dev/ubda"
	if g.job.Fabric == "logged" {
		var size storage.Bytes
		for _, d := range g.job.Disks {
			size += d.Size
		}
		var err error
		if whole, err = layoutdisks.OpenLog(whole, "/dev/ubdb", size); err != nil {
			return nil, err
		}
	}
	for _, d := range g.job.Disks {
		var err error
		switch g.job.Fabric {
		case "cached":
			err = g.disks.AddCached(d.ID, d.Size)
		case "logged", "sliced":
			err = g.disks.AddSlice(d.ID, whole, d.Size)
		default:
			err = g.disks.AddBreakable(d.ID, d.Path, d.Size)
		}
		if err != nil {
			return nil, err
		}
	}
	return g.disks, nil
}

// faultTakes is how long md may take to notice and to get over it.
const faultTakes = 2 * time.Minute

func (g *guest) fault(ctx context.Context, f layoutrun.Fault) error {
	ctx, cancel := context.WithTimeout(ctx, faultTakes)
	defer cancel()
	switch f.Kind {
	case "glitch":
		return g.glitch(ctx, f)
	case "unflushed":
		return g.unflushed(ctx, f)
	case "kept":
		return g.kept(ctx, f)
	case "spare":
		return g.spare(ctx, f)
	case "rot":
		g.rotten = f.Disk
		return g.disks.Rot(f.Disk, layoutrun.RottenAt())
	case "break":
		if err := g.disks.Break(f.Disk); err != nil {
			return err
		}
		g.broken++
		return g.await(ctx, func(a md.Array) bool { return a.Degraded >= g.broken })
	}
	return nil
}

// await waits until an array of the stack is as it should be.
func (g *guest) await(ctx context.Context, ok func(md.Array) bool) error {
	return poll.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		list, err := g.machine.MD.Arrays()
		for _, a := range list {
			if ok(a) {
				return true, err
			}
		}
		return false, err
	})
}

// glitch pulls a disk, lets it miss some writes, and puts it back.
func (g *guest) glitch(ctx context.Context, f layoutrun.Fault) error {
	if err := g.disks.Pull(f.Disk); err != nil {
		return err
	}
	if err := g.await(ctx, func(a md.Array) bool { return a.Degraded > 0 }); err != nil {
		return fmt.Errorf("md does not notice that disk %s is gone: %w", f.Disk, err)
	}
	if err := g.disks.PutBack(f.Disk); err != nil {
		return err
	}
	s, err := g.last()
	if err != nil {
		return err
	}
	added, err := g.machine.Rejoin(ctx, s)
	if err != nil || len(added) == 0 {
		return fmt.Errorf("rejoin: %v, %w", added, err)
	}
	if err := g.await(ctx, func(a md.Array) bool { return a.Degraded == 0 && !a.Busy() }); err != nil {
		return fmt.Errorf("disk %s does not get in sync: %w", f.Disk, err)
	}
	g.report.Refilled, err = g.disks.Written(f.Disk)
	return err
}

// spare adds a disk's first partition to the stack's first array.
func (g *guest) spare(ctx context.Context, f layoutrun.Fault) error {
	s, err := g.last()
	if err != nil {
		return err
	}
	a, err := g.machine.MD.Find(s.Arrays[0].UUID)
	if err != nil {
		return err
	}
	d, err := g.disks.Find(ctx, f.Disk)
	if err != nil {
		return err
	}
	t, err := g.machine.GPT.Read(ctx, d.Path)
	if err != nil || len(t.Partitions) == 0 {
		return fmt.Errorf("disk %s has %d partitions: %w", f.Disk, len(t.Partitions), err)
	}
	return g.machine.MD.Add(ctx, a, t.Partitions[0].Device)
}

// last is the stack as the last plan left it.
func (g *guest) last() (stack.Stack, error) {
	e, err := g.newest()
	return layoutrun.State(e.Plan), err
}

// unflushed writes to a disk, which says that it has it, and dies before the disk's cache is flushed.
func (g *guest) unflushed(ctx context.Context, f layoutrun.Fault) error {
	d, err := g.disks.Find(ctx, f.Disk)
	if err != nil {
		return err
	}
	fd, err := unix.Open(d.Path, unix.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	buf, err := unix.Mmap(-1, 0, layoutrun.Unflushed, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned, as O_DIRECT wants it
	if err != nil {
		return err
	}
	for i := range buf {
		buf[i] = 0xff
	}
	if n, err := unix.Pwrite(fd, buf, 0); n != len(buf) {
		return fmt.Errorf("wrote %d of %d bytes: %w", n, len(buf), err)
	}
	layoutrun.AskToDie(g.dir, "unflushed")
	<-ctx.Done()
	return ctx.Err()
}

// kept says how much is there of what "unflushed" wrote, and dies.
func (g *guest) kept(ctx context.Context, f layoutrun.Fault) error {
	d, err := g.disks.Find(ctx, f.Disk)
	if err != nil {
		return err
	}
	file, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	buf := make([]byte, layoutrun.Unflushed)
	if _, err := io.ReadFull(file, buf); err != nil {
		return err
	}
	layoutrun.AskToDie(g.dir, fmt.Sprint(bytes.Count(buf, []byte{0xff})))
	<-ctx.Done()
	return ctx.Err()
}
