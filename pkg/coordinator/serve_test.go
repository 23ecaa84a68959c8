package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestACallerThatCallsTooOftenIsRefusedAlone(t *testing.T) {
	l, now := limiter{callers: map[string]*bucket{}}, time.Unix(0, 0)
	for i := range callsAtOnce {
		if err := l.allow("agent/n1", now); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if err := l.allow("agent/n1", now); !errors.Is(err, fault.Exhausted) {
		t.Errorf("one more: %v", err)
	}
	if err := l.allow("agent/n2", now); err != nil {
		t.Errorf("another caller: %v", err)
	}
	if err := l.allow("agent/n1", now.Add(time.Second/callsPerSecond)); err != nil {
		t.Errorf("a moment later: %v", err)
	}
	for i := range 2 * mostCallers {
		if err := l.allow(fmt.Sprint("agent/x", i), now.Add(time.Hour+time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.callers) > mostCallers {
		t.Errorf("%d callers are remembered", len(l.callers))
	}
}

func TestPagesHaveAllOnceInOrder(t *testing.T) {
	var all, got []string
	for i := range 25 {
		all = append(all, fmt.Sprintf("p%02d", i))
	}
	name := func(s string) string { return s }
	pages, token := 0, ""
	for {
		part, next := page(all, name, 10, token)
		got, pages = append(got, part...), pages+1
		if token = next; token == "" {
			break
		}
	}
	if pages != 3 || !slices.Equal(got, all) {
		t.Errorf("%d pages: %v", pages, got)
	}
	if part, next := page(all, name, 10, "zz"); len(part) != 0 || next != "" {
		t.Errorf("after the last: %v, %q", part, next)
	}
}
