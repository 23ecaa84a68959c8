package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// Planner plans for one cluster, once it is connected.
type Planner struct {
	cluster  atomic.Pointer[ceph.Cluster]
	balancer atomic.Value // string
	balance  atomic.Pointer[balance]
}

// Connected tells the cluster.
func (p *Planner) Connected(c ceph.Cluster) { p.cluster.Store(&c) }

// Rebalance returns a plan for a request, with the state that it was made from. backfills is the most that a wave moves to or from an OSD.
func (p *Planner) Rebalance(ctx context.Context, r *coordinatorv1.PlanRebalanceRequest, backfills int) (plan.Plan, json.RawMessage, error) {
	how := How{Backfills: int(r.GetWaveBackfills()), Bytes: int64(r.GetWaveBytes())}
	if r.GetPreferPairs() {
		how.Prefer = placement.PreferPairs
	}
	o := how.options(backfills)
	cluster, err := p.Cluster()
	if err != nil {
		return plan.Plan{}, nil, err
	}
	dump, err := cluster.Mon(ctx, map[string]any{"prefix": "osd dump"}, nil)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	held, err := isHeld(dump)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	if held {
		return plan.Plan{}, nil, fault.New(fault.Precondition,
			"%s is set: a plan changes the CRUSH map now, or somebody keeps data where it is; let that end, or `ceph osd unset %s`, and plan then", holding, holding)
	}
	now, state, err := Read(ctx, cluster)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	if o.Edits, err = editsOf(now, r.GetChanges()); err != nil {
		return plan.Plan{}, nil, err
	}
	made, err := Plan(now, state, o)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	data, err := json.Marshal(state)
	if err != nil {
		return plan.Plan{}, nil, fmt.Errorf("encode state: %w", err)
	}
	return made, data, nil
}
