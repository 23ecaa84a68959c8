package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// KindWave is the kind of the steps.
const KindWave plan.Kind = "upmap-wave"

// Wave is what one step does.
type Wave struct {
	Upmaps []Upmap `json:"upmaps"`
	Moves  int64   `json:"moves"` // of shards
}

// Upmap is a PG's pg_upmap_items before and after; none is an empty list.
type Upmap struct {
	PG   string     `json:"pg"`
	From [][2]int32 `json:"from"`
	To   [][2]int32 `json:"to"`
}

// Options say how a cluster is to be balanced.
type Options struct {
	Prefer placement.Prefer
	Waves  placement.WaveOptions
	// Rate is what the cluster moves in a second, for the forecast; 0: 100 MiB.
	Rate storage.Bytes
}

// usualRate is the rate that forecasts are made with before anything was measured.
const usualRate = 100 << 20

// Plan plans to balance the cluster as it is now. The state that it was made from is the second value. fault.Precondition:
// there is nothing to do.
func Plan(ctx context.Context, c ceph.Cluster, o Options) (plan.Plan, State, error) {
	now, state, err := Read(ctx, c)
	if err != nil {
		return plan.Plan{}, State{}, err
	}
	path, err := now.Edit("").Path()
	if err != nil {
		return plan.Plan{}, State{}, err
	}
	change, err := placement.PlanChange(path.Before, path.After, o.Prefer)
	if err != nil {
		return plan.Plan{}, State{}, err
	}
	waves, err := placement.PlanWaves(path, change, o.Waves)
	if err != nil {
		return plan.Plan{}, State{}, err
	}
	p, err := planOf(waves, state, o)
	return p, state, err
}

func planOf(waves *placement.Waves, state State, o Options) (plan.Plan, error) {
	parent, err := plan.Hash(state)
	if err != nil {
		return plan.Plan{}, err
	}
	rate := o.Rate
	if rate == 0 {
		rate = usualRate
	}
	p := plan.Plan{Parent: parent, Subject: Subject, What: "balance the pools over the OSDs"}
	after := state
	after.Upmaps = maps.Clone(state.Upmaps)
	for i, s := range waves.Steps {
		if len(s.Change) > 0 {
			return plan.Plan{}, fault.New(fault.Unsupported, "the plan asks for changes that are not upmaps: %v", s.Change)
		}
		w := Wave{Moves: s.Moves}
		for _, u := range s.Upmaps {
			pg, to := u.PG.String(), plain(u.Pairs)
			from := after.Upmaps[pg]
			w.Upmaps = append(w.Upmaps, Upmap{PG: pg, From: orEmpty(from), To: to})
			if after.Upmaps[pg] = to; len(to) == 0 {
				delete(after.Upmaps, pg)
			}
		}
		if len(w.Upmaps) == 0 {
			continue
		}
		args, err := json.Marshal(w)
		if err != nil {
			return plan.Plan{}, fmt.Errorf("encode wave: %w", err)
		}
		bytes := storage.Bytes(s.Bytes)
		p.Steps = append(p.Steps, plan.Step{
			Kind: KindWave, What: fmt.Sprintf("wave %d of %d: %d PGs get other OSDs, %s move", i+1, len(waves.Steps), len(w.Upmaps), bytes), Executor: "coordinator",
			Requires: []string{"their upmaps are as they were planned from"}, Sync: bytes, Passes: 1, Redundancy: 1, Forecast: int64((bytes + rate - 1) / rate), Args: args,
		})
	}
	if len(p.Steps) == 0 {
		return plan.Plan{}, fault.New(fault.Precondition, "nothing to do: the pools are as balanced as the rules allow")
	}
	if waves.HeldBack > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d PGs stay where they are: no order of moves keeps the OSDs below the backfillfull ratio", waves.HeldBack))
	}
	if p.State, err = json.Marshal(after); err != nil {
		return plan.Plan{}, fmt.Errorf("encode state: %w", err)
	}
	return p.Seal(1)
}

func orEmpty(pairs [][2]int32) [][2]int32 {
	if pairs == nil {
		return [][2]int32{}
	}
	return pairs
}
