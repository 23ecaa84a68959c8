package native

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// openImage implements ceph.OpenImage. It counts as a call under way, so that the connection does not end before it.
type openImage struct {
	cluster  *cluster
	path     string
	snapshot string
	ioctx    *rados.IOContext
	image    *rbd.Image
	size     uint64

	calls sync.WaitGroup // reads and writes under way, also those that nobody waits for any more
}

var _ ceph.OpenImage = (*openImage)(nil)

func (i *images) Open(ctx context.Context, name, snapshot string) (ceph.OpenImage, error) {
	var decided atomic.Bool // whether it was opened before the caller gave up, or after
	opened := make(chan *openImage, 1)
	o, err := call(ctx, i.cluster, "open image "+i.path(name), func() (*openImage, error) {
		o, err := i.openNow(name, snapshot)
		if err != nil {
			return nil, err
		}
		opened <- o
		if !decided.CompareAndSwap(false, true) {
			return nil, o.Close()
		}
		return o, nil
	})
	if err == nil {
		return o, nil
	}
	if !decided.CompareAndSwap(false, true) {
		_ = (<-opened).Close()
	}
	return nil, err
}

func (i *images) openNow(name, snapshot string) (*openImage, error) {
	o := &openImage{cluster: i.cluster, path: i.path(name), snapshot: snapshot}
	var err error
	if o.ioctx, err = i.cluster.openPool(i.pool, i.namespace); err != nil {
		return nil, err
	}
	if snapshot == "" {
		o.image, err = rbd.OpenImage(o.ioctx, name, rbd.NoSnapshot)
	} else {
		o.image, err = rbd.OpenImageReadOnly(o.ioctx, name, snapshot)
	}
	if err != nil {
		o.ioctx.Destroy()
		return nil, err
	}
	if o.size, err = o.image.GetSize(); err != nil {
		_ = o.image.Close()
		o.ioctx.Destroy()
		return nil, err
	}
	if !i.cluster.enter() {
		_ = o.image.Close()
		o.ioctx.Destroy()
		return nil, fault.New(fault.Unavailable, "this connection was cut off by the cluster; a new one is made for the next call")
	}
	i.cluster.dialer.calls.Add(1) // within call, whose own count is not back yet
	return o, nil
}

func (o *openImage) Size() storage.Bytes { return storage.Bytes(o.size) }

func (o *openImage) ReadAt(ctx context.Context, p []byte, offset uint64) error {
	return o.transfer(ctx, "read", p, offset, func() (int, error) { return o.image.ReadAt(p, int64(offset)) })
}

func (o *openImage) WriteAt(ctx context.Context, p []byte, offset uint64) error {
	if o.snapshot != "" {
		return fault.New(fault.Unsupported, "write image %s@%s: a snapshot is only read", o.path, o.snapshot)
	}
	return o.transfer(ctx, "write", p, offset, func() (int, error) { return o.image.WriteAt(p, int64(offset)) })
}

func (o *openImage) transfer(ctx context.Context, verb string, p []byte, offset uint64, fn func() (int, error)) error {
	if offset > o.size || uint64(len(p)) > o.size-offset {
		return fault.New(fault.Range, "%s image %s: %d bytes at offset %d are not within its %d", verb, o.path, len(p), offset, o.size)
	}
	what := verb + " image " + o.path
	done := make(chan error, 1)
	o.calls.Go(func() {
		n, err := fn()
		if err == nil && n < len(p) {
			err = fault.New(fault.Unavailable, "%d of %d bytes at offset %d", n, len(p), offset)
		}
		done <- err
	})
	select {
	case err := <-done:
		return o.explain(what, err)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
}

// explain classifies an error, and gives a connection up that the cluster cut off.
func (o *openImage) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	err = classify(err)
	if errno(err) == syscall.ESHUTDOWN {
		o.cluster.forget()
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Close waits for the calls under way, which end by Ceph's timeouts.
func (o *openImage) Close() error {
	o.calls.Wait()
	err := o.image.Close()
	o.ioctx.Destroy()
	o.cluster.leave()
	o.cluster.dialer.calls.Done()
	return classify(err)
}
