package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// evicted is how long a controller that lost its lease stays on the blocklist: longer than a process stands
// still and goes on. A list that grows by one entry with each crash must shrink again.
const evicted = 24 * time.Hour

// Evict sees to it that nothing of a controller whose lease ran out reaches an image any more: neither what
// it is at nor what it sent. It may be dead; it may also stand still, and go on in the middle of a
// call of librbd, whose operations are checked against no lease (an object map, for one, is made by whoever
// writes it first, after the removal of its image, too). It comes back with a new client.
// A user without the right to fence gets no error: what may be done late is then as harmless as the order of
// work makes it.
func Evict(ctx context.Context, c ceph.Cluster, client ceph.ClientAddress) error {
	self, err := c.Self(ctx)
	if err != nil || self == client { // its own lease, which it could not renew in time
		return err
	}
	err = c.Fence(ctx, client, evicted)
	if errors.Is(err, fault.Denied) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fence the controller that lost its lease: %w", err)
	}
	pools, err := c.Pools(ctx)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if !slices.Contains(p.Applications, "rbd") {
			continue
		}
		if err := c.Barrier(ctx, p.Name); err != nil && !errors.Is(err, fault.Denied) {
			return err
		}
	}
	return nil
}

// evictor is what sees to a client whose lease ran out before another takes over.
type evictor func(context.Context, ceph.ClientAddress) error

// takeOver takes the lease on an object, from a holder whose own ran out only when that one is evicted.
// fault.Busy while another holds it.
func takeOver(ctx context.Context, objects ceph.Objects, key string, lease ceph.Lease, evict evictor) error {
	if evict == nil {
		return objects.Lock(ctx, key, lease)
	}
	lapsed, err := objects.LockAfter(ctx, key, lease, "")
	for err == nil && lapsed != "" {
		if err := evict(ctx, lapsed); err != nil {
			return err
		}
		lapsed, err = objects.LockAfter(ctx, key, lease, lapsed)
	}
	return err
}
