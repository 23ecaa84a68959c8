package osd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// ActivateAll starts every OSD of this cluster that lies on a disk of this node: what a node
// does after a reboot. One that cannot be started does not keep the others from it; the
// errors of all come back joined.
func (n *Node) ActivateAll(ctx context.Context) (started []int, err error) {
	inventory, err := n.Disks.Scan(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, d := range inventory.Disks {
		osd := onDisk(d)
		if osd == nil || osd.FSID != n.FSID {
			continue
		}
		a, err := n.PlanAdoption(ctx, d.ID)
		if err == nil {
			err = Run(ctx, n.Adopt(a), nil)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("activate the OSD on disk %s: %w", d.ID, err))
			continue
		}
		e, err := n.byUUID(ctx, osd.UUID)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		started = append(started, e.ID)
	}
	return started, errors.Join(errs...)
}

// Adoption says which OSD is to be brought back from which disk.
type Adoption struct {
	ID   int            `json:"id"`
	UUID string         `json:"uuid"`
	Disk storage.DiskID `json:"disk"`
}

// PlanAdoption looks at an OSD of this cluster that was found on a disk: after a reboot, or in
// another machine. An OSD that the map does not have (any more) is refused: what it holds is
// older than what the cluster decided since.
func (n *Node) PlanAdoption(ctx context.Context, id storage.DiskID) (Adoption, error) {
	d, err := n.Disks.Find(ctx, id)
	if err != nil {
		return Adoption{}, err
	}
	osd, err := n.own(d)
	if err != nil {
		return Adoption{}, err
	}
	e, err := n.byUUID(ctx, osd.UUID)
	if errors.Is(err, fault.NotFound) || err == nil && e.destroyed() {
		return Adoption{}, fault.New(fault.Precondition, "disk %s carries %s of this cluster, which the cluster has removed: wipe the disk to use it again", id, osdName(*osd))
	}
	return Adoption{ID: e.ID, UUID: osd.UUID, Disk: id}, err
}

// Adopt returns the steps that bring the OSD back.
func (n *Node) Adopt(a Adoption) []Step { return []Step{n.activation(a.UUID, a.Disk)} }

// Start starts the OSD and does not wait until it is up: who looks again and again sees whether it stays.
func (n *Node) Start(ctx context.Context, a Adoption) error { return n.activate(ctx, a.UUID, a.Disk) }

// activation starts the OSD on a disk and waits until it is up.
func (n *Node) activation(uuid string, id storage.DiskID) Step {
	return Step{Kind: "osd-activate", What: "start the OSD",
		check: func(ctx context.Context) (State, error) {
			e, err := n.byUUID(ctx, uuid)
			if err != nil {
				return Todo, err
			}
			// "up" alone may be what the map remembers of a daemon that died with the machine.
			if e.Up == 1 && n.linked(ctx, e.ID, id) {
				return Begun, nil
			}
			return Todo, nil
		},
		do: func(ctx context.Context) error { return n.activate(ctx, uuid, id) },
		verify: func(ctx context.Context) error {
			e, err := n.byUUID(ctx, uuid)
			if err != nil {
				return err
			}
			return n.awaitUp(ctx, e.ID)
		}}
}

// linked reports whether the store points at the disk.
func (n *Node) linked(ctx context.Context, id int, diskID storage.DiskID) bool {
	d, err := n.Disks.Find(ctx, diskID)
	if err != nil {
		return false
	}
	target, err := os.Readlink(filepath.Join(n.store(id), "block"))
	osd := onDisk(d)
	return err == nil && (target == n.Disks.Path(d) || osd != nil && target == mappedDevice(osd.UUID))
}

func (n *Node) activate(ctx context.Context, uuid string, id storage.DiskID) error {
	number, err := n.place(ctx, uuid, id)
	if err != nil {
		return err
	}
	return n.Daemons.Start(ctx, number)
}

// place makes sure that the disk carries the OSD, makes its store ready and points it at where the disk is now. It returns the OSD's number.
func (n *Node) place(ctx context.Context, uuid string, id storage.DiskID) (int, error) {
	d, err := n.Disks.Find(ctx, id)
	if err != nil {
		return 0, err
	}
	label, device, err := n.inside(ctx, d)
	if err != nil {
		return 0, err
	}
	if label.UUID != uuid || label.FSID != n.FSID || !label.Ready {
		return 0, fault.New(fault.Precondition, "%s carries %s, UUID %s: it is not the OSD %s that was made there, or was not made to its end", device, osdName(label), label.UUID, uuid)
	}
	number, err := idOf(label)
	if err != nil {
		return 0, err
	}
	return number, n.primeStore(ctx, number, device)
}

// primeStore makes the data directory from the device's label where it is gone, fetches the
// key, and points the link at where the device is now.
func (n *Node) primeStore(ctx context.Context, id int, device string) error {
	dir := n.store(id)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make the store of %s: %w", name(id), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ready")); err != nil {
		prime := command.Cmd{Name: "ceph-bluestore-tool", Args: []string{"prime-osd-dir", "--dev", device, "--path", dir, "--no-mon-config"}}
		if _, err := n.Run.Run(ctx, prime); err != nil {
			return err
		}
	}
	if err := n.fetchKeyring(ctx, id); err != nil {
		return err
	}
	return linkDevice(dir, device)
}
