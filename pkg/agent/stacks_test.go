package agent_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
)

func TestAStackThatDidNotComeUpComesUpWithItsDisk(t *testing.T) {
	dir := t.TempDir()
	book := ledger.Of(dir)
	_, p := made(t, "media")
	record(t, book, p)
	w := &worker{book: book, gate: make(chan error), down: errors.New("disk D2 is not there")}
	var generation atomic.Uint64
	a := agent.New(agent.Config{Ledger: book, Worker: w, Inventory: func() disk.Inventory { return disk.Inventory{Generation: generation.Load()} }, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	listener, err := server.ListenUnix(ctx, agentapi.Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { _ = a.Run(ctx) })
	all.Go(func() { _ = a.Serve(ctx, listener) })
	checks := func() int {
		s, err := agentapi.NewClient(dir).Status(t.Context())
		if err != nil || s.Waiting != "" {
			return -1
		}
		return len(s.Checks)
	}
	await(t, "the stack is said to be down", func() bool { return checks() == 1 })
	w.mu.Lock()
	w.down = nil
	w.mu.Unlock()
	generation.Add(1)
	a.DisksChanged()
	await(t, "it is up", func() bool { return checks() == 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.brought) != 2 {
		t.Errorf("it was brought up %d times", len(w.brought))
	}
}
