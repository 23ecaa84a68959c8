package ceph

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// ImageLease is the name of the lease on an image (its ImageObject) under which its file
// system is made and its size is set.
const ImageLease = "holdfast.mkfs"

const (
	imageLeaseTTL   = 30 * time.Second
	imageLeasePause = 500 * time.Millisecond // between two tries at a lease that another has
)

// ImageDirectory is the object that a pool and namespace have from their first image on (rbd(8), "rbd_directory").
const ImageDirectory = "rbd_directory"

// ImageObject is the object that an image has by its name (rbd(8), "rbd_id").
func ImageObject(image string) string { return "rbd_id." + image }

// HoldImage runs work under the lease on an image; objects are those of the image's pool
// and namespace. It waits for the lease until ctx ends. work's context
// ends when the lease is lost. holder is for people.
func HoldImage(ctx context.Context, objects Objects, image, holder string, work func(context.Context) error) error {
	object := ImageObject(image)
	lease := Lease{Name: ImageLease, Cookie: rand.Text(), Description: holder, TTL: imageLeaseTTL}
	for {
		err := objects.Lock(ctx, object, lease)
		if err == nil {
			break
		}
		if !errors.Is(err, fault.Busy) {
			return fmt.Errorf("lock image %s: %w", image, err)
		}
		select {
		case <-time.After(imageLeasePause):
		case <-ctx.Done():
			return fmt.Errorf("lock image %s, which another works on: %w", image, ctx.Err())
		}
	}
	kept, keeper := Keep(ctx, objects, object, lease)
	defer keeper.Release(ctx, false)
	err := work(kept)
	if lost := keeper.Lost(); err != nil && lost != nil {
		return errors.Join(lost, err)
	}
	return err
}
