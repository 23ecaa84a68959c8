package executor_test

import (
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestTheLimitKeepsHours(t *testing.T) {
	for _, c := range []struct {
		limit, hours string
		hour         int
		want         storage.Bytes
	}{
		{"", "", 3, 0}, {"20MB/s", "", 3, 20e6}, {"20MB", "22-6", 23, 0}, {"20MB/s", "22-6", 0, 0}, {"20MB/s", "22-6", 6, 20e6},
		{"20MB/s", "22-6", 21, 20e6}, {"1MiB/s", "1-5", 4, 0}, {"1MiB/s", "1-5", 5, 1 << 20}, {"1MiB/s", "5-5", 5, 1 << 20},
	} {
		throttle, err := executor.ParseThrottle(c.limit, c.hours)
		if err != nil {
			t.Fatal(err)
		}
		if got := throttle.At(time.Date(2026, 1, 2, c.hour, 30, 0, 0, time.UTC)); got != c.want {
			t.Errorf("%s at %d: %d, want %d", throttle, c.hour, got, c.want)
		}
	}
	for _, bad := range [][2]string{{"0", ""}, {"x", ""}, {"1MB", "6"}, {"1MB", "24-6"}, {"1MB", "a-b"}, {"1MB", "-1-3"}} {
		if _, err := executor.ParseThrottle(bad[0], bad[1]); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestCopyingGivesWayToClientsAndComesBack(t *testing.T) {
	y := &executor.Yield{Target: 20 * time.Millisecond, Most: 100 * storage.MiB, Least: 3 * storage.MiB}
	if got := y.Next(0); got != y.Most {
		t.Fatalf("it begins with %s", got)
	}
	for range 10 {
		y.Next(50 * time.Millisecond)
	}
	if got := y.Next(21 * time.Millisecond); got != y.Least {
		t.Errorf("under load: %s", got)
	}
	last := y.Least
	for range 30 {
		got := y.Next(20 * time.Millisecond)
		if got < last {
			t.Fatalf("it falls from %s to %s though nobody waits", last, got)
		}
		last = got
	}
	if last != y.Most {
		t.Errorf("without load: %s", last)
	}
	for _, c := range [][3]storage.Bytes{{0, 0, 0}, {0, 5, 5}, {5, 0, 5}, {5, 3, 3}} {
		if got := executor.Tighter(c[0], c[1]); got != c[2] {
			t.Errorf("%v: %d", c, got)
		}
	}
}
