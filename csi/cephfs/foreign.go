package cephfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/journal"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Volumes that ceph-csi made are subvolumes like Holdfast's own, under a name that its journal has.

// journalOf opens ceph-csi's journal of a file system, which is in its metadata pool, and returns that
// pool's id: fault.NotFound when the file system is gone.
func journalOf(ctx context.Context, site clustermap.Site, id int64) (*journal.Journal, ceph.Filesystem, int64, error) {
	list, err := site.Cluster.Filesystems(ctx)
	if err != nil {
		return nil, ceph.Filesystem{}, 0, err
	}
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return nil, ceph.Filesystem{}, 0, err
	}
	for _, fs := range list {
		for _, p := range pools {
			if fs.ID == id && p.Name == fs.MetadataPool {
				return journal.Open(site.Cluster, []ceph.PoolInfo{p}, site.Entry.CephCSI.Namespace, site.Entry.CephCSI.Instance), fs, p.ID, nil
			}
		}
	}
	return nil, ceph.Filesystem{}, 0, fault.New(fault.NotFound, "file system %d is gone", id)
}

// kindOf is what the journal calls a record's kind.
func kindOf(kind string) journal.Kind {
	if kind == record.KindSnapshot {
		return journal.Snapshots
	}
	return journal.Volumes
}

// Adopt reads journal and subvolume.
func (b *Backend) Adopt(ctx context.Context, site clustermap.Site, kind string, h volumeid.Handle) (*record.Record, error) {
	j, fs, pool, err := journalOf(ctx, site, h.Pool)
	if err != nil {
		return nil, err
	}
	e, err := j.Read(ctx, kindOf(kind), pool, h.Foreign.UUID)
	if err != nil {
		return nil, err
	}
	e.Handle = h.String()
	switch {
	case e.KMS != "":
		return nil, fault.New(fault.Precondition, kind+" %q was encrypted by ceph-csi (fscrypt, KMS %q), which Holdfast does not read: "+
			"keep ceph-csi for it, or copy its files to a volume of Holdfast's with a pod that mounts both", e.Name, e.KMS)
	case e.Backing != "":
		return nil, fault.New(fault.Precondition, "volume %q shows ceph-csi's snapshot %s without a copy, of which ceph-csi alone keeps count: "+
			"keep ceph-csi for it, or restore the snapshot to a volume of its own", e.Name, e.Backing)
	}
	if kind == record.KindSnapshot {
		return adoptSnapshot(ctx, site, fs, h, e)
	}
	group := site.Entry.SubvolumeGroup
	info, err := site.Cluster.Subvolumes(fs.Name, group).Info(ctx, e.Image)
	if errors.Is(err, fault.NotFound) || err == nil && info.Path == "" {
		// Whether it is gone or elsewhere cannot be told: then nothing is done about it.
		return nil, fault.New(fault.Precondition, "subvolume %s of volume %q is not in group %q of file system %s: if ceph-csi's config.json names another subvolumeGroup, ours must too; "+
			"if it is gone for good, have ceph-csi delete the volume", e.Image, e.Name, group, fs.Name)
	}
	if err != nil {
		return nil, err
	}
	described := volumeid.Context{ClusterID: string(site.Entry.ID), Name: e.Name, Filesystem: fs.Name, SubvolumePath: info.Path}
	return &record.Record{
		Version: 1, Kind: record.KindVolume, Driver: storage.CephFS, Name: e.Name, Incarnation: h.Incarnation,
		State: record.Ready, PoolID: h.Pool, Foreign: e, Group: group, Size: info.Quota, Context: described.Map(),
	}, nil
}

// adoptSnapshot describes a snapshot of a subvolume, which may be kept for its snapshots alone.
func adoptSnapshot(ctx context.Context, site clustermap.Site, fs ceph.Filesystem, h volumeid.Handle, e *journal.Entry) (*record.Record, error) {
	subvolumes := site.Cluster.Subvolumes(fs.Name, site.Entry.SubvolumeGroup)
	list, err := subvolumes.Snapshots(ctx, e.Source)
	if err == nil && !slices.Contains(list, e.Image) {
		err = fault.New(fault.NotFound, "subvolume %s has no snapshot %s", e.Source, e.Image)
	}
	if errors.Is(err, fault.NotFound) {
		return nil, fault.New(fault.Precondition, "snapshot %q of ceph-csi's is not where its journal says, in group %q: %v", e.Name, site.Entry.SubvolumeGroup, err)
	}
	if err != nil {
		return nil, err
	}
	r := &record.Record{
		Version: 1, Kind: record.KindSnapshot, Driver: storage.CephFS, Name: e.Name, Incarnation: h.Incarnation,
		State: record.Ready, PoolID: h.Pool, Foreign: e, Group: site.Entry.SubvolumeGroup,
		Origin: &record.Origin{Kind: record.KindVolume, Handle: e.SourceHandle(h.Foreign), Volume: e.Handle, Backend: e.Source, Snapshot: e.Image},
	}
	r.Context = (&volumeid.Context{ClusterID: string(site.Entry.ID), Name: e.Name, Filesystem: fs.Name}).Map()
	info, err := subvolumes.Info(ctx, e.Source)
	r.Size = info.Quota // of one that is kept for its snapshots Ceph does not tell
	if errors.Is(err, fault.NotFound) {
		err = nil
	}
	return r, err
}

// Adoptable lists the journals of all file systems.
func (b *Backend) Adoptable(ctx context.Context, site clustermap.Site) ([]volumeid.Handle, error) {
	list, err := site.Cluster.Filesystems(ctx)
	if err != nil {
		return nil, err
	}
	var handles []volumeid.Handle
	for _, fs := range list {
		j, _, _, err := journalOf(ctx, site, fs.ID)
		if err != nil {
			return nil, err
		}
		places, err := j.List(ctx, journal.Volumes)
		if err != nil {
			return nil, fmt.Errorf("file system %s: %w", fs.Name, err)
		}
		for _, p := range places {
			f := volumeid.Foreign{Cluster: site.Entry.CephCSIName(), Location: fs.ID, UUID: p.UUID}
			handles = append(handles, f.Handle(storage.CephFS, site.Entry.ID))
		}
	}
	return handles, nil
}

// deleteForeign removes the subvolume, or all of it but its snapshots, then the journal's entry, as ceph-csi
// does. A subvolume whose entry is gone stays: nobody knows whose it is.
func (b *Backend) deleteForeign(ctx context.Context, site clustermap.Site, r *record.Record) error {
	j, _, pool, err := journalOf(ctx, site, r.PoolID)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	known := false
	if err == nil {
		known, err = j.Confirm(ctx, kindOf(r.Kind), r.Foreign)
	}
	if err != nil {
		return fault.As(journal.ErrUntouched, err)
	}
	if known && r.Kind == record.KindSnapshot {
		if err := dropForeignSnapshot(ctx, site, j, pool, r); err != nil {
			return err
		}
	}
	if known && r.Kind == record.KindVolume {
		if err := b.discard(ctx, subvolumes(site, r), r.BackendName()); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
	}
	return j.Remove(ctx, kindOf(r.Kind), r.Foreign)
}

// dropForeignSnapshot removes a snapshot, unless volumes that are ceph-csi's show it without a copy: their files are
// the snapshot's.
func dropForeignSnapshot(ctx context.Context, site clustermap.Site, j *journal.Journal, pool int64, r *record.Record) error {
	handles := spellings(site.Entry, r.Foreign)
	volumes, err := j.Showing(ctx, pool, handles)
	if err == nil && len(volumes) > 0 {
		err = fault.New(fault.Precondition, "snapshot %q is shown without a copy by %s, which ceph-csi made (backingSnapshot): "+
			"their files would be gone with it; have ceph-csi delete them first", r.Name, strings.Join(volumes, ", "))
	}
	if err != nil {
		return fault.As(journal.ErrUntouched, err)
	}
	if err := subvolumes(site, r).RemoveSnapshot(ctx, r.Origin.Backend, r.Origin.Snapshot); err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	return j.Forget(ctx, pool, handles)
}

// spellings are the handles that ceph-csi may have given a snapshot: its clusterID is part of them, and by which of the
// cluster's names it was called then is not known.
func spellings(entry clustermap.Cluster, e *journal.Entry) []string {
	list := []string{e.Handle}
	f, err := volumeid.ParseForeign(e.Handle)
	if err != nil {
		return list
	}
	for _, name := range append([]string{string(entry.ID)}, entry.CephCSI.Aliases...) {
		f.Cluster = name
		if id := f.String(); !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return list
}
