package osd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Removal says which OSD is to go. It is made by PlanRemoval, and written down before the
// first run: afterwards the cluster does not know any more what was where.
type Removal struct {
	ID    int            `json:"id"`
	UUID  string         `json:"uuid"`
	Disk  storage.DiskID `json:"disk,omitempty"` // "" if the disk is gone: then there is nothing to wipe
	Keep  bool           `json:"keep"`           // keep the id, for a replacement
	Token string         `json:"token"`          // wipe the disk; "" leaves it as it is
}

// PlanRemoval says what a removal concerns, and the token that it needs to wipe the disk.
func (n *Node) PlanRemoval(ctx context.Context, id int, keep bool) (r Removal, wipeToken string, err error) {
	e, err := n.byID(ctx, id)
	if err != nil {
		return r, "", err
	}
	r = Removal{ID: id, UUID: e.UUID, Keep: keep}
	d, err := n.diskOf(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return r, "", nil
	}
	if err != nil {
		return r, "", err
	}
	r.Disk = d.ID
	return r, disk.Token(d), nil
}

// Remove returns the steps: out, wait until every PG has its copies elsewhere, stop, purge (or
// destroy, which keeps the id), wipe. Data is at risk at no point: the OSD keeps its copies
// until others have them.
func (n *Node) Remove(r Removal) []Step {
	steps := []Step{
		{Kind: "osd-out", What: fmt.Sprintf("let data move off %s", name(r.ID)), check: n.whileThere(r, func(_ context.Context, e entry) (State, error) {
			if e.In == 1 {
				return Todo, nil
			}
			return Done, nil
		}), do: func(ctx context.Context) error {
			return n.mon(ctx, nil, "osd out", map[string]any{"ids": []string{fmt.Sprint(r.ID)}})
		}},
		{Kind: "osd-drain", What: "wait until all data has its copies elsewhere", check: n.whileThere(r, func(ctx context.Context, _ entry) (State, error) {
			return Begun, nil // Do does not wait long for what is so
		}), do: func(ctx context.Context) error { return n.awaitSafe(ctx, r.ID) }, verify: nothing},
		{Kind: "osd-stop", What: "stop " + name(r.ID), check: n.whileThere(r, func(_ context.Context, e entry) (State, error) {
			if e.Up == 1 {
				return Todo, nil
			}
			return Done, nil
		}), do: func(ctx context.Context) error { return n.stop(ctx, r.ID) }},
		{Kind: "osd-purge", What: "remove " + name(r.ID) + " from the cluster", check: n.whileThere(r, func(context.Context, entry) (State, error) { return Todo, nil }),
			do: func(ctx context.Context) error { return n.purge(ctx, r) }},
		{Kind: "osd-forget", What: "remove what this node keeps of " + name(r.ID), check: func(ctx context.Context) (State, error) { return n.forgotten(ctx, r) },
			do: func(ctx context.Context) error { return n.forget(ctx, r) }},
	}
	if r.Token != "" && r.Disk != "" {
		steps = append(steps, Step{Kind: "osd-wipe", What: fmt.Sprintf("wipe disk %s", r.Disk), check: func(ctx context.Context) (State, error) { return n.wiped(ctx, r.Disk) },
			do: func(ctx context.Context) error { return n.Zap(ctx, r.Disk, r.Token) }})
	}
	return steps
}

// whileThere checks as long as the map has this very OSD; without it the step is done.
func (n *Node) whileThere(r Removal, check func(context.Context, entry) (State, error)) func(context.Context) (State, error) {
	return func(ctx context.Context) (State, error) {
		e, err := n.byID(ctx, r.ID)
		switch {
		case errors.Is(err, fault.NotFound):
			return Done, nil
		case err != nil:
			return Todo, err
		case e.destroyed() || e.UUID != r.UUID: // gone; the id may be another OSD's by now
			return Done, nil
		}
		return check(ctx, e)
	}
}

func (n *Node) stop(ctx context.Context, id int) error {
	if err := n.Daemons.Stop(ctx, id); err != nil {
		return err
	}
	return n.await(ctx, name(id)+" to go down", func(ctx context.Context) (bool, error) {
		e, err := n.byID(ctx, id)
		return e.Up == 0, err
	})
}

// purge goes through the manager, which looks once more whether it is safe.
func (n *Node) purge(ctx context.Context, r Removal) error {
	if err := n.awaitSafe(ctx, r.ID); err != nil {
		return fmt.Errorf("%w; if that does not end, start it again: it is stopped", err)
	}
	prefix := "osd purge"
	if r.Keep {
		prefix = "osd destroy"
	}
	return decode(ctx, n.Cluster.Mgr, nil, prefix, map[string]any{"id": r.ID, "yes_i_really_mean_it": true}, nil)
}

// reused reports whether another OSD has the id by now.
func (n *Node) reused(ctx context.Context, r Removal) (bool, error) {
	e, err := n.byID(ctx, r.ID)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil && !e.destroyed() && e.UUID != r.UUID, err
}

func (n *Node) forgotten(ctx context.Context, r Removal) (State, error) {
	if other, err := n.reused(ctx, r); err != nil || other {
		return Done, err // what is kept under the id is the other one's
	}
	for _, path := range []string{n.store(r.ID), n.Paths.Keyring(name(r.ID)), mappedDevice(r.UUID)} {
		if _, err := os.Lstat(path); err == nil {
			return Todo, nil
		}
	}
	return Done, nil
}

func (n *Node) forget(ctx context.Context, r Removal) error {
	if other, err := n.reused(ctx, r); err != nil || other {
		return errors.Join(err, n.closeEncryption(ctx, r.UUID))
	}
	if err := n.Daemons.Stop(ctx, r.ID); err != nil {
		return err
	}
	if err := n.closeEncryption(ctx, r.UUID); err != nil {
		return err
	}
	keyring := n.Paths.Keyring(name(r.ID))
	halves, err := durable.Leftovers(keyring)
	for _, path := range append(halves, n.store(r.ID), keyring) {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

func (n *Node) wiped(ctx context.Context, id storage.DiskID) (State, error) {
	d, err := n.Disks.Find(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return Done, nil // it was pulled
	}
	if err != nil || len(d.Contents) > 0 {
		return Todo, err
	}
	return Done, nil
}

// Zap wipes a disk for its token (see disk.Token). A disk of an OSD that the cluster still
// has is refused: remove the OSD first.
func (n *Node) Zap(ctx context.Context, id storage.DiskID, token string) error {
	d, err := n.Disks.Find(ctx, id)
	if err != nil {
		return err
	}
	if osd := onDisk(d); osd != nil && osd.FSID == n.FSID {
		e, err := n.byUUID(ctx, osd.UUID)
		if err == nil && !e.destroyed() {
			return fault.New(fault.Precondition, "disk %s carries %s, which the cluster still has: remove the OSD first", id, name(e.ID))
		}
		if err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
	}
	return n.Disks.Wipe(ctx, id, token)
}
