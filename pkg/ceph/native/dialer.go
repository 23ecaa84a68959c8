// Package native implements package ceph on go-ceph, which it alone imports (and
// with it cgo). Every librados, librbd and manager call runs on a goroutine of its
// own that the Dialer owns: a caller whose context ends is released at once, the
// call itself ends by Ceph's operation timeouts, and Close waits for all of them.
package native

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Timeouts bound what cannot be interrupted. A zero field takes the default.
type Timeouts struct {
	Connect time.Duration // default 10 s
	Mon     time.Duration // default 15 s; also how long a manager command is waited for
	OSD     time.Duration // default 15 s
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&t.Connect, 10*time.Second)
	set(&t.Mon, 15*time.Second)
	set(&t.OSD, 15*time.Second)
	return t
}

// Dialer keeps one connection for each endpoint and user.
type Dialer struct {
	timeouts Timeouts

	mu     sync.Mutex
	slots  map[string]*slot
	closed bool
	calls  sync.WaitGroup
}

// slot is a connection or the attempt at one; ready is closed when it is decided.
type slot struct {
	ready   chan struct{}
	cluster *cluster
	err     error
}

var _ ceph.Dialer = (*Dialer)(nil)

// NewDialer returns a Dialer with the default timeouts. Close it.
func NewDialer() *Dialer { return NewDialerWith(Timeouts{}) }

// NewDialerWith returns a Dialer with timeouts of the caller's choice. Close it.
func NewDialerWith(timeouts Timeouts) *Dialer {
	limitArenas()
	return &Dialer{timeouts: timeouts.withDefaults(), slots: map[string]*slot{}}
}

// Dial returns the shared connection, making it first where it is not there yet.
// Callers that come while an attempt is under way wait for that attempt.
func (d *Dialer) Dial(ctx context.Context, to ceph.Endpoint, as ceph.Credentials) (ceph.Cluster, error) {
	if len(to.Monitors) == 0 || as.User == "" || as.Key.Reveal() == "" {
		return nil, fault.New(fault.Invalid, "connect to cluster %s: monitors, a user and its key are needed", to.ID)
	}
	s, err := d.slotFor(to, as)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.ready:
		return s.cluster, s.asError(to, as)
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to cluster %s: %w", to.ID, ctx.Err())
	}
}

func (s *slot) asError(to ceph.Endpoint, as ceph.Credentials) error {
	if s.err == nil {
		return nil
	}
	return fmt.Errorf("connect to cluster %s at %s as client.%s: %w", to.ID, strings.Join(to.Monitors, ","), as.User, s.err)
}

func (d *Dialer) slotFor(to ceph.Endpoint, as ceph.Credentials) (*slot, error) {
	sum := sha256.Sum256([]byte(strings.Join([]string{string(to.ID), strings.Join(to.Monitors, ","), as.User, as.Key.Reveal()}, "\x00")))
	key := hex.EncodeToString(sum[:])
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fault.New(fault.Unavailable, "connect to cluster %s: shutting down", to.ID)
	}
	if s, ok := d.slots[key]; ok {
		return s, nil
	}
	s := &slot{ready: make(chan struct{})}
	d.slots[key] = s
	d.calls.Add(1)
	go func() {
		defer d.calls.Done()
		conn, err := d.connect(to, as, d.timeouts.Mon)
		d.mu.Lock()
		defer d.mu.Unlock()
		if err != nil {
			s.err = err
			delete(d.slots, key)
		} else {
			s.cluster = &cluster{
				conn: conn, dialer: d, manager: newManager(func() (*rados.Conn, error) { return d.connect(to, as, 0) }), forget: func() { d.forget(key, s) },
				pools: newMemo[[]ceph.PoolInfo](), filesystems: newMemo[[]ceph.Filesystem](),
			}
		}
		close(s.ready)
	}()
	return s, nil
}

// forget drops a connection that has become useless (its client is blocklisted), so
// that the next Dial makes a new one. Its calls under way end by themselves, and it ends with them: a process
// that is cut off now and then would keep the threads and buffers of each.
func (d *Dialer) forget(key string, s *slot) {
	d.mu.Lock()
	if d.slots[key] == s {
		delete(d.slots, key)
	}
	ending := !d.closed && s.cluster.retire() // Close ends it else
	if ending {
		d.calls.Add(1) // under the lock: Close waits for all calls that there are then
	}
	d.mu.Unlock()
	if ending {
		go func() {
			defer d.calls.Done()
			s.cluster.leave()
		}()
	}
}

// connect makes a connection. Monitor commands on it end after monTimeout (0: never).
func (d *Dialer) connect(to ceph.Endpoint, as ceph.Credentials, monTimeout time.Duration) (*rados.Conn, error) {
	conn, err := rados.NewConnWithUser(as.User)
	if err != nil {
		return nil, classify(err)
	}
	seconds := func(t time.Duration) string { return strconv.Itoa(int((t + time.Second - 1) / time.Second)) }
	options := [][2]string{
		{"mon_host", strings.Join(to.Monitors, ",")},
		{"key", as.Key.Reveal()},
		{"client_mount_timeout", seconds(d.timeouts.Connect)},
		{"rados_mon_op_timeout", seconds(monTimeout)},
		{"rados_osd_op_timeout", seconds(d.timeouts.OSD)},
		{"log_to_stderr", "false"}, {"err_to_stderr", "false"}, {"log_file", ""}, {"admin_socket", ""},
		// The image data of a controller is metadata only: no cache to keep coherent.
		{"rbd_cache", "false"},
		// Nobody here freezes a file system for a snapshot (rbd-nbd's --quiesce alone can): not to
		// ask saves four of the sixteen messages of one.
		{"rbd_default_snapshot_quiesce_mode", "skip"},
		// Objects that one flattening or removal of an image works on at once. Ceph's default of 10
		// makes creations on three small OSDs three times as slow meanwhile; 5 and 2 do so much less.
		{"rbd_concurrent_management_ops", "4"},
	}
	for _, o := range options {
		if err := conn.SetConfigOption(o[0], o[1]); err != nil {
			return nil, fmt.Errorf("set ceph option %s: %w", o[0], classify(err))
		}
	}
	if err := conn.Connect(); err != nil {
		return nil, classify(err)
	}
	return conn, nil
}

func (c *cluster) shutdown() {
	c.manager.close()
	c.conn.Shutdown()
}

// closeLimit is how long Close waits for calls under way. A call that hangs in librbd (two processes
// that remove one image) never returns.
const closeLimit = 30 * time.Second

// Close ends all connections after the calls under way have returned. While one does not, the
// connections stay until the process ends: to take them from under it would crash it.
func (d *Dialer) Close() {
	d.mu.Lock()
	d.closed = true
	slots := d.slots
	d.slots = map[string]*slot{}
	d.mu.Unlock()
	returned := make(chan struct{})
	go func() {
		d.calls.Wait()
		close(returned)
	}()
	select {
	case <-returned:
	case <-time.After(closeLimit):
		return
	}
	for _, s := range slots {
		if s.cluster != nil {
			s.cluster.shutdown()
		}
	}
}
