package cephtest

import (
	"bytes"
	"context"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

type fakeNotes struct{ *fakeObjects }

func (c *connection) Notes(pool, namespace string) ceph.Notes {
	return fakeNotes{&fakeObjects{c, pool, namespace}}
}

func (n fakeNotes) Swap(ctx context.Context, name string, old, data []byte) error {
	if err := n.begin(ctx, "Swap", name); err != nil {
		return err
	}
	defer n.mu.Unlock()
	key := path(n.poolName, n.namespace, name)
	found, there := n.objects[key]
	if there != (len(old) > 0) || there && !bytes.HasPrefix(found.data, old) {
		return fault.New(fault.Aborted, "object %s was changed by another", name)
	}
	if len(data) == 0 {
		delete(n.objects, key)
		return nil
	}
	if pool, _ := n.pool(n.poolName); pool.Full && !there {
		return fault.New(fault.Exhausted, "pool %s is full", pool.Name)
	}
	n.objects[key] = &object{data: slices.Clone(data), locks: map[string]heldLock{}}
	return nil
}
