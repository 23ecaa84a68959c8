package cephtest

import (
	"context"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

type fakeObjects struct {
	*connection
	poolName, namespace string
}

// begin enters and checks the pool; on success the mutex is held.
func (o *fakeObjects) begin(ctx context.Context, op, name string) error {
	if err := o.enter(ctx, "Objects."+op+" "+name); err != nil {
		return err
	}
	if _, err := o.pool(o.poolName); err != nil {
		o.mu.Unlock()
		return err
	}
	return nil
}

func (o *fakeObjects) get(name string) (*object, error) {
	found, ok := o.objects[path(o.poolName, o.namespace, name)]
	if !ok {
		return nil, fault.New(fault.NotFound, "object %s does not exist", name)
	}
	return found, nil
}

// holds reports whether this connection holds lease, and whether anybody does.
func (o *fakeObjects) holds(found *object, lease ceph.Lease) (own, held bool) {
	lock, ok := found.locks[lease.Name]
	if !ok || o.now().After(lock.until) {
		return false, false
	}
	return lock.client == o.connection.client && lock.cookie == lease.Cookie, true
}

func (o *fakeObjects) take(found *object, lease ceph.Lease) {
	found.locks[lease.Name] = heldLock{o.connection.client, lease.Cookie, o.now().Add(lease.TTL), lease.Description}
	found.changed = o.now()
}

func (o *fakeObjects) CreateLocked(ctx context.Context, name string, data []byte, lease ceph.Lease) error {
	if err := o.begin(ctx, "CreateLocked", name); err != nil {
		return err
	}
	defer o.mu.Unlock()
	if pool, _ := o.pool(o.poolName); pool.Full {
		return fault.New(fault.Exhausted, "pool %s is full", pool.Name)
	}
	if _, err := o.get(name); err == nil {
		return fault.New(fault.Exists, "object %s exists", name)
	}
	made := &object{data: slices.Clone(data), locks: map[string]heldLock{}}
	o.take(made, lease)
	o.objects[path(o.poolName, o.namespace, name)] = made
	return nil
}

func (o *fakeObjects) Lock(ctx context.Context, name string, lease ceph.Lease) error {
	if err := o.begin(ctx, "Lock", name); err != nil {
		return err
	}
	defer o.mu.Unlock()
	found, err := o.get(name)
	if err != nil {
		return err
	}
	if _, held := o.holds(found, lease); held {
		return fault.New(fault.Busy, "object %s is locked", name)
	}
	o.take(found, lease)
	return nil
}

func (o *fakeObjects) LockAfter(ctx context.Context, name string, lease ceph.Lease, fenced ceph.ClientAddress) (ceph.ClientAddress, error) {
	if err := o.begin(ctx, "LockAfter", name); err != nil {
		return "", err
	}
	defer o.mu.Unlock()
	found, err := o.get(name)
	if err != nil {
		return "", err
	}
	if _, held := o.holds(found, lease); held {
		return "", fault.New(fault.Busy, "object %s is locked", name)
	}
	if lock, ok := found.locks[lease.Name]; ok && addressOf(lock.client) != fenced {
		return addressOf(lock.client), nil
	}
	o.take(found, lease)
	return "", nil
}

func (o *fakeObjects) LeaseOn(ctx context.Context, name, lease string) (ceph.LeaseState, error) {
	if err := o.begin(ctx, "LeaseOn", name); err != nil {
		return ceph.LeaseState{}, err
	}
	defer o.mu.Unlock()
	found, err := o.get(name)
	if err != nil {
		return ceph.LeaseState{}, err
	}
	state := ceph.LeaseState{Changed: found.changed}
	if lock, ok := found.locks[lease]; ok && !o.now().After(lock.until) {
		state.Held, state.Holder, state.Until = true, lock.description, lock.until
	}
	return state, nil
}

func (o *fakeObjects) Renew(ctx context.Context, name string, lease ceph.Lease) error {
	if err := o.begin(ctx, "Renew", name); err != nil {
		return err
	}
	defer o.mu.Unlock()
	found, err := o.get(name)
	if err != nil {
		return fault.New(fault.Aborted, "the lease was lost: %v", err)
	}
	if own, _ := o.holds(found, lease); !own {
		return fault.New(fault.Aborted, "the lease on object %s was lost", name)
	}
	o.take(found, lease)
	return nil
}

func (o *fakeObjects) Unlock(ctx context.Context, name string, lease ceph.Lease) error {
	if err := o.begin(ctx, "Unlock", name); err != nil {
		return err
	}
	defer o.mu.Unlock()
	found, err := o.get(name)
	if err != nil {
		return err
	}
	if own, _ := o.holds(found, lease); !own {
		return fault.New(fault.NotFound, "object %s is not locked by this client", name)
	}
	delete(found.locks, lease.Name)
	found.changed = o.now()
	return nil
}

func (o *fakeObjects) Read(ctx context.Context, name string) ([]byte, error) {
	if err := o.begin(ctx, "Read", name); err != nil {
		return nil, err
	}
	defer o.mu.Unlock()
	found, err := o.get(name)
	if err != nil {
		return nil, err
	}
	return slices.Clone(found.data), nil
}

// locked returns the object if this connection holds the lease on it.
func (o *fakeObjects) locked(name string, lease ceph.Lease) (*object, error) {
	found, err := o.get(name)
	if err != nil {
		return nil, err
	}
	if own, _ := o.holds(found, lease); !own {
		return nil, fault.New(fault.Aborted, "the lease on object %s was lost", name)
	}
	return found, nil
}

func (o *fakeObjects) WriteLocked(ctx context.Context, name string, data []byte, lease ceph.Lease) error {
	if err := o.begin(ctx, "WriteLocked", name); err != nil {
		return err
	}
	defer o.mu.Unlock()
	found, err := o.locked(name, lease)
	if err != nil {
		return err
	}
	found.data, found.changed = slices.Clone(data), o.now()
	return nil
}

func (o *fakeObjects) WriteUnlock(ctx context.Context, name string, data []byte, lease ceph.Lease) error {
	if err := o.begin(ctx, "WriteUnlock", name); err != nil {
		return err
	}
	defer o.mu.Unlock()
	found, err := o.locked(name, lease)
	if err != nil {
		return err
	}
	found.data, found.changed = slices.Clone(data), o.now()
	delete(found.locks, lease.Name)
	return nil
}

func (o *fakeObjects) RemoveLocked(ctx context.Context, name string, lease ceph.Lease) error {
	if err := o.begin(ctx, "RemoveLocked", name); err != nil {
		return err
	}
	defer o.mu.Unlock()
	if _, err := o.locked(name, lease); err != nil {
		return err
	}
	delete(o.objects, path(o.poolName, o.namespace, name))
	return nil
}

func (o *fakeObjects) List(ctx context.Context) ([]string, error) {
	if err := o.begin(ctx, "List", ""); err != nil {
		return nil, err
	}
	defer o.mu.Unlock()
	return under(o.objects, path(o.poolName, o.namespace, "")), nil
}
