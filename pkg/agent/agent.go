// Package agent is the process that looks after a node's disks: it keeps their inventory, takes plans, runs those that were
// approved, one at a time, goes on with what an agent before it had begun, and says what is wrong.
//
// Invariant: what is on a disk changes by a plan alone that somebody approved, whose term is not older than the newest one that
// this node has seen. Without being asked the agent starts what such plans have made here (stacks, OSDs) and scrubs arrays.
//
// It must not import a kind of step, nor who gives the orders.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
)

// Worker does what is in plans; machine.Machine is one.
type Worker interface {
	// Run runs what is left of an approved plan and returns when it is done, has stopped, or ctx has ended.
	Run(ctx context.Context, id plan.ID, watch func(executor.Status)) error
	// BringUp starts what the last plan of a stack made. It is no error if it runs.
	BringUp(ctx context.Context, last plan.Plan) error
	// Abandon ends a plan for good and records what it left.
	Abandon(ctx context.Context, id plan.ID, why string) error
}

// Config is what an agent works with.
type Config struct {
	Version, Node, DataDir string
	Ledger                 ledger.Ledger
	Worker                 Worker
	OSDs                   OSDs // nil for a node that is to have none
	// Inventory is the newest one; Generation 0 is none yet.
	Inventory func() disk.Inventory
	// Problems are what others found wrong; nil for none.
	Problems   func() []agentapi.Check
	MetricsURL string
	// Coordinated: coordinators give the orders, and nobody at this machine does.
	Coordinated bool
	// Expires is when the node's certificate ends; nil without one.
	Expires func() time.Time
	Log     *slog.Logger
	Now     func() time.Time
}

// Agent is the agent of a node.
type Agent struct {
	Config

	mu       sync.Mutex
	wake     chan struct{} // closed and made anew when anything changes
	waiting  string        // why nothing runs
	locked   bool          // this process is the one that runs plans
	running  plan.ID
	stop     context.CancelFunc // of the plan that runs
	ended    chan struct{}      // closed when it has
	live     map[plan.ID]executor.Status
	refused  map[plan.ID]error  // plans that could not even be begun
	down     map[string]error   // stacks that could not be brought up
	stuck    string             // why OSDs do not run
	proposed map[plan.ID]bool   // once by this agent: they do not come again
	said     map[string]string  // the newest error about each thing
	growths  map[string]plan.ID // the newest that was offered for each subject
	outdated []plan.ID          // growths in whose place others have come
	orders   sync.Mutex         // one order at a time
	terms    terms
}

// New makes an agent; Run does its work.
func New(cfg Config) *Agent {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Agent{
		Config: cfg, wake: make(chan struct{}), waiting: "it is starting", live: map[plan.ID]executor.Status{}, refused: map[plan.ID]error{}, down: map[string]error{}, proposed: map[plan.ID]bool{}, said: map[string]string{},
		growths: map[string]plan.ID{},
		terms:   terms{book: cfg.Ledger},
	}
}

// lockEvery is how often another process is asked whether it still runs plans.
const lockEvery = time.Second

// Run brings up what there is, then runs approved plans until ctx ends. What runs then is left as it is: the next agent
// goes on with it.
func (a *Agent) Run(ctx context.Context) error {
	unlock, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	a.set(func() { a.locked, a.waiting = true, "" })
	disks := a.Inventory().Generation
	if err := a.bringUp(ctx, false); err != nil {
		return err
	}
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for ctx.Err() == nil {
		changed := a.Changed()
		if now := a.Inventory().Generation; now != disks {
			disks = now
			a.retry(ctx)
		}
		list, err := a.Ledger.List()
		if err != nil {
			return err
		}
		if e, ok := ledger.Next(list, a.isRefused); ok {
			a.run(ctx, e.Plan)
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-retry.C:
			a.retry(ctx)
		}
	}
	return nil
}

// DisksChanged says that there is a new inventory.
func (a *Agent) DisksChanged() { a.set(func() {}) }

// retryEvery is how often it is tried again to bring up stacks that are down, beside each change of the disks: a person may have
// put right what was wrong.
const retryEvery = time.Minute

func (a *Agent) retry(ctx context.Context) {
	if err := a.bringUp(ctx, true); err != nil {
		a.Log.Error("stacks are not brought up again", obs.KeyError, err)
	}
}

// lock waits until no other process runs plans.
func (a *Agent) lock(ctx context.Context) (func(), error) {
	ticker := time.NewTicker(lockEvery)
	defer ticker.Stop()
	for {
		unlock, err := journal.Lock(a.Ledger.Dir)
		if err == nil || !errors.Is(err, fault.Busy) {
			return unlock, err
		}
		a.set(func() { a.waiting = err.Error() })
		select {
		case <-ctx.Done():
			return func() {}, nil
		case <-ticker.C:
		}
	}
}

// bringUp starts all stacks, or those that were down. One that cannot be does not keep the others from it.
func (a *Agent) bringUp(ctx context.Context, again bool) error {
	stacks, err := a.Ledger.LastOfAll()
	if err != nil {
		return err
	}
	for name, last := range stacks {
		before := a.isDown(name)
		if again && before == nil {
			continue
		}
		err := a.Worker.BringUp(ctx, last)
		switch {
		case err == nil && before != nil:
			a.Log.Info("stack has come up", obs.KeyName, name)
		case err != nil && (before == nil || before.Error() != err.Error()):
			a.Log.Error("stack does not come up", obs.KeyName, name, obs.KeyError, err)
		default:
			continue
		}
		a.set(func() { a.down[name] = err })
	}
	return nil
}

func (a *Agent) isDown(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.down[name]
}

// run runs one plan to where it ends or stops.
func (a *Agent) run(ctx context.Context, p plan.Plan) {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	a.set(func() { a.running, a.stop, a.ended = p.ID, stop, ended })
	a.Log.Info("plan runs", obs.KeyPlan, p.ID, obs.KeyName, p.Subject)
	err := a.Worker.Run(ctx, p.ID, a.saw)
	interrupted := ctx.Err() != nil
	stop()
	a.set(func() {
		a.running = ""
		delete(a.live, p.ID)
		if err != nil && !interrupted && !wished(err) {
			a.refused[p.ID] = err
		}
	})
	close(ended)
	switch {
	case err == nil:
		a.Log.Info("plan is done", obs.KeyPlan, p.ID, obs.KeyName, p.Subject)
	case interrupted || wished(err):
		a.Log.Info("plan rests", obs.KeyPlan, p.ID, obs.KeyName, p.Subject)
	default:
		a.Log.Error("plan has stopped", obs.KeyPlan, p.ID, obs.KeyName, p.Subject, obs.KeyError, err)
	}
}

// wished reports whether a run ended because somebody asked for it.
func wished(err error) bool {
	return errors.Is(err, executor.ErrPaused) || errors.Is(err, executor.ErrCancelled)
}

func (a *Agent) saw(s executor.Status) { a.set(func() { a.live[s.Plan] = s }) }

func (a *Agent) isRefused(id plan.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused[id] != nil
}

// set changes the agent and tells those who wait.
func (a *Agent) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	close(a.wake)
	a.wake = make(chan struct{})
}

// Changed is closed at the next change.
func (a *Agent) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wake
}
