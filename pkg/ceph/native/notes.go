package native

import (
	"context"
	"errors"
	"syscall"

	"github.com/ceph/go-ceph/rados"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// notes implements ceph.Notes by the OSD's own comparison of extents (rados_write_op_cmpext).
type notes struct{ objects }

var _ ceph.Notes = (*notes)(nil)

func (c *cluster) Notes(pool, namespace string) ceph.Notes {
	return &notes{objects{cluster: c, pool: pool, namespace: namespace}}
}

// maxErrno: an extent that differs is told as -(this + the offset of the first difference).
const maxErrno = 4095

func (n *notes) Swap(ctx context.Context, name string, old, data []byte) error {
	err := n.operate(ctx, "replace", name, func(op *rados.WriteOp) {
		if len(old) == 0 {
			op.Create(rados.CreateExclusive)
		} else {
			op.AssertExists()
			op.CmpExt(old, 0)
		}
		if len(data) == 0 {
			op.Remove()
		} else {
			op.WriteFull(data)
		}
	})
	code := errno(err)
	if errors.Is(err, fault.NotFound) || code == syscall.EEXIST || code >= maxErrno {
		return fault.New(fault.Aborted, "object %s was changed by another: %v", n.path(name), err)
	}
	return err
}
