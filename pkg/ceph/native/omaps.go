package native

import (
	"context"
	"errors"

	"github.com/ceph/go-ceph/rados"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// omaps implements ceph.Omaps.
type omaps struct{ objects }

var _ ceph.Omaps = (*omaps)(nil)

func (c *cluster) Omaps(pool, namespace string) ceph.Omaps {
	return &omaps{objects{cluster: c, pool: pool, namespace: namespace}}
}

// omapPage is how many pairs one call to an OSD returns (osd_max_omap_entries_per_request: 1024).
const omapPage = 512

func (o *omaps) Pairs(ctx context.Context, name, prefix string) (map[string]string, error) {
	return call(ctx, o.cluster, "read the map of object "+o.path(name), func() (map[string]string, error) {
		pairs := map[string]string{}
		err := o.cluster.withPool(o.pool, o.namespace, func(ioctx *rados.IOContext) error {
			if _, err := ioctx.Stat(name); err != nil {
				return err // an object that is not there has an empty map, as the OSD sees it
			}
			after := ""
			for {
				n := 0
				err := ioctx.ListOmapValues(name, after, prefix, omapPage, func(key string, value []byte) {
					pairs[key], after = string(value), key
					n++
				})
				if err != nil || n == 0 {
					return err
				}
			}
		})
		return pairs, err
	})
}

func (o *omaps) RemoveKey(ctx context.Context, name, key string) error {
	err := o.operate(ctx, "remove a key of", name, func(op *rados.WriteOp) {
		op.AssertExists()
		op.RmOmapKeys([]string{key})
	})
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func (o *omaps) Remove(ctx context.Context, name string) error {
	return o.operate(ctx, "remove", name, func(op *rados.WriteOp) {
		op.AssertExists()
		op.Remove()
	})
}
