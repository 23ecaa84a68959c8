package rbd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// A deleted volume's image goes to the trash, or becomes a tombstone while it has snapshots:
// both take as long as a rename. Reap frees the trash, shrinks tombstones to nothing, and
// frees those that nothing needs any more.

// Delete takes the image out of sight.
func (b *Backend) Delete(ctx context.Context, site clustermap.Site, r *record.Record) error {
	if r.Foreign != nil {
		return b.deleteForeign(ctx, site, r)
	}
	err := b.remove(ctx, site, r)
	if errors.Is(err, errNoPool) {
		return nil
	}
	if err != nil {
		return err
	}
	return dropOwnSnapshot(ctx, site, r)
}

func (b *Backend) remove(ctx context.Context, site clustermap.Site, r *record.Record) error {
	images, err := images(ctx, site, r)
	if err != nil {
		return err
	}
	name := r.BackendName()
	snapshots, err := images.Snapshots(ctx, name)
	grave := len(snapshots) > 0
	if err == nil && !grave {
		if grave, err = halfBuried(ctx, images, r); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(err, fault.NotFound): // or only a name, which is cleared
		err = images.Remove(ctx, name)
	case err != nil:
		return err
	case grave:
		err = bury(ctx, images, r)
	default:
		err = images.Trash(ctx, name)
		if errors.Is(err, fault.Exhausted) { // the trash's list cannot grow in a full pool
			err = images.Remove(ctx, name)
		}
	}
	switch {
	case errors.Is(err, fault.NotFound):
		return nil
	case errors.Is(err, fault.Busy):
		return fmt.Errorf("%w: %s", err, users(ctx, images, name))
	default:
		return err
	}
}

// halfBuried tells that a burial was cut off. The last snapshot may have gone since; the trash would take the image
// under one of its two names, and nobody would find the other again.
func halfBuried(ctx context.Context, images ceph.Images, r *record.Record) (bool, error) {
	_, err := images.Info(ctx, volumeid.TombstoneName(r.Incarnation))
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// bury makes the image a tombstone. Unlike the trash, a rename does not mind watchers. The tombstone's name is made
// of the incarnation: another image that has it was put there behind Holdfast's back.
func bury(ctx context.Context, images ceph.Images, r *record.Record) error {
	if err := images.Unwatched(ctx, r.BackendName()); err != nil {
		return err
	}
	tombstone := volumeid.TombstoneName(r.Incarnation)
	err := images.Rename(ctx, r.BackendName(), tombstone)
	if errors.Is(err, fault.Exists) {
		return fault.New(fault.Precondition, "another image has the name %s, which this one is to take: look at both with `rbd info`, and give that one another name: %v", tombstone, err)
	}
	return err
}

// users says what keeps the image, for an error message.
func users(ctx context.Context, images ceph.Images, name string) string {
	watchers, err := images.Watchers(ctx, name)
	if err != nil || len(watchers) == 0 {
		return "a client had it open a moment ago"
	}
	addresses := make([]string, len(watchers))
	for i, w := range watchers {
		addresses[i] = w.Address
	}
	return "in use by the client at " + strings.Join(addresses, ", ") + "; unmount the volume there"
}

// ours are the names of volumes' images, alive or tombstones.
var ours = regexp.MustCompile(`^hf-(gone-)?([0-9a-f]{32})$`)

// removals is how many images are freed at once. One at a time falls behind callers that delete
// and create side by side; that four slow creations down cannot be seen.
const removals = 4

// reaping is the lease under which a pool is cleared.
const reaping = "holdfast.reap"

// Reap frees what was deleted, in all pools for RBD: a clone in one can be what keeps a
// tombstone in another. An image that somebody else put into the trash stays there. One controller
// clears a pool at a time: librbd aborts its process when two remove the same image.
func (b *Backend) Reap(ctx context.Context, site clustermap.Site, deleted func(context.Context, string) (bool, error)) (more bool, err error) {
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return false, err
	}
	for again := true; again; {
		again, more = false, false
		for _, p := range pools {
			if !forImages(p) {
				continue
			}
			some, wait, poolErr := clearPool(ctx, site, p.Name, deleted)
			again, more, err = again || some, more || wait, errors.Join(err, poolErr)
		}
		if err != nil {
			return true, err
		}
	}
	return more, nil
}

// clearPool goes once through what was deleted in a pool. wait: something is in use, or another controller is at it.
func clearPool(ctx context.Context, site clustermap.Site, pool string, deleted func(context.Context, string) (bool, error)) (some, wait bool, err error) {
	images := site.Cluster.Images(pool, site.Entry.RadosNamespace)
	work := record.Work{
		Objects: site.Cluster.Objects(pool, site.Entry.RadosNamespace), Object: ceph.ImageDirectory, Name: reaping, Owner: "controller",
	}
	alone, err := record.Alone(ctx, site.Cluster, work, func(ctx context.Context) error {
		freed, open, trashErr := emptyTrash(ctx, images, deleted)
		buried, held, graveErr := clearGraves(ctx, images)
		some, wait = freed || buried, open || held
		return errors.Join(trashErr, graveErr)
	})
	if errors.Is(err, fault.NotFound) && !alone { // the pool never had an image
		return false, false, nil
	}
	return some, wait || !alone, err
}

// emptyTrash frees the images of ours in the trash. wait: a client still has one open.
func emptyTrash(ctx context.Context, images ceph.Images, deleted func(context.Context, string) (bool, error)) (freed, wait bool, err error) {
	list, err := images.Trashed(ctx)
	if err != nil {
		return false, false, err
	}
	var some, open atomic.Bool
	var group errgroup.Group // one that fails ends no other: librbd would go on with it all the same
	group.SetLimit(removals)
	for _, t := range list {
		name := ours.FindStringSubmatch(t.Name)
		if name == nil {
			continue
		}
		gone := name[1] != "" // a tombstone, which nobody else puts there
		if !gone {
			if gone, err = deleted(ctx, name[2]); err != nil {
				return some.Load(), open.Load(), errors.Join(err, group.Wait())
			}
		}
		if !gone {
			continue
		}
		group.Go(func() error {
			switch err := free(ctx, images, t.ID, name[2]); {
			case err == nil, errors.Is(err, fault.NotFound):
				some.Store(true)
			case errors.Is(err, fault.Busy):
				open.Store(true)
			default:
				return err
			}
			return nil
		})
	}
	err = group.Wait()
	return some.Load(), open.Load(), err
}

// free frees an image in the trash. One that has snapshots is given the place that it should have been given: it becomes
// a tombstone. A snapshot can be taken while the image goes to the trash only by a controller that lost its lease.
func free(ctx context.Context, images ceph.Images, id, incarnation string) error {
	err := images.RemoveTrashed(ctx, id)
	if errors.Is(err, fault.Precondition) {
		return images.Restore(ctx, id, volumeid.TombstoneName(incarnation))
	}
	return err
}

// clearGraves shrinks tombstones and puts those that have no snapshots left into the trash. wait: a client has one open.
func clearGraves(ctx context.Context, images ceph.Images) (moved, wait bool, err error) {
	names, err := images.List(ctx)
	if err != nil {
		return false, false, err
	}
	for _, name := range names {
		if match := ours.FindStringSubmatch(name); match == nil || match[1] == "" {
			continue
		}
		switch gone, err := clearGrave(ctx, images, name); {
		case errors.Is(err, fault.Busy):
			wait = true
		case err != nil && !errors.Is(err, fault.NotFound):
			return moved, wait, err
		default:
			moved = moved || gone
		}
	}
	return moved, wait, nil
}

func clearGrave(ctx context.Context, images ceph.Images, name string) (gone bool, err error) {
	snapshots, err := images.Snapshots(ctx, name)
	if err != nil {
		return false, err
	}
	if len(snapshots) == 0 {
		err := images.Trash(ctx, name)
		return err == nil, err
	}
	info, err := images.Info(ctx, name)
	if err != nil || info.Size == 0 {
		return false, err
	}
	return false, images.Resize(ctx, name, 0)
}
