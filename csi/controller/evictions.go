package controller

import (
	"sync"
	"time"
)

// evictions are the clients that this process has cut off: one that died may have held many leases.
type evictions struct {
	mu   sync.Mutex
	done map[string]time.Time
}

// remembered is how long a client counts as cut off: less than it is (see record.Evict).
const remembered = time.Hour

// once runs evict unless it has succeeded for this client before.
func (e *evictions) once(client string, now time.Time, evict func() error) error {
	e.mu.Lock()
	at, done := e.done[client]
	e.mu.Unlock()
	if done && now.Sub(at) < remembered {
		return nil
	}
	if err := evict(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == nil {
		e.done = map[string]time.Time{}
	}
	e.done[client] = now
	return nil
}
