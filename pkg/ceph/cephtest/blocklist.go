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
	return ceph.ClientAddress(fmt.Sprintf("127.0.0.1:0/%d", c.client)), nil
}

// enter refuses a client that is on the blocklist, as the OSDs do.
func (c *connection) enter(ctx context.Context, op string) error {
	self, _ := c.Self(ctx)
	c.mu.Lock()
	until, listed := c.fenced[self]
	fenced := listed && c.now().Before(until)
	c.mu.Unlock()
	if fenced {
		return fault.New(fault.Unavailable, "%s: client %s is on the blocklist", op, self)
	}
	return c.Fake.enter(ctx, op)
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
