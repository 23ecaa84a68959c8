package native

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

type outcome[T any] struct {
	value T
	err   error
}

// call runs fn, a blocking call into Ceph, and returns its result or ctx.Err(),
// whichever comes first. fn goes on alone after that; the Dialer waits for it.
// what names the operation and its object, for the error.
func call[T any](ctx context.Context, c *cluster, what string, fn func() (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, fmt.Errorf("%s: %w", what, err)
	}
	if !c.enter() {
		return zero, fault.New(fault.Unavailable, "%s: this connection was cut off by the cluster; a new one is made for the next call", what)
	}
	done := make(chan outcome[T], 1)
	c.dialer.calls.Add(1)
	go func() {
		defer c.dialer.calls.Done()
		value, err := fn()
		done <- outcome[T]{value, err}
		c.leave()
	}()
	select {
	case o := <-done:
		if o.err == nil {
			return o.value, nil
		}
		err := classify(o.err)
		if errno(err) == syscall.ESHUTDOWN {
			c.forget()
		}
		return zero, fmt.Errorf("%s: %w", what, err)
	case <-ctx.Done():
		return zero, fmt.Errorf("%s: %w", what, ctx.Err())
	}
}

func do(ctx context.Context, c *cluster, what string, fn func() error) error {
	_, err := call(ctx, c, what, func() (struct{}, error) { return struct{}{}, fn() })
	return err
}

// errno returns the error number in err's chain, 0 without one. go-ceph's errors
// carry it (negative) behind ErrorCode.
func errno(err error) syscall.Errno {
	var coded interface{ ErrorCode() int }
	if !errors.As(err, &coded) {
		return 0
	}
	code := coded.ErrorCode()
	if code < 0 {
		code = -code
	}
	return syscall.Errno(code)
}

var classes = map[syscall.Errno]error{
	syscall.ENOENT:       fault.NotFound,
	syscall.EEXIST:       fault.Exists,
	syscall.EBUSY:        fault.Busy,
	syscall.EUCLEAN:      fault.Busy, // an image that is on its way into the trash
	syscall.ENOTEMPTY:    fault.Busy, // it has snapshots
	syscall.EINVAL:       fault.Invalid,
	syscall.EDOM:         fault.Invalid,
	syscall.ENAMETOOLONG: fault.Invalid,
	syscall.EROFS:        fault.Busy, // the owner of the image's lock does not give it up
	syscall.EINPROGRESS:  fault.Busy,
	syscall.ERANGE:       fault.Range,
	syscall.EFBIG:        fault.Range,
	syscall.EPERM:        fault.Denied,
	syscall.EACCES:       fault.Denied,
	syscall.ENOSPC:       fault.Exhausted,
	syscall.EDQUOT:       fault.Exhausted,
	syscall.ETIMEDOUT:    fault.Unavailable,
	syscall.ENOTCONN:     fault.Unavailable,
	syscall.ESHUTDOWN:    fault.Unavailable, // this client is blocklisted; a new connection is not
	syscall.EHOSTUNREACH: fault.Unavailable,
	syscall.ECONNREFUSED: fault.Unavailable,
	syscall.ECONNRESET:   fault.Unavailable,
	syscall.ECONNABORTED: fault.Unavailable,
	syscall.EINTR:        fault.Unavailable,
	syscall.ESTALE:       fault.Unavailable, // the manager lost its session with the MDS
	syscall.ENXIO:        fault.Unavailable,
	syscall.EAGAIN:       fault.Unavailable,
	syscall.ECANCELED:    fault.Aborted,
	syscall.ENODATA:      fault.NotFound,
	syscall.EOPNOTSUPP:   fault.Unsupported,
	syscall.ENOSYS:       fault.Unsupported,
}

// classify gives err its class by its error number.
func classify(err error) error {
	if class, ok := classes[errno(err)]; ok {
		return fault.As(class, err)
	}
	return err
}
