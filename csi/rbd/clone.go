package rbd

import (
	"context"
	"errors"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Limits of a chain of clones. A read may have to ask every image of it. From softDepth on a
// clone is flattened in the background; at hardDepth a new one waits for that.
const (
	softDepth = 4
	hardDepth = 8
)

// source is the image that a record's data comes from. Its volume may have been deleted and
// its image be a tombstone, kept for its snapshots.
type source struct {
	images          ceph.Images
	pool, namespace string
	name            string // of the image while its volume lives
	incarnation     string
}

func sourceOf(ctx context.Context, site clustermap.Site, r *record.Record) (source, error) {
	h, name, err := r.Origin.Place(storage.RBD)
	if err != nil {
		return source{}, err
	}
	at := record.Record{PoolID: h.Pool}
	pool, err := poolOf(ctx, site, &at)
	if err != nil {
		return source{}, err
	}
	namespace := r.Context["radosNamespace"]
	return source{site.Cluster.Images(pool, namespace), pool, namespace, name, h.Incarnation}, nil
}

// either runs fn with the name that the image has while its volume lives and, when there is
// nothing, with the name that a deletion gave it.
func (s source) either(fn func(image string) error) error {
	err := fn(s.name)
	if errors.Is(err, fault.NotFound) {
		err = fn(volumeid.TombstoneName(s.incarnation))
	}
	return err
}

// clone makes the image from a snapshot, or from a volume by a snapshot taken for it, which
// disappears again and is freed with the last image that needs it.
func (b *Backend) clone(ctx context.Context, site clustermap.Site, images ceph.Images, r *record.Record, spec ceph.ImageSpec) error {
	from, err := sourceOf(ctx, site, r)
	if err != nil {
		return err
	}
	if r.Depth > hardDepth {
		if err := b.tooDeep(ctx, from, r); err != nil {
			return err
		}
	}
	if r.Origin.Kind == record.KindVolume {
		err := from.images.CreateSnapshot(ctx, from.name, r.BackendName())
		// A source that was deleted since may still have the snapshot of an earlier call.
		if err != nil && !errors.Is(err, fault.Exists) && !errors.Is(err, fault.NotFound) {
			return err
		}
	}
	err = from.either(func(image string) error {
		ref := ceph.ImageSnapshotRef{Pool: from.pool, Namespace: from.namespace, Image: image, Snapshot: r.SourceSnapshot()}
		return images.Clone(ctx, r.BackendName(), ref, spec)
	})
	if errors.Is(err, fault.Exists) {
		// librbd makes the image before it is a clone: one that was cut off may look whole and
		// hold zeros, or stand on a snapshot that does not know of it and can go.
		return record.ErrUnsure
	}
	if err != nil {
		return err
	}
	if err := dropOwnSnapshot(ctx, site, r); err != nil {
		return err
	}
	if r.Encryption != nil {
		// The copy may have been begun under a key that was wrapped otherwise.
		if err := noteKey(ctx, images, r); err != nil {
			return err
		}
	}
	return fit(ctx, images, r)
}

// fit makes a new clone as large as the volume is to be. What was cloned may be larger than the
// source was when its record was read: then the volume is, too.
func fit(ctx context.Context, images ceph.Images, r *record.Record) error {
	size, err := images.Size(ctx, r.BackendName())
	if err != nil {
		return err
	}
	want := imageSize(r, r.Size)
	if size >= want {
		r.Size += size - want
		return nil
	}
	if err := images.Grow(ctx, r.BackendName(), want); err != nil || r.Encryption == nil {
		return err
	}
	return fillSeam(ctx, images, r, size)
}

// dropOwnSnapshot removes the snapshot that was taken of a volume for its clone r alone.
func dropOwnSnapshot(ctx context.Context, site clustermap.Site, r *record.Record) error {
	if r.Origin == nil || r.Origin.Kind != record.KindVolume {
		return nil
	}
	from, err := sourceOf(ctx, site, r)
	if err == nil {
		err = from.either(func(image string) error { return from.images.RemoveSnapshot(ctx, image, r.BackendName()) })
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// tooDeep counts the parents for true: the record has only a bound.
func (b *Backend) tooDeep(ctx context.Context, from source, r *record.Record) error {
	depth := 1
	var at ceph.ImageInfo
	err := from.either(func(image string) (err error) {
		at, err = from.images.Info(ctx, image)
		return err
	})
	for ; err == nil && at.Parent.Image != "" && depth <= hardDepth; depth++ {
		if at.Parent.Pool != from.pool || at.Parent.Namespace != from.namespace {
			break // a chain across pools is followed no further: the bound will do
		}
		at, err = from.images.Info(ctx, at.Parent.Image)
	}
	if err != nil {
		return err
	}
	if depth > hardDepth && r.Encryption != nil {
		return fault.New(fault.Exhausted, "the source stands on %d images already, and encrypted ones are not flattened by themselves: unmount it everywhere and run `rbd flatten` on its image, or copy its files to a new volume", depth-1)
	}
	if depth > hardDepth {
		return fault.New(fault.Unavailable, "the source stands on %d images already; it is being given a copy of its own (if it has the feature deep-flatten), then this goes on", depth-1)
	}
	r.Depth = depth
	return nil
}

// Flatten copies to the image what it shares with its parents.
func (b *Backend) Flatten(ctx context.Context, site clustermap.Site, r *record.Record, progress func(done, total uint64)) error {
	images, err := images(ctx, site, r)
	if err != nil {
		return err
	}
	return images.Flatten(ctx, r.BackendName(), progress)
}
