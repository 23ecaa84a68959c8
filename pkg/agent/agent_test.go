package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// worker runs plans whose steps are done as soon as a gate lets them: gate receives for each step.
type worker struct {
	book ledger.Ledger
	gate chan error

	mu      sync.Mutex
	brought []plan.ID
	down    error // why no stack comes up
}

type step struct{ gate chan error }

func (s step) Check(context.Context) (executor.State, error) { return executor.Todo, nil }
func (s step) Verify(context.Context) error                  { return nil }
func (s step) Do(ctx context.Context) error {
	select {
	case err := <-s.gate:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *worker) Run(ctx context.Context, id plan.ID, watch func(executor.Status)) error {
	j, err := w.book.Open(id)
	if err != nil {
		return err
	}
	defer j.Close()
	registry := executor.Registry{}
	for _, s := range j.Plan().Steps {
		registry[s.Kind] = func(plan.Step, func(executor.Progress)) (executor.Step, error) { return step{w.gate}, nil }
	}
	e := executor.Executor{
		Registry: registry, Now: time.Now, Watch: watch, Paused: func() bool { return w.book.Paused(id) }, Cancelled: func() bool { return w.book.Cancelled(id) },
	}
	return e.Run(ctx, j.Plan(), j)
}

func (w *worker) BringUp(_ context.Context, last plan.Plan) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.brought = append(w.brought, last.ID)
	return w.down
}

func (w *worker) Abandon(context.Context, plan.ID, string) error { return errors.New("not here") }

// life is an agent that runs, behind its socket.
type life struct {
	*agent.Agent
	worker *worker
	client *agentapi.Client
	end    func()
}

func begin(t *testing.T, dir string) *life {
	t.Helper()
	book := ledger.Of(dir)
	w := &worker{book: book, gate: make(chan error)}
	a := agent.New(agent.Config{Ledger: book, Worker: w, Inventory: func() disk.Inventory { return disk.Inventory{} }, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	listener, err := server.ListenUnix(ctx, agentapi.Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		if err := a.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	l := &life{a, w, agentapi.NewClient(dir), sync.OnceFunc(func() { cancel(); all.Wait() })}
	t.Cleanup(l.end)
	await(t, "the agent runs plans", func() bool { s, err := l.client.Status(t.Context()); return err == nil && s.Waiting == "" })
	return l
}

// await fails the test if something does not come true at all.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 3000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it never came to be that ", what)
}

func (l *life) phase(t *testing.T, id plan.ID) executor.Phase {
	t.Helper()
	list, err := l.client.Plans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.Plan.ID == id {
			return p.Status.Phase
		}
	}
	return ""
}

// work lets all steps of a plan be done.
func (l *life) work(t *testing.T, p plan.Plan) {
	t.Helper()
	for range p.Steps {
		l.worker.gate <- nil
	}
	await(t, "the plan is done", func() bool { return l.phase(t, p.ID) == executor.Succeeded })
}

func made(t *testing.T, name string) (stack.Stack, plan.Plan) {
	t.Helper()
	s, p, err := stack.New(name, "6a5f3c2e-0000-4000-8000-000000000001", disks(1, 2), layout.Policy{Tolerance: 1, Reserve: storage.GiB}, stack.Volume{FileSystem: "ext4", MountPoint: "/mnt/" + name}, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func disks(from, to int) []layout.Disk {
	var list []layout.Disk
	for i := from; i <= to; i++ {
		list = append(list, layout.Disk{ID: fmt.Sprintf("D%d", i), Size: 8 * storage.GiB})
	}
	return list
}

func grown(t *testing.T, s stack.Stack, disk int) plan.Plan {
	t.Helper()
	_, p, err := s.Grow(layout.Change{Add: disks(disk, disk)}, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOnlyWhatWasApprovedIsRun(t *testing.T) {
	dir := t.TempDir()
	l := begin(t, dir)
	s, p := made(t, "media")
	if got, err := l.client.Propose(t.Context(), p); err != nil || got.Status.Phase != executor.Proposed {
		t.Fatal(got, err)
	}
	for _, token := range []string{"", "D1", string(p.ID), "yes"} {
		if _, err := l.client.Do(t.Context(), p.ID, agentapi.Approve, token); !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), "D1,D2") {
			t.Fatalf("%q: %v", token, err)
		}
	}
	if _, err := l.client.Do(t.Context(), p.ID[:6], agentapi.Approve, "D2,D1"); err != nil {
		t.Fatal(err)
	}
	l.work(t, p)
	one, other := grown(t, s, 3), grown(t, s, 4)
	for _, g := range []plan.Plan{one, other} {
		if _, err := l.client.Propose(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.client.Do(t.Context(), one.ID, agentapi.Approve, "D3"); err != nil {
		t.Fatal(err)
	}
	l.work(t, one)
	if _, err := l.client.Do(t.Context(), other.ID, agentapi.Approve, "D4"); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "disk D3 is part of it") {
		t.Fatalf("a stale plan: %v", err)
	}
	if _, err := l.client.Propose(t.Context(), p); err != nil {
		t.Fatal("it is known already:", err)
	}
	if _, err := l.client.Do(t.Context(), other.ID, agentapi.Cancel, ""); err != nil || l.phase(t, other.ID) != "" {
		t.Fatal("a proposal is forgotten:", err)
	}
	if _, err := l.client.Do(t.Context(), "ffff", agentapi.Pause, ""); !errors.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
}

func TestAnAgentGoesOnWithWhatTheOneBeforeItHadBegun(t *testing.T) {
	dir := t.TempDir()
	l := begin(t, dir)
	_, p := made(t, "media")
	if _, err := l.client.Propose(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := l.client.Do(t.Context(), p.ID, agentapi.Approve, p.Token()); err != nil {
		t.Fatal(err)
	}
	l.worker.gate <- nil
	await(t, "the second step runs", func() bool {
		list, err := l.client.Plans(t.Context())
		return err == nil && list[0].Status.Step == 1
	})
	l.end()
	if _, err := l.client.Status(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}

	l = begin(t, dir)
	await(t, "the stack was brought up", func() bool {
		l.worker.mu.Lock()
		defer l.worker.mu.Unlock()
		return len(l.worker.brought) == 1 && l.worker.brought[0] == p.ID
	})
	if _, err := l.client.Do(t.Context(), p.ID, agentapi.Pause, ""); err != nil {
		t.Fatal(err)
	}
	l.worker.gate <- nil
	await(t, "it is paused", func() bool { return l.phase(t, p.ID) == executor.Held })
	l.end()

	l = begin(t, dir)
	if got := l.phase(t, p.ID); got != executor.Held {
		t.Fatalf("a pause does not outlive the agent: %s", got)
	}
	if _, err := l.client.Do(t.Context(), p.ID, agentapi.Resume, ""); err != nil {
		t.Fatal(err)
	}
	l.worker.gate <- errors.New("the disk has died")
	await(t, "it has stopped", func() bool { return l.phase(t, p.ID) == executor.Failed })
	s, err := l.client.Status(t.Context())
	if err != nil || len(s.Checks) != 1 || s.Checks[0].Code != "HF-PLAN-STOPPED" || !strings.Contains(s.Checks[0].Message, "has died") {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := l.client.Do(t.Context(), p.ID, agentapi.Resume, ""); err != nil {
		t.Fatal(err)
	}
	var last executor.Status
	var watching sync.WaitGroup
	watching.Go(func() { last, err = l.client.Watch(t.Context(), p.ID, func(executor.Status) {}) })
	for range p.Steps[2:] {
		l.worker.gate <- nil
	}
	watching.Wait()
	if err != nil || last.Phase != executor.Succeeded {
		t.Fatalf("%+v, %v", last, err)
	}
}

func TestOrdersOfAnOlderTermAreRefused(t *testing.T) {
	dir := t.TempDir()
	l := begin(t, dir)
	_, p := made(t, "media")
	resume := func(term uint64) error {
		_, err := l.Take(t.Context(), agent.Order{Term: term, Do: agentapi.Resume, Plan: &p})
		if errors.Is(err, fault.Precondition) { // it is not approved; the order was heard
			return nil
		}
		return err
	}
	if err := errors.Join(resume(0), resume(7), resume(7)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, term := range []uint64{0, 6} {
			if err := resume(term); !errors.Is(err, fault.Aborted) {
				t.Errorf("term %d: %v", term, err)
			}
		}
		if _, err := l.client.Do(t.Context(), p.ID, agentapi.Approve, p.Token()); !errors.Is(err, fault.Aborted) || !strings.Contains(err.Error(), "coordinator") {
			t.Errorf("a person beside the coordinator: %v", err)
		}
		l.end() // the next agent knows it, too
		l = begin(t, dir)
	}
	if err := resume(8); err != nil {
		t.Fatal(err)
	}
}
