package rbd

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// openers bounds how many images a search opens at a time: it must not starve callers.
const openers = 8

// Holdings lists the images, snapshots and trash entries with names of ours in all pools for RBD.
func (b *Backend) Holdings(ctx context.Context, site clustermap.Site) (record.Holdings, error) {
	var found record.Holdings
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return found, err
	}
	for _, p := range pools {
		if !forImages(p) {
			continue
		}
		at := record.Location{ID: p.ID, Name: p.Name, Inner: site.Entry.RadosNamespace}
		list, err := holdingsIn(ctx, site.Cluster.Images(p.Name, at.Inner), at)
		if errors.Is(err, fault.Denied) {
			found.Refused = append(found.Refused, "pool "+p.Name)
			continue
		}
		if err != nil {
			return found, err
		}
		found.List, found.Locations = append(found.List, list...), append(found.Locations, at)
	}
	return found, nil
}

func holdingsIn(ctx context.Context, images ceph.Images, at record.Location) ([]record.Holding, error) {
	names, err := images.List(ctx)
	if err != nil {
		return nil, err
	}
	trash, err := images.Trashed(ctx)
	if err != nil {
		return nil, err
	}
	var mutex sync.Mutex
	var found []record.Holding
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(openers)
	for _, name := range names {
		match := ours.FindStringSubmatch(name)
		if match == nil {
			continue
		}
		volume := record.Holding{
			Kind: record.HoldingVolume, Name: name, Incarnation: match[2], Location: at, Kept: name == volumeid.TombstoneName(match[2]),
		}
		group.Go(func() error {
			list, err := snapshotsOf(ctx, images, volume)
			mutex.Lock()
			defer mutex.Unlock()
			found = append(append(found, volume), list...)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, t := range trash {
		if match := ours.FindStringSubmatch(t.Name); match != nil {
			found = append(found, record.Holding{
				Kind: record.HoldingTrash, Name: t.Name, Incarnation: match[2], Location: at, ID: t.ID, Since: t.Since,
			})
		}
	}
	return found, nil
}

// snapshotsOf lists an image's snapshots with names of ours. One that is gone, or cannot be
// opened, shows none.
func snapshotsOf(ctx context.Context, images ceph.Images, of record.Holding) ([]record.Holding, error) {
	list, err := images.Snapshots(ctx, of.Name)
	if errors.Is(err, fault.NotFound) {
		return nil, nil
	}
	var found []record.Holding
	for _, s := range list {
		if match := ours.FindStringSubmatch(s.Name); match != nil && match[1] == "" && !s.Removed {
			found = append(found, record.Holding{
				Kind: record.HoldingSnapshot, Name: s.Name, Incarnation: match[2], Of: of.Name, Location: of.Location, Size: s.Size,
			})
		}
	}
	return found, err
}

// Look completes what is known of a holding.
func (b *Backend) Look(ctx context.Context, site clustermap.Site, h *record.Holding) error {
	images := site.Cluster.Images(h.Location.Name, h.Location.Inner)
	h.Looked = true
	name := h.Name
	switch h.Kind {
	case record.HoldingTrash:
		return nil
	case record.HoldingSnapshot:
		name = h.Of
	}
	info, err := images.Info(ctx, name)
	if errors.Is(err, fault.NotFound) {
		h.Gone = true
		if h.Kind == record.HoldingVolume {
			h.Broken, err = listed(ctx, images, h.Name)
			h.Gone = !h.Broken
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	if h.Kind == record.HoldingVolume {
		h.Size = info.Size
	}
	watchers, err := images.Watchers(ctx, name)
	for _, w := range watchers {
		h.Clients = append(h.Clients, w.Address)
	}
	return err
}

func listed(ctx context.Context, images ceph.Images, name string) (bool, error) {
	names, err := images.List(ctx)
	for _, n := range names {
		if n == name {
			return true, err
		}
	}
	return false, err
}

// Discard takes a holding out of sight as a deletion does: an image with snapshots becomes a
// tombstone, another goes to the trash, which refuses one that a client has open.
func (b *Backend) Discard(ctx context.Context, site clustermap.Site, h record.Holding) error {
	images := site.Cluster.Images(h.Location.Name, h.Location.Inner)
	var err error
	switch h.Kind {
	case record.HoldingSnapshot:
		err = images.RemoveSnapshot(ctx, h.Of, h.Name)
	case record.HoldingTrash:
		err = free(ctx, images, h.ID, h.Incarnation)
	default:
		err = b.remove(ctx, site, &record.Record{
			PoolID: h.Location.ID, Incarnation: h.Incarnation, Context: map[string]string{"radosNamespace": h.Location.Inner},
		})
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
