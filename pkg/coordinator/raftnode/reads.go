package raftnode

import "sync"

// reads lets many readers share one barrier: an entry of the log that, once committed, proves that this member leads
// and has applied all before it. A reader's barrier always begins after the reader came.
type reads struct {
	mu      sync.Mutex
	waiting *round
	running bool
}

// round is one barrier, for all who came while the one before it was under way.
type round struct {
	done chan struct{}
	err  error
}

// join takes part in the next barrier.
func (r *reads) join(barrier func() error) *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = &round{done: make(chan struct{})}
	}
	if !r.running {
		r.running = true
		go r.run(barrier) // ends when nobody waits; a barrier is answered when raft shuts down, at the latest
	}
	return r.waiting
}

func (r *reads) run(barrier func() error) {
	for {
		r.mu.Lock()
		now := r.waiting
		r.waiting = nil
		if now == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		now.err = barrier()
		close(now.done)
	}
}
