package cephtest

import (
	"crypto/rand"
	"slices"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

var _ Outside = (*Fake)(nil)

// fakeDevice is an image that a client of its own has open.
type fakeDevice struct {
	fake                  *Fake
	pool, namespace, name string
	watcher               ceph.Watcher
}

// Open implements Outside.
func (f *Fake) Open(_ *testing.T, pool, namespace, image string) Device {
	f.mu.Lock()
	f.client++
	d := &fakeDevice{f, pool, namespace, image, ceph.Watcher{Address: "10.0.0.9:0/1", Client: f.client}}
	f.mu.Unlock()
	f.Watch(pool, namespace, image, d.watcher)
	return d
}

func (d *fakeDevice) Write(_ *testing.T, offset, length uint64) {
	d.fake.Write(d.pool, d.namespace, d.name, offset, length)
}

func (d *fakeDevice) Discard(_ *testing.T, offset, length uint64) {
	d.fake.Discard(d.pool, d.namespace, d.name, offset, length)
}

func (d *fakeDevice) Close(*testing.T) {
	d.fake.mu.Lock()
	defer d.fake.mu.Unlock()
	m := d.fake.images[path(d.pool, d.namespace, d.name)]
	m.watchers = slices.DeleteFunc(m.watchers, func(w ceph.Watcher) bool { return w == d.watcher })
}

// Namespace implements Outside: the fake has every namespace.
func (f *Fake) Namespace(*testing.T, string) string { return "ns-" + rand.Text() }

// HalfRename implements Outside.
func (f *Fake) HalfRename(_ *testing.T, pool, image, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[path(pool, "", to)] = f.images[path(pool, "", image)]
	f.objects[path(pool, "", ceph.ImageObject(to))] = &object{locks: map[string]heldLock{}}
}

// DelayCopies implements Outside.
func (f *Fake) DelayCopies(*testing.T) (resume func()) {
	f.HoldClones(true)
	return func() { f.HoldClones(false) }
}
