package ceph

import (
	"context"
	"time"
)

// Lease is a lock with an end, held on an object by the client that knows Cookie.
type Lease struct {
	Name        string // of the lock; an object can carry several
	Cookie      string // unique to the holder
	Description string // for people: who holds it
	TTL         time.Duration
}

// LeaseState says who works on an object, and when that was last done.
type LeaseState struct {
	Held   bool
	Holder string    // the lease's Description; "" when nobody holds it
	Until  time.Time // when it runs out unless it is renewed
	// Changed is when the object was last written, or a lease on it taken, renewed or let go.
	Changed time.Time
}

// Objects are the RADOS objects of one pool and namespace. A small object is read
// and written whole, and is never empty (fault.Invalid). Every write is made under a lease, which the OSD checks in the
// same atomic operation: a holder that lost its lease cannot write.
type Objects interface {
	// CreateLocked makes an object with data, already locked. fault.Exists if it is there.
	CreateLocked(ctx context.Context, name string, data []byte, lease Lease) error
	// Lock takes a lease on an existing object: fault.NotFound without the object,
	// fault.Busy while somebody else holds it. See Keep for its renewal.
	Lock(ctx context.Context, name string, lease Lease) error
	// LockAfter is Lock for work that the last holder may still be at: where its lease ran out, neither let go
	// of nor renewed, it takes nothing and returns that client as lapsed, unless it is the one that
	// the caller names as fenced.
	LockAfter(ctx context.Context, name string, lease Lease, fenced ClientAddress) (lapsed ClientAddress, err error)
	// Renew makes a lease that is still held begin anew: fault.Aborted when it ran out
	// (even if nobody took it: somebody may have had it in between) or the object is gone.
	Renew(ctx context.Context, name string, lease Lease) error
	// Unlock lets go. fault.NotFound when lock or object are gone.
	Unlock(ctx context.Context, name string, lease Lease) error
	// LeaseOn looks at the lease of that name: fault.NotFound without the object.
	LeaseOn(ctx context.Context, name, lease string) (LeaseState, error)
	// Read returns the whole object.
	Read(ctx context.Context, name string) ([]byte, error)
	// WriteLocked replaces the object, RemoveLocked deletes it: fault.Aborted when
	// the lease is no longer held, fault.NotFound when the object is gone.
	WriteLocked(ctx context.Context, name string, data []byte, lease Lease) error
	// WriteUnlock is WriteLocked and Unlock in one operation.
	WriteUnlock(ctx context.Context, name string, data []byte, lease Lease) error
	RemoveLocked(ctx context.Context, name string, lease Lease) error
	// List returns all names, sorted.
	List(ctx context.Context) ([]string, error)
}
