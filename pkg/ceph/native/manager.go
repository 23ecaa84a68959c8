package native

import (
	"context"
	"fmt"
	"sync"

	"github.com/ceph/go-ceph/rados"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// managerCalls bounds the manager commands of one cluster under way, those included
// that their callers have given up on.
const managerCalls = 64

// manager is the connection for manager commands. It has no operation timeout:
// librados 16.2 hands the manager's client pointers into the caller's frame, and when
// rados_mon_op_timeout ends a command, the late answer is written into freed memory (the
// process dies). So a command runs until the manager answers, and the caller's patience
// is bounded here instead.
type manager struct {
	dial  func() (*rados.Conn, error)
	slots chan struct{}

	mu      sync.Mutex
	conn    *rados.Conn
	pending int
	closed  bool
}

func newManager(dial func() (*rados.Conn, error)) *manager {
	return &manager{dial: dial, slots: make(chan struct{}, managerCalls)}
}

// open returns the connection, made by the first call.
func (m *manager) open() (*rados.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fault.New(fault.Unavailable, "the connection was closed; a new one is made for the next call")
	}
	if m.conn == nil {
		conn, err := m.dial()
		if err != nil {
			return nil, err
		}
		m.conn = conn
	}
	m.pending++
	return m.conn, nil
}

func (m *manager) done() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending--
}

// close shuts the connection down if no command is under way. One that is has a frame
// that the answer will be written to: then the connection is left to the process's end.
func (m *manager) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.conn != nil && m.pending == 0 {
		m.conn.Shutdown()
		m.conn = nil
	}
}

// command sends a line and waits for the answer or for the end of ctx. The goroutine
// that waits for a late answer has no other owner than the connection.
func (m *manager) command(ctx context.Context, line, input []byte) ([]byte, string, error) {
	type answer struct {
		out    []byte
		status string
		err    error
	}
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, "", fmt.Errorf("%d commands wait for the manager already: %w", managerCalls, ctx.Err())
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() { <-m.slots }()
		conn, err := m.open()
		if err != nil {
			answered <- answer{err: err}
			return
		}
		defer m.done()
		out, status, err := conn.MgrCommandWithInputBuffer([][]byte{line}, input)
		answered <- answer{out, status, err}
	}()
	select {
	case a := <-answered:
		return a.out, a.status, a.err
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
}

// patience turns the end of our own bound into Unavailable; the caller's own stays.
func patience(caller, bounded context.Context, err error) error {
	if err != nil && caller.Err() == nil && bounded.Err() != nil {
		return fault.New(fault.Unavailable, "the manager does not answer: %v", err)
	}
	return err
}
