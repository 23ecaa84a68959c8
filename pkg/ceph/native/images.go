package native

import (
	"context"
	"fmt"
	"math/bits"
	"sort"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// images implements ceph.Images on librbd.
type images struct {
	cluster         *cluster
	pool, namespace string
}

var _ ceph.Images = (*images)(nil)

func (i *images) path(name string) string {
	if i.namespace == "" {
		return i.pool + "/" + name
	}
	return i.pool + "/" + i.namespace + "/" + name
}

func (i *images) do(ctx context.Context, verb, name string, fn func(*rados.IOContext) error) error {
	return do(ctx, i.cluster, verb+" image "+i.path(name), func() error {
		return i.cluster.withPool(i.pool, i.namespace, fn)
	})
}

// open runs fn on the opened image. A read-only open sets no watch, so it does not
// show among the watchers and does not hold up a removal.
func (i *images) open(ctx context.Context, verb, name string, readOnly bool, fn func(*rbd.Image) error) error {
	return i.do(ctx, verb, name, func(ioctx *rados.IOContext) error {
		opener := rbd.OpenImage
		if readOnly {
			opener = rbd.OpenImageReadOnly
		}
		image, err := opener(ioctx, name, rbd.NoSnapshot)
		if err != nil {
			return err
		}
		return thenClose(image, fn(image))
	})
}

// openAt runs fn on a snapshot of the image, opened read-only.
func (i *images) openAt(ctx context.Context, verb, name, snapshot string, fn func(*rbd.Image) error) error {
	return i.do(ctx, verb, name, func(ioctx *rados.IOContext) error {
		image, err := rbd.OpenImageReadOnly(ioctx, name, snapshot)
		if err != nil {
			return err
		}
		return thenClose(image, fn(image))
	})
}

// thenClose closes the image and returns err, or else the error of closing.
func thenClose(image *rbd.Image, err error) error {
	if closeErr := image.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (i *images) Create(ctx context.Context, name string, spec ceph.ImageSpec) error {
	return i.do(ctx, "create", name, func(ioctx *rados.IOContext) error {
		options, err := imageOptions(spec)
		if err != nil {
			return err
		}
		defer options.Destroy()
		if err := rbd.CreateImage(ioctx, name, uint64(spec.Size), options); err != nil {
			return err
		}
		return setMetadata(ioctx, name, spec.Metadata)
	})
}

func imageOptions(spec ceph.ImageSpec) (*rbd.ImageOptions, error) {
	options := rbd.NewRbdImageOptions()
	set := func(option rbd.ImageOption, value uint64) error {
		if value == 0 {
			return nil
		}
		return options.SetUint64(option, value)
	}
	features := uint64(rbd.FeatureSetFromNames(spec.Features))
	order := uint64(0)
	if spec.ObjectSize > 0 {
		if spec.ObjectSize&(spec.ObjectSize-1) != 0 {
			options.Destroy()
			return nil, fault.New(fault.Invalid, "object size %d is not a power of two", spec.ObjectSize)
		}
		order = uint64(bits.TrailingZeros64(uint64(spec.ObjectSize)))
	}
	var err error
	for _, o := range []struct {
		option rbd.ImageOption
		value  uint64
	}{
		{rbd.ImageOptionFeatures, features},
		{rbd.ImageOptionOrder, order},
		{rbd.ImageOptionStripeUnit, uint64(spec.StripeUnit)},
		{rbd.ImageOptionStripeCount, spec.StripeCount},
	} {
		if err == nil {
			err = set(o.option, o.value)
		}
	}
	if err == nil && spec.DataPool != "" {
		err = options.SetString(rbd.ImageOptionDataPool, spec.DataPool)
	}
	if err != nil {
		options.Destroy()
		return nil, fmt.Errorf("set image options: %w", classify(err))
	}
	return options, nil
}

func (i *images) Info(ctx context.Context, name string) (ceph.ImageInfo, error) {
	var info ceph.ImageInfo
	err := i.open(ctx, "inspect", name, true, func(image *rbd.Image) error {
		id, err := image.GetId()
		if err != nil {
			return fmt.Errorf("get id: %w", err)
		}
		size, err := image.GetSize()
		if err != nil {
			return fmt.Errorf("get size: %w", err)
		}
		features, err := image.GetFeatures()
		if err != nil {
			return fmt.Errorf("get features: %w", err)
		}
		dataPool, err := image.GetDataPoolID()
		if err != nil {
			return fmt.Errorf("get data pool: %w", err)
		}
		parent, err := parentOf(image)
		if err != nil {
			return err
		}
		set := rbd.FeatureSet(features)
		info = ceph.ImageInfo{ID: id, Size: storage.Bytes(size), Features: set.Names(), DataPool: dataPool, Parent: parent}
		return nil
	})
	return info, err
}

func (i *images) Resize(ctx context.Context, name string, size storage.Bytes) error {
	return i.open(ctx, "resize", name, false, func(image *rbd.Image) error {
		return image.Resize(uint64(size))
	})
}

func (i *images) Grow(ctx context.Context, name string, size storage.Bytes) error {
	return i.open(ctx, "grow", name, false, func(image *rbd.Image) error {
		now, err := image.GetSize()
		if err != nil || now >= uint64(size) {
			return err
		}
		// Not Resize: when this call gets its turn late, the image may be larger than size.
		err = image.Resize2(uint64(size), false, func(uint64, uint64, any) int { return 0 }, nil)
		if errno(err) == syscall.EINVAL {
			if now, sizeErr := image.GetSize(); sizeErr == nil && now >= uint64(size) {
				return nil
			}
		}
		return err
	})
}

func (i *images) Write(ctx context.Context, name string, offset uint64, data []byte) error {
	return i.open(ctx, "write", name, false, func(image *rbd.Image) error {
		n, err := image.WriteAt(data, int64(offset))
		if err == nil && n < len(data) {
			err = fault.New(fault.Unavailable, "wrote %d of %d bytes", n, len(data))
		}
		return err
	})
}

// Remove also clears what a creation or a removal that was cut off left under the name:
// a directory entry, an id object or both without a header, which List shows (but for the id
// object alone) and nothing can open. For the id object alone the answer is NotFound, and it is gone.
func (i *images) Remove(ctx context.Context, name string) error {
	return i.do(ctx, "remove", name, func(ioctx *rados.IOContext) error { return remove(ioctx, name) })
}

func (i *images) Watchers(ctx context.Context, name string) ([]ceph.Watcher, error) {
	var list []ceph.Watcher
	err := i.open(ctx, "list watchers of", name, true, func(image *rbd.Image) (err error) {
		list, err = i.watchers(image)
		return err
	})
	return list, err
}

// watchers lists those of an open image other than this connection.
func (i *images) watchers(image *rbd.Image) ([]ceph.Watcher, error) {
	var list []ceph.Watcher
	own := int64(i.cluster.conn.GetInstanceID())
	found, err := image.ListWatchers()
	for _, w := range found {
		if w.Id != own {
			list = append(list, ceph.Watcher{Address: w.Addr, Client: w.Id})
		}
	}
	return list, err
}

func (i *images) List(ctx context.Context) ([]string, error) {
	var names []string
	err := i.do(ctx, "list", "", func(ioctx *rados.IOContext) (err error) {
		names, err = rbd.GetImageNames(ioctx)
		return err
	})
	sort.Strings(names)
	return names, err
}
