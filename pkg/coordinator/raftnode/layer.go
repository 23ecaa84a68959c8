package raftnode

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// layer carries raft's connections over mutual TLS between coordinators, and can be cut.
type layer struct {
	net.Listener

	certs   *certs.Store
	address address

	mu    sync.Mutex
	gone  bool
	conns map[net.Conn]struct{}
}

var _ raft.StreamLayer = (*layer)(nil)

// address is the one that the others know, whatever is listened on.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func newLayer(cfg Config) *layer {
	return &layer{Listener: cfg.Listener, certs: cfg.Certs, address: address(cfg.Address), conns: map[net.Conn]struct{}{}}
}

// Addr is where the others reach this member.
func (l *layer) Addr() net.Addr { return l.address }

// Accept takes a connection.
func (l *layer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // raft looks at it
	}
	return l.keep(c)
}

// Dial makes a connection to another member.
func (l *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := (&tls.Dialer{Config: l.certs.Client(certs.Raft, certs.Coordinator, "")}).DialContext(ctx, "tcp", string(to))
	if err != nil {
		return nil, fmt.Errorf("reach coordinator at %s: %w", to, err)
	}
	return l.keep(c)
}

// answerIn is how long a member may take to show who it is.
const answerIn = 5 * time.Second

// answers checks that a member is at its address, under its name.
func (l *layer) answers(ctx context.Context, m Member) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	c, err := (&tls.Dialer{Config: l.certs.Client(certs.Raft, certs.Coordinator, m.Name)}).DialContext(ctx, "tcp", m.Address)
	if err != nil {
		return fmt.Errorf("reach it: %w", err)
	}
	_ = c.Close()
	return nil
}

// kept is a connection that the layer can close.
type kept struct {
	net.Conn

	layer *layer
}

// Close ends it.
func (k *kept) Close() error {
	k.layer.mu.Lock()
	delete(k.layer.conns, k.Conn)
	k.layer.mu.Unlock()
	return k.Conn.Close() //nolint:wrapcheck // a net.Conn's own
}

func (l *layer) keep(c net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		_ = c.Close()
		return nil, fault.New(fault.Unavailable, "this coordinator takes no part any more")
	}
	l.conns[c] = struct{}{}
	return &kept{c, l}, nil
}

// cut ends all connections and lets none be made again.
func (l *layer) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	_ = l.Listener.Close()
	for c := range l.conns {
		if t, ok := c.(*tls.Conn); ok { // its own Close may wait for a write that stands still
			_ = t.NetConn().Close()
		}
	}
}
