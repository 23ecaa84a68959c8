package rebalance

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Planner plans for one cluster.
type Planner struct{ Cluster ceph.Cluster }

// Rebalance returns a plan with the state that it was made from.
func (p Planner) Rebalance(ctx context.Context, pairs bool, backfills int, bytes storage.Bytes) (plan.Plan, json.RawMessage, error) {
	o := Options{Prefer: placement.PreferBytes, Waves: placement.WaveOptions{Backfills: backfills, Bytes: int64(bytes)}}
	if pairs {
		o.Prefer = placement.PreferPairs
	}
	made, state, err := Plan(ctx, p.Cluster, o)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	data, err := json.Marshal(state)
	if err != nil {
		return plan.Plan{}, nil, fmt.Errorf("encode state: %w", err)
	}
	return made, data, nil
}
