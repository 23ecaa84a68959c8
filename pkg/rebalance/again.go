package rebalance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// Stale says what of the OSDs and pools that a plan was made for is not so any more: an OSD that was marked out, a pool with other PGs, a
// CRUSH map that somebody else changed. What has come since does not matter, and upmaps are looked at by each wave.
func (p *Planner) Stale(ctx context.Context, made plan.Plan) (string, error) {
	if made.Subject != Subject {
		return "", nil
	}
	cluster, err := p.Cluster()
	if err != nil {
		return "", err
	}
	var was State
	if err := json.Unmarshal(made.State, &was); err != nil {
		return "", fault.New(fault.Invalid, "read the state of plan %s: %w", made.ID, err)
	}
	now, err := lookAtCrush(ctx, cluster)
	if err != nil {
		return "", err
	}
	osds, pools := namesOf(now.cluster.OSDs)
	for _, each := range []struct {
		what    string
		was, is map[string]string
	}{{"the in-weight of ", was.OSDs, osds}, {"pool ", was.Pools, pools}} {
		for _, name := range slices.Sorted(maps.Keys(each.was)) {
			is, there := each.is[name]
			if !there {
				is = "gone"
			}
			if is != each.was[name] && !idle(made, now.cluster.Crush, name) {
				return fmt.Sprintf("%s%s was %s and is %s", each.what, name, each.was[name], is), nil
			}
		}
	}
	known, err := foreseen(made, now)
	if err == nil && !known {
		return "the CRUSH map is none that the plan knows", nil
	}
	return "", err
}

// idle reports whether a name is that of an OSD that holds no data, nor is to by the plan: one that was released may be purged.
func idle(made plan.Plan, m *crush.Map, name string) bool {
	var id crush.ItemID
	if n, err := fmt.Sscanf(name, "osd.%d", &id); n != 1 || err != nil || weightOf(m, id) > 0 {
		return false
	}
	for _, step := range made.Steps {
		var r Reshape
		if json.Unmarshal(step.Args, &r) != nil || slices.ContainsFunc(r.Edits, func(e Edit) bool { return e.Item == id && e.Weight > 0 }) {
			return false
		}
	}
	return true
}

// foreseen reports whether the CRUSH map is one of those that a plan's steps are for.
func foreseen(made plan.Plan, now crushNow) (bool, error) {
	for _, step := range made.Steps {
		var of struct {
			Places string `json:"places"`
			Before string `json:"crush_before"`
			After  string `json:"crush_after"`
		}
		if err := json.Unmarshal(step.Args, &of); err != nil {
			return false, fault.New(fault.Invalid, "read step of plan %s: %w", made.ID, err)
		}
		if of.Places == now.places || of.Before == now.hash || of.After == now.hash {
			return true, nil
		}
	}
	return false, nil
}

// Again plans what is left of a plan: the changes of its steps that are not verified, and balance. A change of the CRUSH map that was begun
// is ended first, as nothing moves while it is. nil: there is nothing to do.
func (p *Planner) Again(ctx context.Context, made plan.Plan, records []executor.Record, backfills int) (*plan.Plan, json.RawMessage, error) {
	cluster, err := p.Cluster()
	if err != nil {
		return nil, nil, err
	}
	from, begun := executor.Reached(records)
	if begun {
		if err := finish(ctx, cluster, made.Steps[from]); err != nil {
			return nil, nil, err
		}
	}
	var o Options
	for i, step := range made.Steps[from:] {
		var r Reshape // or a wave, which has no edits
		if err := json.Unmarshal(step.Args, &r); err != nil {
			return nil, nil, fault.New(fault.Invalid, "read step of plan %s: %w", made.ID, err)
		}
		if i == 0 {
			o = r.How.options(backfills)
		}
		o.Edits = append(o.Edits, r.Edits...)
	}
	now, state, err := Read(ctx, cluster)
	if err != nil {
		return nil, nil, err
	}
	data, err := json.Marshal(state)
	if err != nil {
		return nil, nil, fmt.Errorf("encode state: %w", err)
	}
	next, err := Plan(now, state, o)
	if errors.Is(err, ErrNothing) {
		return nil, data, nil
	}
	return &next, data, err
}

// Cluster is the one that is connected. fault.Unavailable: none is yet.
func (p *Planner) Cluster() (ceph.Cluster, error) {
	cluster := p.cluster.Load()
	if cluster == nil {
		return nil, fault.New(fault.Unavailable, "the Ceph cluster has not answered yet: the coordinator's log says why")
	}
	return *cluster, nil
}

// balancerEvery is how often the manager's balancer is looked at.
const balancerEvery = 10 * time.Second

// Guard keeps the manager's balancer off while leads says so, until ctx ends: two that move PGs undo each other's work.
func (p *Planner) Guard(ctx context.Context, leads func() bool) {
	for {
		again := lookEvery
		if cluster, err := p.Cluster(); err == nil {
			again = balancerEvery
			p.balancer.Store(balancerState(ctx, cluster, leads()))
			if leads() {
				p.weigh(ctx, cluster)
			} else {
				p.balance.Store(nil) // another looks now
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

// balance is how even a cluster is.
type balance struct {
	usable, bound float64
	known         bool
	at            time.Time // it was looked at, or tried to
}

// balanceEvery is how often the balance is looked at: in a large cluster it takes seconds.
const balanceEvery = 10 * time.Minute

// weigh looks at the balance, now and then.
func (p *Planner) weigh(ctx context.Context, c ceph.Cluster) {
	if last := p.balance.Load(); last != nil && time.Since(last.at) < balanceEvery {
		return
	}
	now, _, err := Read(ctx, c)
	if err != nil {
		return // it is not known then
	}
	found := &balance{at: time.Now()}
	if b, err := placement.PlanBalance(now, placement.BalanceOptions{}); err == nil {
		found.usable, found.bound, found.known = b.UsableBefore, b.Bound, true
	}
	p.balance.Store(found)
}

// Balance is which part of the raw space can be filled, and could be at best, from 0 to 1, and when the leader looked at it last: the zero
// time for never.
func (p *Planner) Balance() (usable, bound float64, at time.Time) {
	if b := p.balance.Load(); b != nil && b.known {
		return b.usable, b.bound, b.at
	}
	return 0, 0, time.Time{}
}

// balancerState is "on", "off", or "" where the manager does not tell.
func balancerState(ctx context.Context, c ceph.Cluster, own bool) string {
	active, err := balancerActive(ctx, c)
	if err == nil && active && own {
		if _, err = c.Mgr(ctx, map[string]any{"prefix": "balancer off"}, nil); err == nil {
			active, err = balancerActive(ctx, c)
		}
	}
	switch {
	case err != nil:
		return ""
	case active:
		return "on"
	default:
		return "off"
	}
}

func balancerActive(ctx context.Context, c ceph.Cluster) (bool, error) {
	data, err := c.Mgr(ctx, map[string]any{"prefix": "balancer status"}, nil)
	if err != nil {
		return false, err
	}
	var status struct {
		Active bool `json:"active"`
	}
	if err := json.Unmarshal(data, &status); err != nil {
		return false, fmt.Errorf("read the balancer's status from %.200q: %w", data, err)
	}
	return status.Active, nil
}

// Balancer is how the manager's balancer was found last: "on", "off", or "" where that is not known.
func (p *Planner) Balancer() string {
	state, _ := p.balancer.Load().(string)
	return state
}
