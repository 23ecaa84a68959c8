package rbd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/journal"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Volumes that ceph-csi made are images like Holdfast's own, under a name that its journal has.

// journalOf opens ceph-csi's journal, which is in the pools and the namespace of the images.
func journalOf(ctx context.Context, site clustermap.Site) (*journal.Journal, error) {
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return nil, err
	}
	return journal.Open(site.Cluster, pools, site.Entry.RadosNamespace, site.Entry.CephCSI.Instance), nil
}

// kindOf is what the journal calls a record's kind.
func kindOf(kind string) journal.Kind {
	if kind == record.KindSnapshot {
		return journal.Snapshots
	}
	return journal.Volumes
}

// Adopt reads journal and image. A snapshot of ceph-csi's is an image of its own, cloned from the volume's, with a
// snapshot of the same name, which copies are made from (ceph-csi: docs/design/proposals/rbd-snap-clone.md).
func (b *Backend) Adopt(ctx context.Context, site clustermap.Site, kind string, h volumeid.Handle) (*record.Record, error) {
	j, err := journalOf(ctx, site)
	if err != nil {
		return nil, err
	}
	e, err := j.Read(ctx, kindOf(kind), h.Pool, h.Foreign.UUID)
	if errors.Is(err, fault.Denied) && !mayHoldImages(ctx, site, h.Pool) {
		return nil, fault.New(fault.NotFound, "pool %d is not for images", h.Pool)
	}
	if err != nil {
		return nil, err
	}
	e.Handle = h.String()
	r := &record.Record{
		Version: 1, Kind: kind, Driver: storage.RBD, Name: e.Name, Incarnation: h.Incarnation,
		State: record.Ready, PoolID: h.Pool, Foreign: e,
	}
	if e.KMS != "" {
		return nil, sealed(r, "KMS "+e.KMS)
	}
	if kind == record.KindSnapshot {
		r.Origin = &record.Origin{Kind: record.KindVolume, Handle: e.SourceHandle(h.Foreign), Volume: e.Handle, Backend: e.Image, Snapshot: e.Image}
	}
	pool, err := poolOf(ctx, site, r)
	if err != nil {
		return nil, err
	}
	described := volumeid.Context{ClusterID: string(site.Entry.ID), Name: e.Name, Pool: pool, RadosNamespace: site.Entry.RadosNamespace, Image: e.Image}
	r.Context = described.Map()
	images := site.Cluster.Images(pool, site.Entry.RadosNamespace)
	info, there, err := inspect(ctx, images, e.Image)
	if err != nil {
		return nil, err
	}
	if !there {
		r.State = record.Deleting // ceph-csi removes the image first, and was cut off
		return r, nil
	}
	if err := fitting(ctx, site, r, pool, info); err != nil {
		return nil, err
	}
	meta, err := images.Metadata(ctx, e.Image)
	if err != nil {
		return nil, err
	}
	for _, key := range encryptedKeys {
		if state := meta[key]; state != "" {
			return nil, sealed(r, key+" is "+state)
		}
	}
	r.Size = info.Size
	r.Depth, err = depthOf(ctx, site, info)
	return r, err
}

// mayHoldImages is false of a pool that has another application. A handle of ceph-csi's does not tell its driver:
// the number may be that of a file system.
func mayHoldImages(ctx context.Context, site clustermap.Site, id int64) bool {
	pools, err := site.Cluster.Pools(ctx)
	i := slices.IndexFunc(pools, func(p ceph.PoolInfo) bool { return p.ID == id })
	return err != nil || i < 0 || len(pools[i].Applications) == 0 || forImages(pools[i])
}

// inspect looks at an image: false when it is gone. That it is not found librbd says of a clone, too, whose parent is
// not there: that one is fault.Precondition.
func inspect(ctx context.Context, images ceph.Images, name string) (ceph.ImageInfo, bool, error) {
	info, err := images.Info(ctx, name)
	if !errors.Is(err, fault.NotFound) {
		return info, err == nil, err
	}
	_, sizeErr := images.Size(ctx, name) // which opens nothing
	switch {
	case sizeErr == nil:
		return info, false, fault.New(fault.Precondition, "image %s is there and cannot be opened: what it was cloned from is gone, or its creation was cut off; look at it with `rbd info`, and have ceph-csi delete it if nobody needs it: %v", name, err)
	case errors.Is(sizeErr, fault.NotFound):
		return info, false, nil
	}
	return info, false, sizeErr
}

// encryptedKeys are ceph-csi's own words in the metadata of an image that it encrypted, or will when it is first used;
// journals of its first versions do not tell (ceph-csi: internal/rbd/encryption.go).
var encryptedKeys = []string{"rbd.csi.ceph.com/encrypted", ".rbd.csi.ceph.com/encrypted"}

func sealed(r *record.Record, by string) error {
	return fault.New(fault.Precondition, "%s %q was encrypted by ceph-csi (%s), whose headers and keys Holdfast does not read: "+
		"keep ceph-csi for it, or copy its files to a volume of Holdfast's with a pod that mounts both", r.Kind, r.Name, by)
}

// depthOf counts the parents above an image, up to hardDepth.
func depthOf(ctx context.Context, site clustermap.Site, info ceph.ImageInfo) (depth int, err error) {
	for ; info.Parent.Image != "" && depth < hardDepth; depth++ {
		at := info.Parent
		info, err = site.Cluster.Images(at.Pool, at.Namespace).Info(ctx, at.Image)
		if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Denied) {
			return hardDepth, nil // in the trash, or in a pool that is none of this user's
		}
		if err != nil {
			return 0, err
		}
	}
	return depth, nil
}

// fitting refuses an image that is not the one of the record's entry, or not for Holdfast.
func fitting(ctx context.Context, site clustermap.Site, r *record.Record, pool string, info ceph.ImageInfo) error {
	e := r.Foreign
	if e.ImageID != "" && info.ID != e.ImageID {
		return fmt.Errorf("%w: image %s/%s has the id %s, the journal's has %s", journal.ErrDiffers, pool, e.Image, info.ID, e.ImageID)
	}
	if slices.Contains(info.Features, "journaling") {
		return fault.New(fault.Precondition, "image %s/%s has the feature journaling, with which Ceph's library may crash when it is removed: "+
			"if it is not mirrored any more, take it away with `rbd feature disable %s/%s journaling`", pool, e.Image, pool, e.Image)
	}
	return unmirrored(ctx, site.Cluster.Omaps(pool, r.Context["radosNamespace"]), pool+"/"+e.Image, info.ID)
}

// unmirrored refuses an image that is mirrored, by snapshots too, of which its features do not tell: an object beside the
// images lists them by id (Ceph: src/cls/rbd/cls_rbd.cc, mirror::image_key).
func unmirrored(ctx context.Context, objects ceph.Omaps, image, id string) error {
	key := "image_" + id
	listed, err := objects.Pairs(ctx, "rbd_mirroring", key)
	if errors.Is(err, fault.NotFound) { // nothing in the pool ever was
		return nil
	}
	if _, there := listed[key]; err == nil && there {
		return fault.New(fault.Precondition, "image %s is mirrored, which Holdfast does not look after: keep ceph-csi for it, "+
			"or end that with `rbd mirror image disable %s`", image, image)
	}
	return err
}

// Adoptable lists the journal.
func (b *Backend) Adoptable(ctx context.Context, site clustermap.Site) ([]volumeid.Handle, error) {
	j, err := journalOf(ctx, site)
	if err != nil {
		return nil, err
	}
	places, err := j.List(ctx, journal.Volumes)
	var handles []volumeid.Handle
	for _, p := range places {
		f := volumeid.Foreign{Cluster: site.Entry.CephCSIName(), Location: p.Pool, UUID: p.UUID}
		handles = append(handles, f.Handle(storage.RBD, site.Entry.ID))
	}
	return handles, err
}

// deleteForeign removes the image, with what ceph-csi made beside it, then the journal's entry, as ceph-csi does.
// An entry that is gone while the image is there was not taken out by this: then nobody knows whose the
// image is, and it stays.
func (b *Backend) deleteForeign(ctx context.Context, site clustermap.Site, r *record.Record) error {
	j, err := journalOf(ctx, site)
	known := false
	if err == nil {
		known, err = j.Confirm(ctx, kindOf(r.Kind), r.Foreign)
	}
	if err != nil {
		return fault.As(journal.ErrUntouched, err)
	}
	if known {
		if err := buryForeign(ctx, site, r); err != nil && !errors.Is(err, errNoPool) {
			return err
		}
	}
	return j.Remove(ctx, kindOf(r.Kind), r.Foreign)
}

// buryForeign makes the images tombstones, which the background work frees when nothing is cloned from them: only
// by that name does it know an image in the trash for one that it may remove.
func buryForeign(ctx context.Context, site clustermap.Site, r *record.Record) error {
	pool, err := poolOf(ctx, site, r)
	images, there := site.Cluster.Images(pool, r.Context["radosNamespace"]), false
	if err == nil {
		there, err = checkForeign(ctx, site, images, pool, r)
	}
	if err != nil {
		return fault.As(journal.ErrUntouched, err)
	}
	if there {
		err = buryImage(ctx, images, r)
	}
	if err == nil {
		err = begun(buryTemporary(ctx, images, r))
	}
	return err
}

// checkForeign reports whether the image is there, and that it may be removed.
func checkForeign(ctx context.Context, site clustermap.Site, images ceph.Images, pool string, r *record.Record) (bool, error) {
	name := r.BackendName()
	info, there, err := inspect(ctx, images, name)
	if there {
		err = fitting(ctx, site, r, pool, info)
	}
	if err != nil || !there {
		return false, err
	}
	err = images.Unwatched(ctx, name)
	if errors.Is(err, fault.Busy) {
		err = inUse(ctx, images, name)
	}
	return true, err
}

func inUse(ctx context.Context, images ceph.Images, name string) error {
	return fault.New(fault.Busy, "image %s is open: %s", name, users(ctx, images, name))
}

// begun takes the class Busy from an error: it would say that nothing was removed.
func begun(err error) error {
	if errors.Is(err, fault.Busy) {
		return fault.New(fault.Unavailable, "the deletion was begun, and goes on when it is asked for again: %v", err)
	}
	return err
}

// buryImage removes the snapshot in a snapshot's image, that which copies are made from, and the image.
func buryImage(ctx context.Context, images ceph.Images, r *record.Record) error {
	name, first := r.BackendName(), true
	if r.Kind == record.KindSnapshot {
		err := images.RemoveSnapshot(ctx, name, r.Origin.Snapshot)
		if first = errors.Is(err, fault.NotFound); err != nil && !first {
			return err
		}
	}
	err := bury(ctx, images, r)
	if errors.Is(err, fault.Exhausted) { // the pool is full
		err = images.Remove(ctx, name)
	}
	switch {
	case errors.Is(err, fault.NotFound):
		return nil
	case errors.Is(err, fault.Busy) && first:
		return fmt.Errorf("%w: %s", err, users(ctx, images, name))
	}
	return begun(err)
}

// buryTemporary takes care of the image between a volume and what it was cloned from (ceph-csi:
// generateTempClone). It belongs to the volume alone.
func buryTemporary(ctx context.Context, images ceph.Images, r *record.Record) error {
	name := r.Foreign.Image + "-temp"
	sum := sha256.Sum256([]byte(name))
	err := images.Rename(ctx, name, volumeid.TombstoneName(hex.EncodeToString(sum[:16])))
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
