package record

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// workIn is the RADOS namespace of the objects of Alone; each is there while its work is.
const workIn = "work"

const (
	// alonePatience is above what a dead controller's lease keeps others waiting.
	alonePatience = leaseTTL + 5*time.Second
	alonePause    = 500 * time.Millisecond
)

// Alone runs work while no other controller runs work of this name on the cluster. It is not
// run, and ran is false, where another's goes on for longer than a lease. work's context ends
// when the lease is lost. One whose lease ran out is evicted (see Evict) before another begins.
func Alone(ctx context.Context, c ceph.Cluster, name, owner string, work func(context.Context) error) (ran bool, err error) {
	objects := c.Objects(Pool, workIn)
	lease := ceph.Lease{Name: leaseName, Cookie: rand.Text(), Description: owner, TTL: leaseTTL}
	waiting, cancel := context.WithTimeout(ctx, alonePatience)
	defer cancel()
	err = poll.Until(waiting, alonePause, func() (bool, error) {
		err := objects.CreateLocked(waiting, name, []byte("{}\n"), lease)
		if errors.Is(err, fault.Exists) {
			err = takeOver(waiting, objects, name, lease, func(ctx context.Context, client ceph.ClientAddress) error { return Evict(ctx, c, client) })
		}
		if errors.Is(err, fault.Busy) || errors.Is(err, fault.NotFound) {
			return false, nil
		}
		return err == nil, err
	})
	switch {
	case errors.Is(err, fault.Exhausted):
		return true, work(ctx) // a full cluster takes no new object, and must be emptied nevertheless
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("lock %s: %w", name, err)
	}
	kept, keeper := ceph.Keep(ctx, objects, name, lease)
	err = work(kept)
	if lost := keeper.Lost(); err != nil && lost != nil {
		err = errors.Join(lost, err)
	}
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer done()
	removed := objects.RemoveLocked(ending, name, lease) == nil
	keeper.Release(ctx, removed)
	return true, err
}

// releaseLimit bounds the end of a lease: what is not let go of runs out by itself.
const releaseLimit = 5 * time.Second
