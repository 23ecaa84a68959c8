package live_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
)

func TestEveryKindOfAStackHasItsBehaviour(t *testing.T) {
	registry := live.New(nil, nil, nil).Registry()
	for _, kind := range []plan.Kind{
		stack.KindLabel, stack.KindDiskGrow, stack.KindRelease, stack.KindPartition, stack.KindPartitionGrow, stack.KindCreate, stack.KindRecover, stack.KindReshape,
		stack.KindReplace, stack.KindDrop, stack.KindWiden, stack.KindProtect, stack.KindPVCreate, stack.KindPVGrow, stack.KindVolumeCreate, stack.KindVolumeGrow,
		stack.KindMakeFS, stack.KindMount, stack.KindGrowFS,
	} {
		build, ok := registry[kind]
		if !ok {
			t.Errorf("%s has none", kind)
			continue
		}
		if _, err := build(plan.Step{Kind: kind, Args: []byte(`{}`)}, nil); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := build(plan.Step{Kind: kind, Args: []byte(`[]`)}, nil); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s takes arguments that are none: %v", kind, err)
		}
	}
}

func TestLatencyIsThatOfTheRequestsSinceTheLastLook(t *testing.T) {
	sys := t.TempDir()
	path := filepath.Join(sys, "class", "block", "dm-0", "stat")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l := &live.Latency{Device: "/dev/dm-0", Sys: sys}
	for _, c := range []struct {
		stat string
		want time.Duration
	}{
		{"", 0}, {"10 0 0 100 10 0 0 300 0 0 0", 0}, {"10 0 0 100 10 0 0 300 0 0 0", 0}, {"15 0 0 150 15 0 0 450 0 0 0", 20 * time.Millisecond}, {"broken", 0},
	} {
		if err := os.WriteFile(path, []byte(c.stat), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := l.Measure(); got != c.want {
			t.Errorf("%q: %s, want %s", c.stat, got, c.want)
		}
	}
}
