package live

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const uuid = "11111111-2222-3333-4444-555555555555"

// fakeArray is a step on an array of a fake /sys that does what action says, with a limit of 10 MiB/s, and reads an
// attribute of that array.
func fakeArray(t *testing.T, action string) (*array, func(name string) string) {
	t.Helper()
	sys := t.TempDir()
	dir := filepath.Join(sys, "block", "md127", "md")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"uuid": uuid, "level": "raid5", "sync_action": action, "sync_speed_min": "1", "sync_speed_max": "10240"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := &Machine{MD: md.Tool{Sys: sys}, Interval: time.Millisecond, Limit: func() storage.Bytes { return 10 * storage.MiB }}
	s := &array{Machine: m, args: stack.ArrayArgs{After: stack.Array{UUID: uuid}}}
	return s, func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
}

func TestTheLimitEndsWithTheWait(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	never := errors.New("never")
	for name, c := range map[string]struct {
		ctx    context.Context
		action string
		done   error
		want   error
	}{
		"done":                  {t.Context(), "idle", nil, nil},
		"cancelled in a resync": {cancelled, "resync", nil, context.Canceled},
		"it does not come":      {t.Context(), "idle", never, never},
	} {
		s, read := fakeArray(t, c.action)
		if err := s.settle(c.ctx, func(md.Array) error { return c.done }); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if low, high := read("sync_speed_min"), read("sync_speed_max"); low != "system" || high != "system" {
			t.Errorf("%s: the limits are %s and %s", name, low, high)
		}
	}
}

func TestAScrubGivesWayToAStepAndToNothingElse(t *testing.T) {
	s, read := fakeArray(t, "check")
	if err := s.settle(t.Context(), func(md.Array) error { return nil }); err != nil || read("sync_action") != "check" {
		t.Errorf("%v, %s", err, read("sync_action"))
	}
	if err := s.rest(t.Context()); err != nil || read("sync_action") != "idle" {
		t.Errorf("%v, %s", err, read("sync_action"))
	}
}

func TestAPauseHoldsWhatMovesAndNothingElse(t *testing.T) {
	for action, want := range map[string]string{"resync": "1", "idle": "system"} {
		s, read := fakeArray(t, action)
		s.Limit = func() storage.Bytes { return Standstill }
		all := stack.Stack{Arrays: []stack.Array{{UUID: "99999999-2222-3333-4444-555555555555"}, s.args.After}}
		if err := s.Bound(all); err != nil || read("sync_speed_max") != "1" {
			t.Errorf("%s: %v, bound %s", action, err, read("sync_speed_max"))
		}
		if err := s.Lift(all); err != nil || read("sync_speed_max") != want {
			t.Errorf("%s: %v, lifted to %s", action, err, read("sync_speed_max"))
		}
		s.Limit = func() storage.Bytes { return 0 }
		if err := s.Bound(all); err != nil || read("sync_speed_max") != "system" || read("sync_speed_min") != "system" {
			t.Errorf("%s: %v, resumed %s", action, err, read("sync_speed_max"))
		}
	}
}

func TestAStepThatEndsUnderAPauseLeavesNoLimit(t *testing.T) {
	s, read := fakeArray(t, "idle")
	s.Limit = func() storage.Bytes { return Standstill }
	if err := errors.Join(s.Bound(stack.Stack{Arrays: []stack.Array{s.args.After}}), s.settle(t.Context(), func(md.Array) error { return nil })); err != nil || read("sync_speed_max") != "system" {
		t.Errorf("%v, %s", err, read("sync_speed_max"))
	}
}

func TestWhatAPauseSlowsIsSaid(t *testing.T) {
	s, _ := fakeArray(t, "reshape")
	if _, err := s.Reached(t.Context(), s.args); !errors.Is(err, fault.Busy) || strings.Contains(err.Error(), "resume") {
		t.Error(err)
	}
	s.Limit = func() storage.Bytes { return Standstill }
	if _, err := s.Reached(t.Context(), s.args); !errors.Is(err, fault.Busy) || !strings.Contains(err.Error(), "resume the plan first") {
		t.Error(err)
	}
}
