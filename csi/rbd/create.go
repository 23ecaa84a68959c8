package rbd

import (
	"context"
	"errors"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
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
		// Without an image behind the name librbd was cut off in mid-create. A header that is written
		// by two controllers could replace one under which there is data.
		if errors.Is(err, fault.NotFound) || err == nil && r.Encryption != nil {
			err = record.ErrUnsure
		}
	}
	if err != nil || r.Encryption == nil {
		return err
	}
	return b.seal(ctx, site, images, r)
}
