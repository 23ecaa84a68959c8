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

const (
	// alonePatience is above what a dead controller's lease keeps others waiting.
	alonePatience = leaseTTL + 5*time.Second
	alonePause    = 500 * time.Millisecond
)

// Work says what one controller at a time does: who does it holds the lease called Name on Object, which is among Objects
// and is there before there is any work. (An object that is made for the purpose cannot be made on a full cluster,
// which must be emptied nevertheless.)
type Work struct {
	Objects      ceph.Objects
	Object, Name string
	Owner        string // for people
}

// Alone runs work while no other controller does. It is not run, and ran is false, where another's goes on for longer
// than a lease; fault.NotFound without the object. work's context ends when the lease is lost. One whose lease ran out
// is evicted (see Evict) before another begins.
func Alone(ctx context.Context, c ceph.Cluster, w Work, work func(context.Context) error) (ran bool, err error) {
	lease := ceph.Lease{Name: w.Name, Cookie: rand.Text(), Description: w.Owner, TTL: leaseTTL}
	waiting, cancel := context.WithTimeout(ctx, alonePatience)
	defer cancel()
	err = poll.Until(waiting, alonePause, func() (bool, error) {
		err := takeOver(waiting, w.Objects, w.Object, lease, func(ctx context.Context, client ceph.ClientAddress) error { return Evict(ctx, c, client) })
		if errors.Is(err, fault.Busy) {
			return false, nil
		}
		return err == nil, err
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("take the lease %s on %s: %w", w.Name, w.Object, err)
	}
	kept, keeper := ceph.Keep(ctx, w.Objects, w.Object, lease)
	err = work(kept)
	if lost := keeper.Lost(); err != nil && lost != nil {
		err = errors.Join(lost, err)
	}
	keeper.Release(ctx, false)
	return true, err
}
