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
	err = images.Create(ctx, r.BackendName(), spec)
	if errors.Is(err, fault.Exists) {
		_, err = images.Info(ctx, r.BackendName())
		if errors.Is(err, fault.NotFound) { // librbd was cut off in mid-create: a name without an image
			err = again(ctx, images, r, func() error { return images.Create(ctx, r.BackendName(), spec) })
		}
	}
	if err != nil || r.Encryption == nil {
		return err
	}
	return b.seal(ctx, site, images, r)
}

// again clears what a call that was cut off left of an image that nobody was ever given, and
// makes it anew.
func again(ctx context.Context, images ceph.Images, r *record.Record, create func() error) error {
	if err := images.Remove(ctx, r.BackendName()); err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	return create()
}
