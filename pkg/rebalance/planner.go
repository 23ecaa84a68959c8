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
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Planner plans for one cluster, once it is connected.
type Planner struct{ cluster atomic.Pointer[ceph.Cluster] }

// Connected tells the cluster.
func (p *Planner) Connected(c ceph.Cluster) { p.cluster.Store(&c) }

// Rebalance returns a plan with the state that it was made from.
func (p *Planner) Rebalance(ctx context.Context, pairs bool, backfills int, bytes storage.Bytes) (plan.Plan, json.RawMessage, error) {
	o := Options{Prefer: placement.PreferBytes, Waves: placement.WaveOptions{Backfills: backfills, Bytes: int64(bytes)}}
	if pairs {
		o.Prefer = placement.PreferPairs
	}
	cluster := p.cluster.Load()
	if cluster == nil {
		return plan.Plan{}, nil, fault.New(fault.Unavailable, "the Ceph cluster has not answered yet: the coordinator's log says why")
	}
	made, state, err := Plan(ctx, *cluster, o)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	data, err := json.Marshal(state)
	if err != nil {
		return plan.Plan{}, nil, fmt.Errorf("encode state: %w", err)
	}
	return made, data, nil
}
