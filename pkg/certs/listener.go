package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"
)

// Protocol is what is spoken on a connection, as ALPN names it.
type Protocol string

// The protocols of one port.
const (
	GRPC Protocol = "h2"
	Raft Protocol = "holdfast-raft"
	// Join is spoken by who has no certificate yet, and nothing else is.
	Join Protocol = "holdfast-join"
)

// acceptAgain is the pause after a connection that could not be taken.
const acceptAgain = 100 * time.Millisecond

// handshakePatience is how long a client may take until it is known.
const handshakePatience = 10 * time.Second

// Listener takes connections on one port, and hands each to those who speak its protocol, once it is known who came.
type Listener struct {
	net.Listener

	config *tls.Config
	doors  map[Protocol]*door
	once   sync.Once
	done   chan struct{}
	work   sync.WaitGroup
}

// Listen begins to listen on address, for protocols and who may speak each.
func (s *Store) Listen(ctx context.Context, address string, allowed map[Protocol][]Role) (*Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the cluster: %w", err)
	}
	mux := &Listener{Listener: l, config: s.Server(allowed), doors: map[Protocol]*door{}, done: make(chan struct{})}
	for p := range allowed {
		mux.doors[p] = &door{mux: mux, conns: make(chan net.Conn), closed: make(chan struct{})}
	}
	mux.work.Go(mux.accept)
	return mux, nil
}

// For is the listener of one protocol. Its Close leaves the port open for the others.
func (l *Listener) For(p Protocol) net.Listener { return l.doors[p] }

// Close closes the port. Connections that were handed on stay.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		_ = l.Listener.Close()
	})
	l.work.Wait()
	return nil
}

func (l *Listener) accept() {
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			l.work.Go(func() { l.admit(c) })
			continue
		}
		select { // no descriptor or no memory is left: others close theirs, in a while
		case <-l.done:
			return
		case <-time.After(acceptAgain):
		}
	}
}

// admit learns who came, and hands the connection on.
func (l *Listener) admit(c net.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakePatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	conn := tls.Server(c, l.config)
	err := conn.HandshakeContext(ctx)
	stop()
	to := l.doors[Protocol(conn.ConnectionState().NegotiatedProtocol)]
	if err != nil || to == nil {
		_ = c.Close()
		return
	}
	select {
	case to.conns <- conn:
	case <-ctx.Done(): // there are as many as are served
		_ = c.Close()
	case <-l.done:
		_ = c.Close()
	}
}

// door is the listener of one protocol.
type door struct {
	mux    *Listener
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept takes the next connection.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.closed:
	case <-d.mux.done:
	}
	return nil, net.ErrClosed
}

// Close ends Accept.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// Addr is the port's.
func (d *door) Addr() net.Addr { return d.mux.Addr() }
