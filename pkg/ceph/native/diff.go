package native

import (
	"context"

	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

// Diff runs librbd's iteration on its own goroutine and fn on the caller's, so that fn is
// never called after Diff has returned.
func (i *images) Diff(ctx context.Context, name, since, snapshot string, from, to uint64, fn func(ceph.Extent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan []ceph.Extent)
	ended := make(chan error, 1)
	go func() {
		ended <- i.openAt(ctx, "compare snapshots of", name, snapshot, func(image *rbd.Image) error {
			return compare(ctx, image, since, from, to, batches)
		})
	}()
	for {
		select {
		case batch := <-batches:
			for _, extent := range batch {
				if err := fn(extent); err != nil {
					cancel()
					<-ended
					return err
				}
			}
		case err := <-ended:
			return err
		}
	}
}

// batchSize is how many extents go to the caller at once.
const batchSize = 256

// compare sends what differs between since and the snapshot that image is opened at. It
// first asks which objects changed, which the object map answers without reading them where
// the image has one (feature fast-diff, which works for whole objects alone), and then,
// within those, which parts.
func compare(ctx context.Context, image *rbd.Image, since string, from, to uint64, batches chan<- []ceph.Extent) error {
	size, err := image.GetSize()
	if err != nil {
		return err
	}
	if to == 0 || to > size {
		to = size
	}
	if from >= to {
		return nil
	}
	changed := &extents{}
	if err := changed.iterate(ctx, image, since, from, to, rbd.EnableWholeObject); err != nil {
		return err
	}
	exact := &extents{send: func(batch []ceph.Extent) bool {
		select {
		case batches <- batch:
			return true
		case <-ctx.Done():
			return false
		}
	}}
	for _, e := range changed.joined() {
		if err := exact.iterate(ctx, image, since, e.Offset, e.Offset+e.Length, rbd.DisableWholeObject); err != nil {
			return err
		}
	}
	exact.flush()
	return ctx.Err()
}

// extents collects extents in order and joins neighbours. With send it passes them on.
type extents struct {
	list []ceph.Extent
	send func([]ceph.Extent) bool
}

func (x *extents) iterate(ctx context.Context, image *rbd.Image, since string, from, to uint64, whole rbd.DiffWholeObject) error {
	err := image.DiffIterate(rbd.DiffIterateConfig{
		SnapName: since, Offset: from, Length: to - from, IncludeParent: rbd.IncludeParent, WholeObject: whole,
		Callback: func(offset, length uint64, exists int, _ any) int {
			if !x.add(ceph.Extent{Offset: offset, Length: length, Zero: exists == 0}) {
				return aborted
			}
			return interruptible(ctx)
		},
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (x *extents) add(e ceph.Extent) bool {
	if last := len(x.list) - 1; last >= 0 {
		if l := &x.list[last]; l.Zero == e.Zero && l.Offset+l.Length == e.Offset {
			l.Length += e.Length
			return true
		}
	}
	ok := true
	if x.send != nil && len(x.list) >= batchSize {
		ok = x.flush()
	}
	x.list = append(x.list, e)
	return ok
}

func (x *extents) flush() bool {
	batch := x.list
	x.list = nil
	return len(batch) == 0 || x.send == nil || x.send(batch)
}

// joined returns the ranges that changed in whatever way, neighbours in one.
func (x *extents) joined() []ceph.Extent {
	var list []ceph.Extent
	for _, e := range x.list {
		if last := len(list) - 1; last >= 0 && list[last].Offset+list[last].Length == e.Offset {
			list[last].Length += e.Length
			continue
		}
		list = append(list, e)
	}
	return list
}
