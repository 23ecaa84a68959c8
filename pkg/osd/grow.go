package osd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// sameWeight is how much two CRUSH weights may differ and be one: CRUSH counts in 1/65536.
const sameWeight = 1.0 / 65536

// Growth says which OSD is to use all of its device.
type Growth struct {
	ID   int            `json:"id"`
	UUID string         `json:"uuid"`
	Disk storage.DiskID `json:"disk"`
	// Interrupt stops it also if data are unavailable meanwhile, once nothing that Ceph does would change that: for an OSD that may have the
	// only copy.
	Interrupt bool `json:"interrupt,omitempty"`
}

// PlanGrowth finds the disk of an OSD that is to grow.
func (n *Node) PlanGrowth(ctx context.Context, id int) (Growth, error) {
	d, err := n.diskOf(ctx, id)
	if err != nil {
		return Growth{}, err
	}
	return Growth{ID: id, UUID: onDisk(d).UUID, Disk: d.ID}, nil
}

// Grow returns the steps after which an OSD uses all of a device that grew: it is stopped,
// BlueStore takes the new space, it is started, and its CRUSH weight, which does not follow
// by itself, becomes its size.
func (n *Node) Grow(g Growth) []Step {
	return []Step{
		{Kind: "osd-expand", What: fmt.Sprintf("let %s use the device's new space", name(g.ID)),
			check: func(ctx context.Context) (State, error) { return n.expanded(ctx, g.ID, g.Disk) },
			do:    func(ctx context.Context) error { return n.expand(ctx, g) }},
		n.activation(g.UUID, g.Disk),
		{Kind: "osd-weight", What: fmt.Sprintf("set the CRUSH weight of %s to its size", name(g.ID)),
			check: func(ctx context.Context) (State, error) { return n.weighted(ctx, g.ID, g.Disk) },
			do:    func(ctx context.Context) error { return n.weigh(ctx, g.ID, g.Disk) }},
	}
}

// diskOf finds the disk on which an OSD lies, by its UUID.
func (n *Node) diskOf(ctx context.Context, id int) (storage.Disk, error) {
	e, err := n.byID(ctx, id)
	if err != nil {
		return storage.Disk{}, err
	}
	inventory, err := n.Disks.Scan(ctx)
	if err != nil {
		return storage.Disk{}, err
	}
	for _, d := range inventory.Disks {
		if osd := onDisk(d); osd != nil && osd.UUID == e.UUID && osd.FSID == n.FSID {
			return d, nil
		}
	}
	return storage.Disk{}, fault.New(fault.NotFound, "no disk of this machine carries %s (%s)", name(id), e.UUID)
}

// sizes returns what the OSD uses and what its device has.
func (n *Node) sizes(ctx context.Context, diskID storage.DiskID) (label storage.OSD, size storage.Bytes, err error) {
	d, err := n.Disks.Find(ctx, diskID)
	if err != nil {
		return label, 0, err
	}
	label, device, err := n.inside(ctx, d)
	if err != nil {
		return label, 0, err
	}
	if onDisk(d).Encrypted {
		// The mapping keeps the size that it was opened with.
		if err := n.resizeEncryption(ctx, label.UUID); err != nil {
			return label, 0, err
		}
	}
	f, err := os.Open(device)
	if err != nil {
		return label, 0, fmt.Errorf("open %s: %w", device, err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	return label, storage.Bytes(end), err
}

func (n *Node) resizeEncryption(ctx context.Context, uuid string) error {
	key, err := n.luksKey(ctx, uuid)
	if err != nil {
		return err
	}
	return n.cryptsetup(ctx, key, "resize", "--key-file", "-", mapping(uuid))
}

// blockSize is BlueStore's allocation unit at its largest: less than that is never used.
const blockSize = 64 << 10

func (n *Node) expanded(ctx context.Context, id int, diskID storage.DiskID) (State, error) {
	label, size, err := n.sizes(ctx, diskID)
	if err != nil {
		return Todo, err
	}
	if label.Size > size {
		return Todo, fault.New(fault.Precondition, "%s uses %s, and its device has %s: it has shrunk, do not start the OSD", name(id), label.Size, size)
	}
	if size-label.Size < blockSize {
		return Done, nil
	}
	return Todo, nil
}

// expand gives BlueStore the new space. The OSD is stopped for that, and runs again where it does not come about.
func (n *Node) expand(ctx context.Context, g Growth) error {
	err := n.awaitStoppable(ctx, g)
	if err == nil {
		err = n.expandStopped(ctx, g)
	}
	if err == nil {
		return nil
	}
	if start := n.activate(ctx, g.UUID, g.Disk); start != nil {
		err = errors.Join(err, fmt.Errorf("start %s as it is: %w", name(g.ID), start))
	}
	return err
}

// awaitStoppable waits until no data depends on the OSD alone.
func (n *Node) awaitStoppable(ctx context.Context, g Growth) error {
	return n.await(ctx, name(g.ID)+" to become safe to stop: without it some data would be unavailable", func(ctx context.Context) (bool, error) {
		e, err := n.byID(ctx, g.ID)
		if err != nil || e.Up == 0 {
			return true, err
		}
		ok, err := n.okToStop(ctx, g.ID)
		if err == nil && !ok && g.Interrupt {
			return n.atRest(ctx)
		}
		return ok, err
	})
}

// expandStopped first points the store at where the device is now: it may have another name since the OSD was last started, as after a boot, and the tool
// takes what the store points at.
func (n *Node) expandStopped(ctx context.Context, g Growth) error {
	id, err := n.place(ctx, g.UUID, g.Disk)
	if err != nil {
		return err
	}
	if err := n.Daemons.Stop(ctx, id); err != nil {
		return err
	}
	_, err = n.Run.Run(ctx, command.Cmd{Name: "ceph-bluestore-tool", Args: []string{"bluefs-bdev-expand", "--path", n.store(id), "--no-mon-config"}})
	return err
}

func (n *Node) weighted(ctx context.Context, id int, diskID storage.DiskID) (State, error) {
	label, _, err := n.sizes(ctx, diskID)
	if err != nil {
		return Todo, err
	}
	c, err := n.crush(ctx, id)
	if err != nil || math.Abs(c.Weight-weightOf(label.Size)) > sameWeight {
		return Todo, err
	}
	return Done, nil
}

func (n *Node) weigh(ctx context.Context, id int, diskID storage.DiskID) error {
	label, _, err := n.sizes(ctx, diskID)
	if err != nil {
		return err
	}
	return n.mon(ctx, nil, "osd crush reweight", map[string]any{"name": name(id), "weight": weightOf(label.Size)})
}
