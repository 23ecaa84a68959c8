package record

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
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
}

// NewStore returns the records in objects. owner describes this process to people
// who look at a lease ("controller on node-a, pid 12").
func NewStore(objects ceph.Objects, owner string) *Store {
	return &Store{objects: objects, owner: owner}
}

// Held is a record under its lease. Release it.
type Held struct {
	Record *Record

	store  *Store
	key    string
	lease  ceph.Lease
	cancel context.CancelFunc
	renew  sync.WaitGroup
	gone   bool // the object, and with it the lease
}

func (s *Store) newLease() ceph.Lease {
	return ceph.Lease{Name: leaseName, Cookie: rand.Text(), Description: s.owner, TTL: leaseTTL}
}

// Acquire returns the record under key, made from fresh if there is none. made says
// which. It waits while somebody else holds the lease, until ctx ends.
func (s *Store) Acquire(ctx context.Context, key string, fresh *Record) (held *Held, made bool, err error) {
	data, err := encode(fresh)
	if err != nil {
		return nil, false, fmt.Errorf("encode record %s: %w", key, err)
	}
	for {
		lease := s.newLease()
		err := s.objects.CreateLocked(ctx, key, data, lease)
		if err == nil {
			copied := *fresh
			return s.keep(ctx, key, &copied, lease), true, nil
		}
		if !errors.Is(err, fault.Exists) {
			return nil, false, err
		}
		held, err := s.Hold(ctx, key)
		if !errors.Is(err, fault.NotFound) { // gone in between: make it again
			return held, false, err
		}
	}
}

// Hold returns the record under key with its lease, fault.NotFound if there is none.
// It waits while somebody else holds the lease, until ctx ends.
func (s *Store) Hold(ctx context.Context, key string) (*Held, error) {
	lease := s.newLease()
	for {
		err := s.objects.Lock(ctx, key, lease)
		if err == nil {
			break
		}
		if !errors.Is(err, fault.Busy) {
			return nil, err
		}
		select {
		case <-time.After(contentionPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for record %s, held by another controller: %w", key, ctx.Err())
		}
	}
	held := s.keep(ctx, key, nil, lease)
	r, err := s.Read(ctx, key)
	if err != nil {
		held.Release(ctx)
		return nil, err
	}
	held.Record = r
	return held, nil
}

// keep renews the lease until Release.
func (s *Store) keep(ctx context.Context, key string, r *Record, lease ceph.Lease) *Held {
	renewal, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &Held{Record: r, store: s, key: key, lease: lease, cancel: cancel}
	h.renew.Go(func() {
		ticker := time.NewTicker(leaseTTL / 3)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				// A failure needs no answer here: a write under a lost lease fails.
				_ = s.objects.Lock(renewal, key, lease)
			case <-renewal.Done():
				return
			}
		}
	})
	return h
}

// Save writes the record: fault.Aborted when the lease was lost.
func (h *Held) Save(ctx context.Context) error {
	data, err := encode(h.Record)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", h.key, err)
	}
	return h.store.objects.WriteLocked(ctx, h.key, data, h.lease)
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

// Release ends the lease. It works on after ctx has ended: what is not released
// holds others up until the lease runs out.
func (h *Held) Release(ctx context.Context) {
	h.cancel()
	h.renew.Wait()
	if h.gone {
		return
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTTL)
	defer cancel()
	_ = h.store.objects.Unlock(ending, h.key, h.lease)
}

// Read returns the record under key without a lease.
func (s *Store) Read(ctx context.Context, key string) (*Record, error) {
	data, err := s.objects.Read(ctx, key)
	if err != nil {
		return nil, err
	}
	return decode(key, data)
}

// Keys returns the keys of all records, sorted.
func (s *Store) Keys(ctx context.Context) ([]string, error) { return s.objects.List(ctx) }

// ReadAll reads the records under keys, in parallel; nil stands for one that is gone.
func (s *Store) ReadAll(ctx context.Context, keys []string) ([]*Record, error) {
	records := make([]*Record, len(keys))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i, key := range keys {
		group.Go(func() error {
			r, err := s.Read(ctx, key)
			if errors.Is(err, fault.NotFound) {
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
