package executor

import (
	"time"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Yield makes copying give way to clients: while their requests take longer than Target the bound is halved at each look, and
// else it grows by a twentieth of Most. So it falls within seconds and comes back within half a minute.
type Yield struct {
	Target time.Duration
	// Most and Least are the ends of the bound, in bytes a second. A plan must come to its end, so Least is above 0.
	Most, Least storage.Bytes

	bound storage.Bytes
}

// Next is the bound after a look at the clients, in bytes a second. A latency of 0 says that they asked for nothing.
func (y *Yield) Next(latency time.Duration) storage.Bytes {
	switch {
	case y.bound == 0:
		y.bound = y.Most
	case latency > y.Target:
		y.bound = max(y.Least, y.bound/2)
	default:
		y.bound = min(y.Most, y.bound+y.Most/20)
	}
	return y.bound
}

// Tighter is the lower of two bounds, of which 0 is none.
func Tighter(a, b storage.Bytes) storage.Bytes {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}
