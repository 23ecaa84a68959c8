package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// osds counts how often they are to be started, and says which disks were busy then.
type osds struct {
	agent.OSDs

	list []agentapi.OSD

	mu    sync.Mutex
	asked int
	busy  []storage.DiskID
}

func (o *osds) List(context.Context) ([]agentapi.OSD, error) { return o.list, nil }

// Plan plans nothing but the growth of an OSD to the size of its disk.
func (o *osds) Plan(_ context.Context, r agentapi.OSDRequest) (plan.Plan, error) {
	i := slices.IndexFunc(o.list, func(one agentapi.OSD) bool { return one.ID == r.ID })
	if o.list[i].Disk == "" {
		return plan.Plan{}, errors.New("its disk has no name")
	}
	return plan.Plan{Subject: fmt.Sprintf("osd %d", r.ID), What: r.Do, After: o.list[i].Size, Steps: []plan.Step{{Kind: "osd-expand", What: "expand"}}}.Seal(-1)
}

func (o *osds) Activate(_ context.Context, busy func(storage.DiskID) bool) ([]int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked, o.busy = o.asked+1, nil
	for _, id := range []storage.DiskID{"D1", "D2", storage.VolumeDisk("hf--media-data")} {
		if busy(id) {
			o.busy = append(o.busy, id)
		}
	}
	return nil, nil
}

func (o *osds) seen() (asked int, busy []storage.DiskID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked, o.busy
}

func TestOSDsAreStartedOnceTheAgentMayRunAndNotBesideABegunPlan(t *testing.T) {
	for name, c := range map[string]struct {
		records []executor.Record
		busy    []storage.DiskID
	}{
		"only approved, and paused":  {nil, nil},
		"cancelled before any step":  {[]executor.Record{{Event: executor.Cancelled}}, nil},
		"stopped before any step":    {[]executor.Record{{Event: executor.Stopped, Error: "no"}}, nil},
		"stopped in the first step":  {[]executor.Record{{Event: executor.StepBegun}, {Event: executor.Stopped, Error: "no"}}, []storage.DiskID{"D1", "D2"}},
		"abandoned, so it is at end": {[]executor.Record{{Event: executor.StepBegun}, {Event: executor.Abandoned, State: []byte("null")}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			book := ledger.Of(t.TempDir())
			_, p := made(t, "media")
			j, err := journal.Create(book.Dir, p)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range c.records {
				err = errors.Join(err, j.Append(r))
			}
			if err := errors.Join(err, j.Close(), journal.Ask(book.Dir, p.ID, journal.WishPause)); err != nil {
				t.Fatal(err)
			}
			if busy := keeps(t, book); !slices.Equal(busy, c.busy) {
				t.Errorf("busy %v, want %v", busy, c.busy)
			}
		})
	}
}

func TestAnOSDOnAStackRunsThroughAllStepsButItsOwn(t *testing.T) {
	s, _, err := stack.New("media", "6a5f3c2e-0000-4000-8000-000000000001", disks(1, 2), layout.Policy{Tolerance: 1, Reserve: storage.GiB}, stack.Volume{OSD: &stack.OSD{}}, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	_, p, err := s.Grow(layout.Change{Add: disks(3, 3)}, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	volume := storage.VolumeDisk("hf--media-data")
	for i, step := range p.Steps {
		for _, stopped := range []bool{false, true} {
			book := ledger.Of(t.TempDir())
			j, err := journal.Create(book.Dir, p)
			if err != nil {
				t.Fatal(err)
			}
			for before := range i {
				err = errors.Join(err, j.Append(executor.Record{Event: executor.StepVerified, Step: before}))
			}
			if err = errors.Join(err, j.Append(executor.Record{Event: executor.StepBegun, Step: i})); stopped {
				err = errors.Join(err, j.Append(executor.Record{Event: executor.Stopped, Step: i}))
			}
			if err := errors.Join(err, j.Close()); err != nil {
				t.Fatal(err)
			}
			if got, want := slices.Contains(keeps(t, book), volume), step.Kind == stack.KindGrowOSD && !stopped; got != want {
				t.Errorf("at %s, stopped %v: left to the plan is %v", step.Kind, stopped, got)
			}
		}
	}
}

func TestForOSDsWhoseDisksHaveGrownAPlanIsProposed(t *testing.T) {
	book := ledger.Of(t.TempDir())
	book.Fresh = func(plan.Plan) error { return nil }
	o := &osds{list: []agentapi.OSD{
		{ID: 0, Keeper: agentapi.KeeperAgent, Used: 4 * storage.GiB, Size: 6 * storage.GiB},
		{ID: 1, Disk: "D1", Keeper: agentapi.KeeperAgent, Used: 4 * storage.GiB, Size: 4*storage.GiB + 4096},
		{ID: 2, Disk: "D2", Keeper: agentapi.KeeperAgent, Used: 4 * storage.GiB, Size: 6 * storage.GiB},
		{ID: 3, Disk: storage.VolumeDisk("hf--bulk-data"), Keeper: agentapi.KeeperAgent, Used: 4 * storage.GiB, Size: 6 * storage.GiB},
		{ID: 4, Disk: "D4", Keeper: agentapi.KeeperSupervisor, Used: 4 * storage.GiB, Size: 6 * storage.GiB},
		{ID: 5, Disk: "D5", Keeper: agentapi.KeeperAgent, Size: 6 * storage.GiB},
	}}
	proposals := func() []ledger.Entry {
		list, err := book.List()
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, size := range []storage.Bytes{6 * storage.GiB, 8 * storage.GiB} { // it grows once more, and the next agent finds that
		o.list[2].Size = size
		a := agent.New(agent.Config{
			Ledger: book, OSDs: o, Worker: &worker{book: book}, Inventory: func() disk.Inventory { return disk.Inventory{Generation: 1} }, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = a.KeepOSDs(ctx) })
		all.Go(func() { _ = a.Run(ctx) })
		await(t, "a plan is proposed", func() bool {
			return slices.ContainsFunc(proposals(), func(e ledger.Entry) bool { return e.Plan.After == size })
		})
		cancel()
		all.Wait()
		if list := proposals(); len(list) != 1 || list[0].Plan.Subject != "osd 2" || list[0].Status.Phase != executor.Proposed {
			t.Errorf("%+v", list)
		}
		if s, err := a.Status(); err != nil || len(s.Proposed) != 1 || s.Proposed[0].What != "grow" || len(s.Checks) > 0 {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

// late is asked to start OSDs while a plan begins.
type late struct {
	agent.OSDs

	begin func()
	busy  chan [2]bool // before and after
}

func (l *late) Activate(ctx context.Context, busy func(storage.DiskID) bool) ([]int, error) {
	before := busy("D1")
	l.begin()
	select {
	case l.busy <- [2]bool{before, busy("D1")}:
	case <-ctx.Done():
	}
	return nil, fault.New(fault.NotFound, "there is no cluster")
}

func (l *late) List(context.Context) ([]agentapi.OSD, error) { return nil, nil }

func TestAnOSDIsNotStartedBesideAPlanThatHasJustBegun(t *testing.T) {
	book := ledger.Of(t.TempDir())
	_, p := made(t, "media")
	j, err := journal.Create(book.Dir, p)
	if err == nil {
		err = journal.Ask(book.Dir, p.ID, journal.WishPause)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := &late{busy: make(chan [2]bool), begin: func() {
		if err := errors.Join(j.Append(executor.Record{Event: executor.StepBegun}), j.Append(executor.Record{Event: executor.Stopped, Error: "no"}), j.Close()); err != nil {
			t.Error(err)
		}
	}}
	a := agent.New(agent.Config{
		Ledger: book, OSDs: l, Worker: &worker{book: book}, Inventory: func() disk.Inventory { return disk.Inventory{} }, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = a.KeepOSDs(ctx) })
	all.Go(func() { _ = a.Run(ctx) })
	if got := <-l.busy; got != [2]bool{false, true} {
		t.Errorf("busy before it began and after: %v", got)
	}
	cancel()
	all.Wait()
}

// keeps has an agent, which first waits for another process to let go of the plans, look after OSDs.
func keeps(t *testing.T, book ledger.Ledger) []storage.DiskID {
	t.Helper()
	unlock, err := journal.Lock(book.Dir)
	if err != nil {
		t.Fatal(err)
	}
	o := &osds{}
	a := agent.New(agent.Config{
		Ledger: book, OSDs: o, Worker: &worker{book: book, gate: make(chan error)}, Inventory: func() disk.Inventory { return disk.Inventory{} }, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = a.KeepOSDs(ctx) })
	all.Go(func() { _ = a.Run(ctx) })
	if n, _ := o.seen(); n > 0 {
		t.Error("they were started while another process runs plans")
	}
	unlock()
	await(t, "OSDs are looked after", func() bool { n, _ := o.seen(); return n > 0 })
	_, busy := o.seen()
	cancel()
	all.Wait()
	return busy
}
