// Package uplink joins a node's agent to the coordinators: it tells them the inventory and what was proposed here, takes the work
// that they give this node, and tells them how that goes.
//
// Invariant: nothing is ordered of the agent but under a lease of the coordinators, or by what a leader that a majority confirmed
// has said of a plan; and no step is told to them to be begun or done that is not so in this node's journals. So it may end at any
// point and begin anew.
//
// It must not import what does the steps, nor the coordinators' own packages.
package uplink

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// Agent is whom the orders are for.
type Agent interface {
	Take(ctx context.Context, o agent.Order) (agentapi.Plan, error)
	// Term is the newest that the node has seen.
	Term() (uint64, error)
	// Plans are all that the node has.
	Plans() ([]agentapi.Plan, error)
	// Outdated are proposals that it has taken back.
	Outdated() []plan.ID
	// Changed is closed with the next change of anything.
	Changed() <-chan struct{}
}

var _ Agent = (*agent.Agent)(nil)

// Config is what an uplink works with.
type Config struct {
	Node   string // as the certificate names it
	Client *coordinatorapi.Client
	Agent  Agent
	// Records is the journal of a plan that was approved here; nil if there is none.
	Records func(plan.ID) ([]executor.Record, error)
	// Withdraw forgets a proposal.
	Withdraw func(plan.ID) error
	// State is what the subject of a plan is like now: what the plan's parent is the hash of, if it is fresh.
	State func(context.Context, plan.Plan) (json.RawMessage, error)
	// Inventory is the newest one; Generation 0 is none yet.
	Inventory func() disk.Inventory
	Log       *slog.Logger
}

// Uplink is the joint.
type Uplink struct {
	Config

	boot    string        // of the inventory's generations
	news    chan struct{} // the coordinators have something to tell
	plans   map[plan.ID]*v1.Plan
	bodies  map[plan.ID]plan.Plan
	over    map[plan.ID]string // phases of plans that are begun here and over there; "" for one that they do not know
	told    map[string]string  // states of subjects, by their hashes
	refused map[plan.ID]refusal
	seen    uint64    // the generation of the inventory that subjects were looked at in
	asked   time.Time // when plans were listed last
	work    *work
}

// New makes an uplink; Run does its work.
func New(cfg Config) *Uplink {
	return &Uplink{
		Config: cfg, boot: rand.Text(), news: make(chan struct{}, 1),
		bodies: map[plan.ID]plan.Plan{}, told: map[string]string{}, refused: map[plan.ID]refusal{},
	}
}

const (
	askEvery   = 10 * time.Second // plans are listed without any news
	aliveEvery = time.Minute      // the inventory is told without any change
	patience   = 15 * time.Second // for one answer
	pause      = 500 * time.Millisecond
)

// Run works until ctx ends. That no coordinator answers is no error: what was begun goes on.
func (u *Uplink) Run(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return u.listen(ctx) })
	all.Go(func() error { return u.alive(ctx) })
	all.Go(func() error { return u.turn(ctx) })
	return all.Wait()
}

// turn looks at both sides again and again.
func (u *Uplink) turn(ctx context.Context) error {
	last := ""
	for {
		changed := u.Agent.Changed()
		text := ""
		if err := u.round(ctx); err != nil && ctx.Err() == nil {
			text = err.Error()
			if text != last {
				u.Log.Warn("coordinators", obs.KeyError, err)
			}
		}
		if text == "" && last != "" {
			u.Log.Info("coordinators answer again")
		}
		last = text
		if !wait(ctx, pause) { // changes come in bursts
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-u.news:
			u.asked = time.Time{}
		case <-time.After(askEvery / 2):
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// round brings both sides closer to each other.
func (u *Uplink) round(ctx context.Context) error {
	local, err := u.Agent.Plans()
	if err != nil {
		return err
	}
	errs := []error{u.hand(ctx, local), u.ask(ctx)}
	if errs[1] == nil {
		errs = append(errs, u.look(ctx), u.withdraw(ctx), u.obey(ctx, local), u.begin(ctx, local))
	}
	return errors.Join(append(errs, u.report(ctx))...)
}

// call asks the leader.
func call[T any](ctx context.Context, u *Uplink, do func(context.Context, v1.CoordinatorClient, ...coordinatorapi.CallOption) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return coordinatorapi.Call(ctx, u.Client, do)
}

// alive tells the inventory whenever it has changed, and now and then.
func (u *Uplink) alive(ctx context.Context) error {
	var generation uint64
	var at time.Time
	for {
		changed := u.Agent.Changed()
		if now := u.Inventory(); now.Generation > 0 && (now.Generation != generation || time.Since(at) >= aliveEvery) {
			if err := u.tellInventory(ctx, now); err == nil {
				generation, at = now.Generation, time.Now()
			} else if ctx.Err() == nil {
				u.Log.Debug("inventory is not told", obs.KeyError, err)
			}
		}
		if !wait(ctx, pause) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(askEvery):
		}
	}
}

func (u *Uplink) tellInventory(ctx context.Context, i disk.Inventory) error {
	data, err := json.Marshal(agentapi.Inventory{Generation: i.Generation, Scanned: i.Scanned, Disks: i.Disks})
	if err != nil {
		return err //nolint:wrapcheck // the program's own values
	}
	_, err = call(ctx, u, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.ReportNodeResponse, error) {
		return api.ReportNode(ctx, &v1.ReportNodeRequest{Boot: u.boot, Generation: i.Generation, Inventory: data}, o...)
	})
	return err
}

// listen hears from whichever member leads that plans have changed.
func (u *Uplink) listen(ctx context.Context) error {
	for ctx.Err() == nil {
		for _, address := range u.Client.Addresses(ctx) {
			if err := u.listenAt(ctx, address); err != nil && ctx.Err() == nil {
				u.Log.Debug("coordinator tells no news", "address", address, obs.KeyError, err)
			}
		}
		wait(ctx, pause)
	}
	return nil
}

func (u *Uplink) listenAt(ctx context.Context, address string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	api, err := u.Client.At(address)
	if err != nil {
		return err
	}
	stream, err := api.WatchPlans(ctx, &v1.WatchPlansRequest{})
	for err == nil {
		if _, err = stream.Recv(); err == nil {
			select {
			case u.news <- struct{}{}:
			default:
			}
		}
	}
	return err
}
