package coordinator

import (
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// The rate at which one caller may call: as many at once, and so many a second after that. An agent that reports steps and looks for work
// stays far below it.
const (
	callsAtOnce    = 1000
	callsPerSecond = 500
	// mostCallers bounds what is remembered; a caller that has been quiet for long is forgotten first.
	mostCallers = 4096
)

// limiter bounds how often each caller calls, by a bucket of tokens each.
type limiter struct {
	mu      sync.Mutex
	callers map[string]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// allow takes a token of a caller's. fault.Exhausted: there is none.
func (l *limiter) allow(who string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.callers[who]
	if !ok {
		l.forget(now)
		b = &bucket{tokens: callsAtOnce, at: now}
		l.callers[who] = b
	}
	if gone := now.Sub(b.at).Seconds(); gone > 0 {
		b.tokens, b.at = min(callsAtOnce, b.tokens+gone*callsPerSecond), now
	}
	if b.tokens < 1 {
		return fault.New(fault.Exhausted, "%s calls more than %d times a second: wait a moment", who, callsPerSecond)
	}
	b.tokens--
	return nil
}

// forget makes room for one more caller.
func (l *limiter) forget(now time.Time) {
	if len(l.callers) < mostCallers {
		return
	}
	for who, b := range l.callers {
		if now.Sub(b.at).Seconds()*callsPerSecond >= callsAtOnce { // its bucket is full again
			delete(l.callers, who)
		}
	}
}
