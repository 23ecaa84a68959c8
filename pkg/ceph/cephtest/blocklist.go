package cephtest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func (c *connection) Self(context.Context) (ceph.ClientAddress, error) {
	return addressOf(c.client), nil
}

func addressOf(client int64) ceph.ClientAddress {
	return ceph.ClientAddress(fmt.Sprintf("127.0.0.1:0/%d", client))
}

// enter refuses a client that is on the blocklist, as the OSDs do: when the operation arrives.
func (c *connection) enter(ctx context.Context, op string) error {
	if err := c.Fake.enter(ctx, op); err != nil {
		return err
	}
	if c.isFenced() {
		c.mu.Unlock()
		return fault.New(fault.Unavailable, "%s: client %s is on the blocklist", op, addressOf(c.client))
	}
	return nil
}

// isFenced is called with the mutex held.
func (c *connection) isFenced() bool {
	until, listed := c.fenced[addressOf(c.client)]
	return listed && c.now().Before(until)
}

func (c *connection) Fence(ctx context.Context, client ceph.ClientAddress, lasting time.Duration) error {
	if err := c.enter(ctx, "Fence "+string(client)); err != nil {
		return err
	}
	defer c.mu.Unlock()
	c.fenced[client] = c.now().Add(lasting)
	for _, m := range c.images { // an OSD lets go of a fenced client's watches
		m.watchers = slices.DeleteFunc(m.watchers, func(w ceph.Watcher) bool {
			address, err := ceph.ParseClient(w.Address)
			return err == nil && address == client
		})
	}
	return nil
}

func (c *connection) Barrier(ctx context.Context, pool string) error {
	if err := c.enter(ctx, "Barrier "+pool); err != nil {
		return err
	}
	defer c.mu.Unlock()
	_, err := c.pool(pool)
	return err
}

func (c *connection) Unfence(ctx context.Context, client ceph.ClientAddress) error {
	if err := c.enter(ctx, "Unfence "+string(client)); err != nil {
		return err
	}
	defer c.mu.Unlock()
	delete(c.fenced, client)
	return nil
}

// Fenced returns the clients that are on the blocklist, sorted.
func (f *Fake) Fenced() []ceph.ClientAddress {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []ceph.ClientAddress
	for client, until := range f.fenced {
		if f.now().Before(until) {
			list = append(list, client)
		}
	}
	slices.Sort(list)
	return list
}
