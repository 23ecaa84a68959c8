package standalone

import (
	"context"
	"sync"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// hub keeps the events of the operation under way and hands them to whoever follows:
// each follower sees all of them in order, however late it came.
type hub struct {
	mu      sync.Mutex
	events  []localapi.Event
	changed chan struct{}
}

func newHub() *hub { return &hub{changed: make(chan struct{})} }

func (h *hub) publish(e localapi.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	close(h.changed)
	h.changed = make(chan struct{})
}

// follow calls fn for every event until it returns an error, the operation ends or ctx does.
func (h *hub) follow(ctx context.Context, fn func(localapi.Event) error) error {
	for next := 0; ; {
		h.mu.Lock()
		events, changed := h.events[next:], h.changed
		h.mu.Unlock()
		for _, e := range events {
			next++
			if err := fn(e); err != nil {
				return err
			}
			if e.State == localapi.EventReady || e.State == localapi.EventFail {
				return nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
