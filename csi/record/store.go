package record

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

const (
	leaseName = "holdfast"
	// leaseTTL is how long a name stays locked after its controller died.
	leaseTTL = 15 * time.Second
	// contentionPause is the pause between two tries at a lease that somebody else holds.
	contentionPause = 50 * time.Millisecond
	// readers bounds the parallel reads of a listing.
	readers = 32
)

// Store holds the records of one driver on one cluster.
type Store struct {
	objects ceph.Objects
	owner   string
	evict   evictor
}

// NewStore returns the records in objects. owner describes this process to people
// who look at a lease ("controller on node-a, pid 12").
func NewStore(objects ceph.Objects, owner string) *Store {
	return &Store{objects: objects, owner: owner}
}

// Evicting makes the store call evict before it takes a record over from a controller whose lease ran out
// (see Evict). An error of it is that of Acquire or Hold.
func (s *Store) Evicting(evict func(context.Context, ceph.ClientAddress) error) *Store {
	s.evict = evict
	return s
}

// Held is a record under its lease, which is renewed until Release.
type Held struct {
	Record *Record

	store  *Store
	key    string
	lease  ceph.Lease
	keeper *ceph.Keeper
	gone   bool // the lease, let go of or gone with the object
}

func (s *Store) newLease() ceph.Lease {
	return ceph.Lease{Name: leaseName, Cookie: rand.Text(), Description: s.owner, TTL: leaseTTL}
}

// Acquire returns the record under key, made from fresh if there is none; made says
// which. It waits while somebody else holds the lease, until ctx ends. The work on the
// record belongs under the context that it returns, which ends when the lease is lost.
func (s *Store) Acquire(ctx context.Context, key string, fresh *Record) (work context.Context, held *Held, made bool, err error) {
	data, err := encode(fresh)
	if err != nil {
		return nil, nil, false, fmt.Errorf("encode record %s: %w", key, err)
	}
	for {
		lease := s.newLease()
		err := s.objects.CreateLocked(ctx, key, data, lease)
		if err == nil {
			copied := *fresh
			work, keeper := ceph.Keep(ctx, s.objects, key, lease)
			return work, &Held{Record: &copied, store: s, key: key, lease: lease, keeper: keeper}, true, nil
		}
		if !errors.Is(err, fault.Exists) {
			return nil, nil, false, err
		}
		work, held, err := s.Hold(ctx, key)
		if !errors.Is(err, fault.NotFound) { // gone in between: make it again
			return work, held, false, err
		}
	}
}

// Hold returns the record under key with its lease, fault.NotFound if there is none.
// It waits and returns a context as Acquire does.
func (s *Store) Hold(ctx context.Context, key string) (work context.Context, held *Held, err error) {
	lease := s.newLease()
	for {
		err := takeOver(ctx, s.objects, key, lease, s.evict)
		if err == nil {
			break
		}
		if !errors.Is(err, fault.Busy) {
			return nil, nil, err
		}
		select {
		case <-time.After(contentionPause):
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("wait for record %s, held by another controller: %w", key, ctx.Err())
		}
	}
	work, keeper := ceph.Keep(ctx, s.objects, key, lease)
	r, err := s.Read(ctx, key)
	if err != nil {
		keeper.Release(ctx, false)
		return nil, nil, err
	}
	return work, &Held{Record: r, store: s, key: key, lease: lease, keeper: keeper}, nil
}

// Save writes the record: fault.Aborted when the lease was lost.
func (h *Held) Save(ctx context.Context) error {
	data, err := encode(h.Record)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", h.key, err)
	}
	return h.removed(h.store.objects.WriteLocked(ctx, h.key, data, h.lease))
}

// removed turns the absence of a record that is held into fault.Aborted: another controller
// had the lease after this one, and removed the record.
func (h *Held) removed(err error) error {
	if errors.Is(err, fault.NotFound) {
		return fault.New(fault.Aborted, "record %s was removed by another controller: %v", h.key, err)
	}
	return err
}

// Finish writes the record and ends the lease, in one operation: fault.Aborted when the
// lease was lost.
func (h *Held) Finish(ctx context.Context) error {
	data, err := encode(h.Record)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", h.key, err)
	}
	err = h.removed(h.store.objects.WriteUnlock(ctx, h.key, data, h.lease))
	h.gone = err == nil
	return err
}

// Remove deletes the record: fault.Aborted when the lease was lost. One that is gone
// already is no error.
func (h *Held) Remove(ctx context.Context) error {
	err := h.store.objects.RemoveLocked(ctx, h.key, h.lease)
	if err == nil || errors.Is(err, fault.NotFound) {
		h.gone = true
		return nil
	}
	return err
}

// Ended reports whether the lease ended with a write of the record: what was made under it is
// the record's, or was taken back.
func (h *Held) Ended() bool { return h.gone }

// Release ends the lease. It works on after ctx has ended.
func (h *Held) Release(ctx context.Context) { h.keeper.Release(ctx, h.gone) }

// Outcome is err with the reason in front where the lease was lost on the way.
func (h *Held) Outcome(err error) error {
	if lost := h.keeper.Lost(); err != nil && lost != nil {
		return errors.Join(lost, err)
	}
	return err
}

// Read returns the record under key without a lease.
func (s *Store) Read(ctx context.Context, key string) (*Record, error) {
	data, err := s.objects.Read(ctx, key)
	if err != nil {
		return nil, err
	}
	return decode(key, data)
}

// Lease says who works on the record under key, and when it was last worked on.
func (s *Store) Lease(ctx context.Context, key string) (ceph.LeaseState, error) {
	return s.objects.LeaseOn(ctx, key, leaseName)
}

// Keys returns the keys of all records, sorted.
func (s *Store) Keys(ctx context.Context) ([]string, error) { return s.objects.List(ctx) }

// ReadAll reads the records under keys, in parallel. One that is gone is nil; one that
// cannot be decoded is nil too and told to damaged.
func (s *Store) ReadAll(ctx context.Context, keys []string, damaged func(key string, err error)) ([]*Record, error) {
	records := make([]*Record, len(keys))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i, key := range keys {
		group.Go(func() error {
			r, err := s.Read(ctx, key)
			switch {
			case errors.Is(err, errDamaged):
				damaged(key, err)
				return nil
			case errors.Is(err, fault.NotFound):
				return nil
			}
			records[i] = r
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	return records, nil
}
