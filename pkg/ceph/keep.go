package ceph

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// releaseLimit bounds the end of a lease: what is not let go of runs out by itself.
const releaseLimit = 5 * time.Second

// Keeper renews a lease that is held.
type Keeper struct {
	objects Objects
	name    string
	lease   Lease
	stop    context.CancelFunc
	renewal sync.WaitGroup

	end context.CancelCauseFunc // of the work's context

	mu   sync.Mutex
	lost error
}

// Keep renews the lease on the object name, which the caller has just taken, until
// Release. The context that it returns ends when the lease is lost: somebody else may
// have it then, so the work under it must stop. A lease that ran out is lost even if
// nobody took it, because somebody may have had it in between.
func Keep(ctx context.Context, objects Objects, name string, lease Lease) (context.Context, *Keeper) {
	work, end := context.WithCancelCause(ctx)
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	k := &Keeper{objects: objects, name: name, lease: lease, stop: stop, end: end}
	k.renewal.Go(func() { k.renew(renewing) })
	return work, k
}

func (k *Keeper) renew(ctx context.Context) {
	ticker := time.NewTicker(k.lease.TTL / 3)
	defer ticker.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asked := time.Now()
		err := k.objects.Renew(ctx, k.name, k.lease)
		switch {
		case err == nil:
			renewed = asked
		case ctx.Err() != nil:
			return
		case errors.Is(err, fault.Aborted), time.Since(renewed) > k.lease.TTL:
			k.lose(fault.As(fault.Aborted, fmt.Errorf("the lease on %s is lost: %w", k.name, err)))
			return
		}
	}
}

func (k *Keeper) lose(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lost = err
	k.end(err)
}

// Lost says why the lease is lost, nil while it is held.
func (k *Keeper) Lost() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lost
}

// Release ends the renewal and lets go of the lease; with gone the object is no more,
// and the lease with it. It works on after ctx has ended.
func (k *Keeper) Release(ctx context.Context, gone bool) {
	k.stop()
	k.renewal.Wait()
	k.end(nil)
	if gone || k.Lost() != nil {
		return
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	_ = k.objects.Unlock(ending, k.name, k.lease) // else it runs out by itself
}
