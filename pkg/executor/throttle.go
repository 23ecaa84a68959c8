package executor

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Throttle bounds how fast a step may copy, outside of the hours in which nobody minds.
type Throttle struct {
	Limit storage.Bytes // a second; 0 for none
	// Free are the hours without a limit, from the one to before the other, over midnight if From > To; equal for none.
	From, To int
}

// ParseThrottle reads a limit such as "20MB/s" and hours such as "22-6"; both may be empty.
func ParseThrottle(limit, hours string) (Throttle, error) {
	var t Throttle
	if limit != "" {
		n, err := storage.ParseBytes(strings.TrimSuffix(limit, "/s"))
		if err != nil || n <= 0 {
			return t, fault.New(fault.Invalid, "limit %q: want bytes a second such as 20MB/s", limit)
		}
		t.Limit = n
	}
	if hours == "" {
		return t, nil
	}
	from, to, ok := strings.Cut(hours, "-")
	var err1, err2 error
	t.From, err1 = strconv.Atoi(from)
	t.To, err2 = strconv.Atoi(to)
	if !ok || err1 != nil || err2 != nil || t.From < 0 || t.From > 23 || t.To < 0 || t.To > 23 {
		return Throttle{}, fault.New(fault.Invalid, "hours %q: want two hours of the day such as 22-6", hours)
	}
	return t, nil
}

// At is the bound at a time of its own time zone, in bytes a second; 0 for none.
func (t Throttle) At(now time.Time) storage.Bytes {
	h := now.Hour()
	free := t.From < t.To && h >= t.From && h < t.To || t.From > t.To && (h >= t.From || h < t.To)
	if free {
		return 0
	}
	return t.Limit
}

// String says it to a person.
func (t Throttle) String() string {
	switch {
	case t.Limit == 0:
		return "no limit"
	case t.From == t.To:
		return fmt.Sprintf("%s/s", t.Limit)
	default:
		return fmt.Sprintf("%s/s, none from %d to %d o'clock", t.Limit, t.From, t.To)
	}
}
