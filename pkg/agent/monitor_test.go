package agent_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/smart"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestADiskThatHangsDoesNotKeepArraysFromBeingLookedAt(t *testing.T) {
	var looks atomic.Int64
	hangs := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	m := &agent.Monitor{
		Ledger: ledger.Of(t.TempDir()), Log: slog.New(slog.DiscardHandler), Now: time.Now, Every: time.Millisecond, HealthEvery: time.Hour,
		Inventory: func() disk.Inventory { return disk.Inventory{Generation: 1, Disks: []storage.Disk{{ID: "D1"}}} },
		Arrays:    func() ([]md.Array, error) { looks.Add(1); return nil, nil },
		Health: func(ctx context.Context, _ string) (smart.Health, error) {
			close(hangs)
			<-ctx.Done()
			return smart.Health{}, ctx.Err()
		},
	}
	ended := make(chan struct{})
	go func() { _ = m.Run(ctx); close(ended) }()
	<-hangs
	then := looks.Load()
	await(t, "arrays are looked at", func() bool { return looks.Load() > then+2 })
	cancel()
	<-ended
}

func TestAScrubThatDoesNotBeginStaysDueAndHoldsNoOtherUp(t *testing.T) {
	book := ledger.Of(t.TempDir())
	one, p := made(t, "media")
	other, q, err := stack.New("music", "6a5f3c2e-0000-4000-8000-000000000002", disks(3, 4), layout.Policy{Tolerance: 1, Reserve: storage.GiB}, stack.Volume{FileSystem: "ext4", MountPoint: "/mnt/music"}, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	record(t, book, p)
	record(t, book, q)
	now := time.Unix(1e9, 0)
	var tried []string
	refused := one.Arrays[0].UUID
	m := &agent.Monitor{
		Ledger: book, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }, ScrubEvery: 24 * time.Hour,
		Inventory: func() disk.Inventory { return disk.Inventory{Generation: 1} },
		Arrays: func() ([]md.Array, error) {
			return []md.Array{{UUID: one.Arrays[0].UUID, Action: "idle"}, {UUID: other.Arrays[0].UUID, Action: "idle"}}, nil
		},
		Scrub: func(a md.Array) error {
			tried = append(tried, a.UUID)
			if a.UUID == refused {
				return errors.New("read-only")
			}
			return nil
		},
	}
	m.Look(t.Context()) // the time begins
	now = now.Add(25 * time.Hour)
	m.Look(t.Context())
	m.Look(t.Context())
	refused = ""
	m.Look(t.Context())
	m.Look(t.Context())
	a, b := one.Arrays[0].UUID, other.Arrays[0].UUID
	if want := []string{a, b, a, a}; !slices.Equal(tried, want) {
		t.Errorf("tried %v, want %v", tried, want)
	}
}
