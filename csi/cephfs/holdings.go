package cephfs

import (
	"context"
	"errors"
	"regexp"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// askers bounds how much a search asks of the manager at a time: it must not starve callers.
const askers = 4

// ours are the names of subvolumes and of their snapshots.
var ours = regexp.MustCompile(`^hf-([0-9a-f]{32})$`)

// Holdings lists the subvolumes and snapshots with names of ours in the group of the cluster map,
// in every file system.
func (b *Backend) Holdings(ctx context.Context, site clustermap.Site) (record.Holdings, error) {
	var found record.Holdings
	filesystems, err := site.Cluster.Filesystems(ctx)
	if err != nil {
		return found, err
	}
	for _, fs := range filesystems {
		at := record.Location{ID: fs.ID, Name: fs.Name, Inner: site.Entry.SubvolumeGroup}
		list, err := holdingsIn(ctx, site.Cluster.Subvolumes(fs.Name, at.Inner), at)
		if errors.Is(err, fault.Denied) {
			found.Refused = append(found.Refused, "file system "+fs.Name)
			continue
		}
		if err != nil && !errors.Is(err, fault.NotFound) { // there is no such group (yet)
			return found, err
		}
		found.List, found.Locations = append(found.List, list...), append(found.Locations, at)
	}
	return found, nil
}

func holdingsIn(ctx context.Context, subvolumes ceph.Subvolumes, at record.Location) ([]record.Holding, error) {
	names, err := subvolumes.List(ctx)
	if err != nil {
		return nil, err
	}
	var mutex sync.Mutex
	var found []record.Holding
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(askers)
	for _, name := range names {
		match := ours.FindStringSubmatch(name)
		if match == nil {
			continue
		}
		group.Go(func() error {
			snapshots, err := subvolumes.Snapshots(ctx, name)
			if err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Aborted) && !errors.Is(err, fault.Unavailable) && !errors.Is(err, fault.Precondition) {
				return err
			}
			mutex.Lock()
			defer mutex.Unlock()
			found = append(found, record.Holding{Kind: record.HoldingVolume, Name: name, Incarnation: match[1], Location: at})
			for _, s := range snapshots {
				if m := ours.FindStringSubmatch(s); m != nil {
					found = append(found, record.Holding{Kind: record.HoldingSnapshot, Name: s, Incarnation: m[1], Of: name, Location: at})
				}
			}
			return nil
		})
	}
	return found, group.Wait()
}

// Look completes what is known of a holding. Who has a subvolume mounted Ceph does not tell without
// a right that would allow everything; the nodes' notes do.
func (b *Backend) Look(ctx context.Context, site clustermap.Site, h *record.Holding) error {
	name := h.Name
	if h.Kind == record.HoldingSnapshot {
		name = h.Of
	}
	h.Looked = true
	info, err := site.Cluster.Subvolumes(h.Location.Name, h.Location.Inner).Info(ctx, name)
	switch {
	case errors.Is(err, fault.NotFound):
		h.Gone = true
		return nil
	case err != nil:
		return err
	}
	if h.Kind == record.HoldingVolume {
		h.Kept, h.Size = info.State == ceph.SubvolumeRetained, info.Used
	}
	return nil
}

// Discard removes a holding as a deletion does.
func (b *Backend) Discard(ctx context.Context, site clustermap.Site, h record.Holding) error {
	subvolumes := site.Cluster.Subvolumes(h.Location.Name, h.Location.Inner)
	var err error
	if h.Kind == record.HoldingSnapshot {
		err = subvolumes.RemoveSnapshot(ctx, h.Of, h.Name)
	} else {
		err = b.discard(ctx, subvolumes, h.Name)
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Rewrap has nothing to wrap.
func (b *Backend) Rewrap(_ context.Context, _ clustermap.Site, r *record.Record) error {
	return fault.New(fault.Precondition, "%s %q is not encrypted", r.Kind, r.Name)
}

// Allocated is what the subvolume's files take, in bytes.
func (b *Backend) Allocated(ctx context.Context, site clustermap.Site, r *record.Record) (storage.Bytes, error) {
	info, err := subvolumes(site, r).Info(ctx, r.BackendName())
	return info.Used, err
}

// Sparsify has nothing to do: space of CephFS is free as soon as files are.
func (b *Backend) Sparsify(_ context.Context, _ clustermap.Site, r *record.Record) error {
	return fault.New(fault.Unsupported, "volume %q is on CephFS, which frees the space of files as they are deleted: there is nothing to reclaim", r.Name)
}
