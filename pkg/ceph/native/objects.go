package native

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// objects implements ceph.Objects. Locks are those of the OSD class "lock"
// (src/cls/lock in Ceph), called inside the same operation as the write they guard.
type objects struct {
	cluster         *cluster
	pool, namespace string
}

var _ ceph.Objects = (*objects)(nil)

// withPool opens the pool for the time of fn. Writes to a full pool fail at once
// with ENOSPC or EDQUOT (full-try) rather than wait for space; deletes pass.
func (c *cluster) withPool(pool, namespace string, fn func(*rados.IOContext) error) error {
	ioctx, err := c.openPool(pool, namespace)
	if err != nil {
		return err
	}
	defer ioctx.Destroy()
	return fn(ioctx)
}

// openPool is withPool without an end.
func (c *cluster) openPool(pool, namespace string) (*rados.IOContext, error) {
	ioctx, err := c.conn.OpenIOContext(pool)
	if errno(err) == syscall.ENOENT {
		return nil, fault.New(fault.Precondition, "pool %q does not exist on this cluster", pool)
	}
	if err != nil {
		return nil, fmt.Errorf("open pool %s: %w", pool, err)
	}
	ioctx.SetNamespace(namespace)
	if err := ioctx.SetPoolFullTry(); err != nil {
		ioctx.Destroy()
		return nil, fmt.Errorf("open pool %s: %w", pool, err)
	}
	return ioctx, nil
}

func (o *objects) path(name string) string {
	if o.namespace == "" {
		return o.pool + "/" + name
	}
	return o.pool + "/" + o.namespace + "/" + name
}

// errEmpty: go-ceph cannot write an object without bytes.
func errEmpty(name string) error {
	return fault.New(fault.Invalid, "object %s: no data to write", name)
}

func (o *objects) operate(ctx context.Context, verb, name string, build func(*rados.WriteOp)) error {
	return do(ctx, o.cluster, verb+" object "+o.path(name), func() error {
		return o.cluster.withPool(o.pool, o.namespace, func(ioctx *rados.IOContext) error {
			op := rados.CreateWriteOp()
			defer op.Release()
			build(op)
			return op.Operate(ioctx, name, rados.OperationNoFlag)
		})
	})
}

func (o *objects) CreateLocked(ctx context.Context, name string, data []byte, lease ceph.Lease) error {
	if len(data) == 0 {
		return errEmpty(name)
	}
	return o.operate(ctx, "create", name, func(op *rados.WriteOp) {
		op.Create(rados.CreateExclusive)
		op.WriteFull(data)
		op.Exec("lock", "lock", encodeLock(lease, 0))
	})
}

func (o *objects) Lock(ctx context.Context, name string, lease ceph.Lease) error {
	return o.operate(ctx, "lock", name, func(op *rados.WriteOp) {
		op.AssertExists()
		op.Exec("lock", "lock", encodeLock(lease, 0))
	})
}

// LockAfter reads the lock as it is stored (its xattr), where the holder whose time ran out stands until the
// next one takes its place, and takes it only if the object has not changed since.
func (o *objects) LockAfter(ctx context.Context, name string, lease ceph.Lease, fenced ceph.ClientAddress) (ceph.ClientAddress, error) {
	holder, version, err := o.stored(ctx, name, lease.Name)
	if err != nil {
		return "", err
	}
	if holder != "" && holder != fenced {
		state, err := o.LeaseOn(ctx, name, lease.Name)
		switch {
		case err != nil:
			return "", err
		case state.Held:
			return "", fault.New(fault.Busy, "object %s is locked by %s", o.path(name), state.Holder)
		}
		return holder, nil
	}
	err = o.operate(ctx, "lock", name, func(op *rados.WriteOp) {
		op.AssertExists()
		if version != 0 {
			op.AssertVersion(version)
		}
		op.Exec("lock", "lock", encodeLock(lease, 0))
	})
	if code := errno(err); code == syscall.ERANGE || code == syscall.EOVERFLOW {
		return "", fault.New(fault.Busy, "object %s changed while it was looked at: %v", o.path(name), err)
	}
	return "", err
}

// stored returns the client that the lock's xattr names as the holder, whether its time has run out or not, and
// the object's version; "" and 0 for a lock that was never taken.
func (o *objects) stored(ctx context.Context, name, lease string) (holder ceph.ClientAddress, version uint64, err error) {
	err = do(ctx, o.cluster, "look at the lock on object "+o.path(name), func() error {
		return o.cluster.withPool(o.pool, o.namespace, func(ioctx *rados.IOContext) error {
			data := make([]byte, lockLimit)
			n, err := ioctx.GetXattr(name, "lock."+lease, data)
			if errno(err) == syscall.ENODATA {
				return nil
			}
			if err != nil {
				return err
			}
			if version, err = ioctx.GetLastVersion(); err != nil {
				return err
			}
			holder, err = decodeHolder(data[:n])
			return err
		})
	})
	return holder, version, err
}

func (o *objects) Renew(ctx context.Context, name string, lease ceph.Lease) error {
	err := o.operate(ctx, "renew the lease on", name, func(op *rados.WriteOp) {
		op.AssertExists()
		op.Exec("lock", "lock", encodeLock(lease, flagMustRenew))
	})
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Busy) {
		return fault.New(fault.Aborted, "the lease was lost: %v", err)
	}
	return err
}

func (o *objects) Unlock(ctx context.Context, name string, lease ceph.Lease) error {
	return o.operate(ctx, "unlock", name, func(op *rados.WriteOp) {
		op.AssertExists()
		op.Exec("lock", "unlock", encodeUnlock(lease))
	})
}

// lost turns the class's EBUSY (not held by this client with this cookie) into Aborted.
func lost(err error) error {
	if errors.Is(err, fault.Busy) {
		return fault.New(fault.Aborted, "the lease was lost: %v", err)
	}
	return err
}

func (o *objects) WriteLocked(ctx context.Context, name string, data []byte, lease ceph.Lease) error {
	if len(data) == 0 {
		return errEmpty(name)
	}
	return lost(o.operate(ctx, "write", name, func(op *rados.WriteOp) {
		op.AssertExists()
		op.Exec("lock", "assert_locked", encodeAssert(lease))
		op.WriteFull(data)
	}))
}

func (o *objects) WriteUnlock(ctx context.Context, name string, data []byte, lease ceph.Lease) error {
	if len(data) == 0 {
		return errEmpty(name)
	}
	return lost(o.operate(ctx, "write", name, func(op *rados.WriteOp) {
		op.AssertExists()
		op.Exec("lock", "assert_locked", encodeAssert(lease))
		op.WriteFull(data)
		op.Exec("lock", "unlock", encodeUnlock(lease))
	}))
}

func (o *objects) RemoveLocked(ctx context.Context, name string, lease ceph.Lease) error {
	return lost(o.operate(ctx, "remove", name, func(op *rados.WriteOp) {
		op.AssertExists()
		op.Exec("lock", "assert_locked", encodeAssert(lease))
		op.Remove()
	}))
}

// lockLimit is what a stored lock with its one holder may weigh, in bytes.
const lockLimit = 16 << 10

// readLimit is what a record may weigh, in bytes; larger objects are not records.
const readLimit = 1 << 20

func (o *objects) Read(ctx context.Context, name string) ([]byte, error) {
	return call(ctx, o.cluster, "read object "+o.path(name), func() (data []byte, err error) {
		err = o.cluster.withPool(o.pool, o.namespace, func(ioctx *rados.IOContext) error {
			for size := 16 << 10; ; size *= 8 {
				data = make([]byte, size)
				n, err := ioctx.Read(name, data, 0)
				if err != nil {
					return err
				}
				if n < size {
					data = data[:n]
					return nil
				}
				if size > readLimit {
					return fault.New(fault.Range, "larger than %d bytes", readLimit)
				}
			}
		})
		return data, err
	})
}

func (o *objects) List(ctx context.Context) ([]string, error) {
	return call(ctx, o.cluster, "list objects of "+o.path(""), func() (names []string, err error) {
		err = o.cluster.withPool(o.pool, o.namespace, func(ioctx *rados.IOContext) error {
			iter, err := ioctx.Iter()
			if err != nil {
				return err
			}
			defer iter.Close()
			for iter.Next() {
				names = append(names, iter.Value())
			}
			return iter.Err()
		})
		sort.Strings(names)
		return names, err
	})
}

func seconds(d time.Duration) (sec, nsec uint32) {
	return uint32(d / time.Second), uint32(d % time.Second)
}
