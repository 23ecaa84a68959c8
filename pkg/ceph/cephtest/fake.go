// Package cephtest holds a fake Ceph cluster that models state (objects with leases,
// images, snapshots, clones, the trash, subvolumes, pools) and the conformance suite that the fake and the real
// cluster both pass. The fake is for speed; what counts is tested on real Ceph too.
package cephtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Fake is a cluster in memory with the pools "rbd", ".holdfast", "cephfs.meta" and
// "cephfs.data" and the file system "cephfs". Safe for concurrent use.
type Fake struct {
	mu         sync.Mutex
	client     int64 // of this connection; Connect gives others
	now        func() time.Time
	pools      []ceph.PoolInfo
	objects    map[string]*object
	images     map[string]*image
	contents   map[int64][]byte // of images' blocks, by the serial of the write
	trash      map[string]*trashed
	subvolumes map[string]*subvolume
	holdClones bool
	serial     int64
	hook       func(op string) error
	hang       chan struct{}
	fenced     map[ceph.ClientAddress]time.Time // until when
}

type object struct {
	data    []byte
	omap    map[string]string
	locks   map[string]heldLock
	changed time.Time
}

type heldLock struct {
	client int64
	cookie string
	until  time.Time

	description string
}

// NewFake returns an empty cluster whose leases run by the real clock.
func NewFake() *Fake {
	names := []string{".holdfast", "cephfs.data", "cephfs.meta", "rbd"}
	f := &Fake{
		client: 4100, now: time.Now, objects: map[string]*object{},
		images: map[string]*image{}, contents: map[int64][]byte{}, trash: map[string]*trashed{}, subvolumes: map[string]*subvolume{},
		fenced: map[ceph.ClientAddress]time.Time{},
	}
	applications := map[string][]string{"rbd": {"rbd"}, "cephfs.data": {"cephfs"}, "cephfs.meta": {"cephfs"}}
	for i, name := range names {
		f.pools = append(f.pools, ceph.PoolInfo{
			ID: int64(i + 1), Name: name, MaxAvail: 100 * storage.GiB, Size: 3, MinSize: 2, PGs: 8, Applications: applications[name],
		})
	}
	return f
}

// Hook sets a function that is asked before each operation ("Images.Create hf-1");
// an error of it fails the operation. nil removes it.
func (f *Fake) Hook(hook func(op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// Hang makes every operation block until its context ends or resume is called.
func (f *Fake) Hang() (resume func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.hang = gate
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hang = nil
		close(gate)
	})
}

// SetFull marks all pools full or not.
func (f *Fake) SetFull(full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.pools {
		f.pools[i].Full = full
	}
}

// Watch adds a watcher to an image, as a client that opens it would be.
func (f *Fake) Watch(pool, namespace, name string, w ceph.Watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[path(pool, namespace, name)].watchers = append(f.images[path(pool, namespace, name)].watchers, w)
}

// enter runs before each operation and returns with the mutex held (call leave).
func (f *Fake) enter(ctx context.Context, op string) error {
	f.mu.Lock()
	gate, hook := f.hang, f.hook
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if hook != nil {
		if err := hook(op); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	f.mu.Lock()
	return nil
}

func path(pool, namespace, name string) string { return pool + "/" + namespace + "/" + name }

func (f *Fake) pool(name string) (*ceph.PoolInfo, error) {
	for i := range f.pools {
		if f.pools[i].Name == name {
			return &f.pools[i], nil
		}
	}
	return nil, fault.New(fault.Precondition, "pool %s does not exist", name)
}

// connection is one client's view of the cluster.
type connection struct {
	*Fake
	client int64
}

var _ ceph.Cluster = (*connection)(nil)

// Connect returns a connection of its own: leases of one are foreign to another.
func (f *Fake) Connect() ceph.Cluster {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.client++
	return &connection{Fake: f, client: f.client}
}

// Dialer returns a ceph.Dialer whose every Dial gives the one same connection, a new one when that was fenced.
func (f *Fake) Dialer() ceph.Dialer { return &dialer{fake: f, to: f.Connect()} }

type dialer struct {
	fake *Fake
	mu   sync.Mutex
	to   ceph.Cluster
}

func (d *dialer) Dial(context.Context, ceph.Endpoint, ceph.Credentials) (ceph.Cluster, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fake.mu.Lock()
	fenced := d.to.(*connection).isFenced() //nolint:forcetypeassert // Connect made it
	d.fake.mu.Unlock()
	if fenced {
		d.to = d.fake.Connect()
	}
	return d.to, nil
}

func (c *connection) FSID(context.Context) (string, error) {
	return "00000000-0000-4000-8000-000000000000", nil
}

func (c *connection) Pools(ctx context.Context) ([]ceph.PoolInfo, error) {
	if err := c.enter(ctx, "Pools"); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	return slices.Clone(c.pools), nil
}

func (c *connection) Filesystems(ctx context.Context) ([]ceph.Filesystem, error) {
	if err := c.enter(ctx, "Filesystems"); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	return []ceph.Filesystem{{ID: 1, Name: "cephfs", MetadataPool: "cephfs.meta", DataPools: []string{"cephfs.data"}}}, nil
}

// Mon and Mgr are beyond the fake.
func (c *connection) Mon(_ context.Context, cmd map[string]any, _ []byte) ([]byte, error) {
	return nil, refuse(cmd)
}
func (c *connection) Mgr(_ context.Context, cmd map[string]any, _ []byte) ([]byte, error) {
	return nil, refuse(cmd)
}

func refuse(cmd map[string]any) error {
	text, _ := json.Marshal(cmd)
	return fault.New(fault.Unsupported, "the fake cluster takes no commands: %s", text)
}

func (c *connection) Objects(pool, namespace string) ceph.Objects {
	return &fakeObjects{c, pool, namespace}
}
func (c *connection) Images(pool, namespace string) ceph.Images {
	return &fakeImages{c, pool, namespace}
}
func (c *connection) Subvolumes(filesystem, group string) ceph.Subvolumes {
	return &fakeSubvolumes{c, filesystem, group}
}

func under[V any](m map[string]V, prefix string) []string {
	var names []string
	for key := range maps.Keys(m) {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			names = append(names, rest)
		}
	}
	sort.Strings(names)
	return names
}

// Advance moves the cluster's clock, by which leases run out.
func (f *Fake) Advance(by time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now
	f.now = func() time.Time { return now().Add(by) }
}

// RenamePool gives a pool another name; what is in it stays.
func (f *Fake) RenamePool(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.pools {
		if f.pools[i].Name == from {
			f.pools[i].Name = to
		}
	}
	move(f.images, from+"/", to+"/")
	move(f.trash, from+"/", to+"/")
	for _, m := range f.images {
		m.movePool(from, to)
	}
	for _, t := range f.trash {
		t.image.movePool(from, to)
	}
	move(f.objects, from+"/", to+"/")
}

func move[V any](m map[string]V, from, to string) {
	for _, rest := range under(m, from) {
		m[to+rest] = m[from+rest]
		delete(m, from+rest)
	}
}
