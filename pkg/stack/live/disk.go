package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/disk/signature"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/gpt"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// label writes a partition table to a blank disk.
type label struct {
	*Machine
	disk stack.Disk
}

// Check refuses a disk of another size, one in use, and one that holds anything.
func (l *label) Check(ctx context.Context) (executor.State, error) {
	d, err := l.Devices.Find(ctx, l.disk.ID)
	if err != nil {
		return executor.Todo, err
	}
	if d.Size != l.disk.Size {
		return executor.Todo, fault.New(fault.Precondition, "disk %s has %d bytes, the plan was made for %d", l.disk.ID, d.Size, l.disk.Size)
	}
	t, err := l.GPT.Read(ctx, d.Path)
	if err == nil && t.GUID == l.disk.GUID {
		return executor.Done, nil
	}
	found, err := l.GPT.Signatures(ctx, d.Path)
	if err != nil {
		return executor.Todo, err
	}
	if len(found) > 0 {
		return executor.Todo, fault.New(fault.Precondition, "disk %s holds %s: it is not blank, and nothing is wiped without being asked to", l.disk.ID, strings.Join(found, ", "))
	}
	if err := unrecognised(d); err != nil {
		return executor.Todo, fmt.Errorf("disk %s: %w", l.disk.ID, err)
	}
	return executor.Todo, exclusive(d.Path)
}

// unrecognised refuses a disk on which something is recognised that wipefs does not know: OSDs, spare copies of what
// was there, the other half of a table. A place that cannot be read refuses it, too. Bytes that nobody knows are let
// pass: a disk that left a stack is full of them.
func unrecognised(d Device) error {
	file, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	found, err := signature.Probe(file, int64(d.Size))
	if err != nil {
		return fault.New(fault.Precondition, "it cannot be told whether it is blank: %w", err)
	}
	for _, c := range found {
		if c.Kind != signature.Data {
			return fault.New(fault.Precondition, "it holds %s at byte %d: it is not blank, and nothing is wiped without being asked to (see `holdfast disks wipe`)", c.Kind, c.Offset)
		}
	}
	return nil
}

// exclusive reports whether nobody has the device: the kernel gives O_EXCL to one holder alone (open(2)).
func exclusive(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.Busy, "open %s for nobody else: %w", path, err)
	}
	return unix.Close(fd)
}

func (l *label) Do(ctx context.Context) error {
	d, err := l.Devices.Find(ctx, l.disk.ID)
	if err != nil {
		return err
	}
	return l.GPT.Label(ctx, d.Path, l.disk.GUID, stack.Edge)
}

func (l *label) Verify(ctx context.Context) error {
	_, t, err := l.table(ctx, l.disk.ID)
	if err == nil && t.GUID != l.disk.GUID {
		return fault.New(fault.Precondition, "disk %s has table %s, not %s", l.disk.ID, t.GUID, l.disk.GUID)
	}
	return err
}

// diskGrow moves the backup of a table to the disk's new end.
type diskGrow struct {
	*Machine
	disk stack.Disk
}

func (g *diskGrow) Check(ctx context.Context) (executor.State, error) {
	d, t, err := g.table(ctx, g.disk.ID)
	switch {
	case err != nil:
		return executor.Todo, err
	case t.GUID != g.disk.GUID:
		return executor.Todo, fault.New(fault.Precondition, "disk %s has table %s, not %s", g.disk.ID, t.GUID, g.disk.GUID)
	case d.Size != g.disk.Size:
		return executor.Todo, fault.New(fault.Precondition, "disk %s has %d bytes, the plan was made for %d", g.disk.ID, d.Size, g.disk.Size)
	}
	return executor.Begun, nil // to move it again does no harm
}

func (g *diskGrow) Do(ctx context.Context) error {
	d, err := g.Devices.Find(ctx, g.disk.ID)
	if err != nil {
		return err
	}
	return g.GPT.Relocate(ctx, d.Path)
}

func (g *diskGrow) Verify(ctx context.Context) error {
	_, _, err := g.table(ctx, g.disk.ID)
	return err
}

// release wipes the labels of a disk that has left. One that is gone, or has another table by now, is left alone.
type release struct {
	*Machine
	disk stack.Disk
}

// ours is the disk with its table while that is the stack's.
func (r *release) ours(ctx context.Context) (Device, gpt.Table, bool, error) {
	d, t, err := r.table(ctx, r.disk.ID)
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Unsupported) {
		return d, t, false, nil
	}
	return d, t, t.GUID == r.disk.GUID, err
}

func (r *release) Check(ctx context.Context) (executor.State, error) {
	_, _, ours, err := r.ours(ctx)
	if err != nil || ours {
		return executor.Todo, err
	}
	return executor.Done, nil
}

func (r *release) Do(ctx context.Context) error {
	d, t, ours, err := r.ours(ctx)
	if err != nil || !ours {
		return err
	}
	for _, p := range t.Partitions {
		if err := r.GPT.Wipe(ctx, p.Device); err != nil {
			return err
		}
	}
	return r.GPT.Clear(ctx, d.Path)
}

func (r *release) Verify(ctx context.Context) error {
	_, _, ours, err := r.ours(ctx)
	if err == nil && ours {
		return fault.New(fault.Precondition, "disk %s still has its table", r.disk.ID)
	}
	return err
}

// partition adds a partition.
type partition struct {
	*Machine
	args stack.PartitionArgs
}

// find looks for the partition in its table; fault.Precondition if the table is another one.
func (p *partition) find(ctx context.Context) (Device, gpt.Partition, bool, error) {
	d, t, err := p.table(ctx, p.args.Partition.Disk)
	if err == nil && t.GUID != p.args.GUID {
		err = fault.New(fault.Precondition, "disk %s has table %s, not %s", p.args.Partition.Disk, t.GUID, p.args.GUID)
	}
	found, ok := t.Partition(p.args.Partition.UUID)
	return d, found, ok, err
}

func (p *partition) Check(ctx context.Context) (executor.State, error) {
	d, found, there, err := p.find(ctx)
	if err != nil {
		return executor.Todo, err
	}
	want := p.args.Partition
	if !there {
		return executor.Todo, nil
	}
	if found.Start != want.Start || found.Size != want.Size {
		return executor.Todo, fault.New(fault.Precondition, "partition %s of disk %s begins at %d and has %d bytes, the plan says %d and %d", want.UUID, want.Disk, found.Start, found.Size, want.Start, want.Size)
	}
	// The kernel may not have heard of it before a crash.
	return executor.Done, p.GPT.Tell(ctx, d.Path)
}

func (p *partition) Do(ctx context.Context) error {
	d, _, there, err := p.find(ctx)
	if err != nil || there {
		return err
	}
	want := p.args.Partition
	return p.GPT.Add(ctx, d.Path, gpt.Partition{UUID: want.UUID, Name: want.Name, Start: want.Start, Size: want.Size})
}

func (p *partition) Verify(ctx context.Context) error {
	want := p.args.Partition
	_, found, there, err := p.find(ctx)
	switch {
	case err != nil:
		return err
	case !there || found.Start != want.Start || found.Size != want.Size:
		return fault.New(fault.Precondition, "partition %s of disk %s is not as planned: %+v", want.UUID, want.Disk, found)
	}
	return p.known(found)
}

// known confirms that the kernel has the partition's size from the table.
func (p *partition) known(found gpt.Partition) error {
	path := strings.Replace(found.Device, "/dev/", "/sys/class/block/", 1) + "/size"
	if size := readSectors(path); size != found.Size {
		return fmt.Errorf("the kernel gives %s %d bytes, its table %d", found.Device, size, found.Size)
	}
	return nil
}

// partitionGrow makes a partition longer.
type partitionGrow struct{ partition }

func (p *partitionGrow) Check(ctx context.Context) (executor.State, error) {
	d, found, there, err := p.find(ctx)
	want := p.args.Partition
	switch {
	case err != nil:
		return executor.Todo, err
	case !there || found.Start != want.Start || found.Size > want.Size:
		return executor.Todo, fault.New(fault.Precondition, "partition %s of disk %s cannot be grown to %d bytes: %+v", want.UUID, want.Disk, want.Size, found)
	case found.Size == want.Size:
		return executor.Done, p.GPT.Tell(ctx, d.Path)
	}
	return executor.Todo, nil
}

func (p *partitionGrow) Do(ctx context.Context) error {
	d, _, there, err := p.find(ctx)
	if err != nil || !there {
		return err
	}
	return p.GPT.Resize(ctx, d.Path, p.args.Partition.Number, p.args.Partition.Size)
}
