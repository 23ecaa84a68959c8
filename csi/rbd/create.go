package rbd

import (
	"context"
	"errors"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Create makes the image; one that is there already is the record's own (its name is
// random), made by a call that was cut off.
func (b *Backend) Create(ctx context.Context, site clustermap.Site, r *record.Record) error {
	spec, err := specOf(r.Settings())
	if err != nil {
		return err
	}
	spec.Size = imageSize(r, r.Size)
	images, err := images(ctx, site, r)
	if err != nil {
		return fault.New(fault.Precondition, "%v", err)
	}
	if r.Origin != nil {
		return b.clone(ctx, site, images, r, spec)
	}
	err = b.whole(ctx, site, images, r, func() error { return images.Create(ctx, r.BackendName(), spec) })
	if err != nil || r.Encryption == nil {
		return err
	}
	return b.seal(ctx, site, images, r)
}

// whole runs create until there is an image, and not only the name that librbd leaves when
// it is cut off in mid-create.
func (b *Backend) whole(ctx context.Context, site clustermap.Site, images ceph.Images, r *record.Record, create func() error) error {
	err := create()
	if !errors.Is(err, fault.Exists) {
		return err
	}
	_, err = images.Info(ctx, r.BackendName())
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	if err := b.remove(ctx, site, r); err != nil {
		return err
	}
	return create()
}
