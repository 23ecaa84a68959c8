package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// Replanner plans anew where the cluster has changed under a plan.
type Replanner interface {
	// Stale says what a plan was not made for, "" for nothing.
	Stale(ctx context.Context, p plan.Plan) (string, error)
	// Again plans what is left of a plan from a step on, for the cluster as it is, and returns the state that this was made from. nil: there
	// is nothing left to do.
	Again(ctx context.Context, p plan.Plan, from, backfills int) (*plan.Plan, json.RawMessage, error)
}

// staleEvery is how often the cluster is compared with the plan that is at work.
const staleEvery = 5 * time.Second

// renew supersedes plans that the cluster has changed under, once there is no trouble any more. What a person has paused or cancelled waits
// for that person.
func (w *Worker) renew(ctx context.Context) error {
	if w.Replanner == nil {
		return nil
	}
	var held []fsm.Entry
	backfills := usualBackfills
	w.Log.View(func(s *fsm.State) {
		if s.Throttle.Backfills > 0 {
			backfills = s.Throttle.Backfills
		}
		for _, id := range slices.Sorted(maps.Keys(s.Plans)) {
			e := s.Plans[id]
			if e.Held() && e.Phase != fsm.Cancelled && !e.Cancel && e.Worker() == fsm.Coordinator && (e.Pause == nil || e.Pause.By == fsm.Coordinator) {
				held = append(held, fsm.Entry{Plan: e.Plan, Records: slices.Clone(e.Records)})
			}
		}
	})
	for _, e := range held {
		if w.works(e.Plan.ID) {
			continue // it ends by itself
		}
		if err := w.supersede(ctx, e, backfills); err != nil {
			return fmt.Errorf("plan anew for plan %s: %w", e.Plan.ID, err)
		}
	}
	return nil
}

func (w *Worker) supersede(ctx context.Context, e fsm.Entry, backfills int) error {
	why, err := w.Replanner.Stale(ctx, e.Plan)
	if err != nil || why == "" {
		return err
	}
	if w.Trouble != nil {
		if trouble, err := w.Trouble(ctx); err != nil || trouble != "" {
			return err // copies are made anew, or somebody has to help first
		}
	}
	next, state, err := w.Replanner.Again(ctx, e.Plan, e.Status().Step, backfills)
	if err != nil {
		return err
	}
	w.Logger.Info("plan superseded", obs.KeyPlan, e.Plan.ID, "why", why)
	_, err = w.apply(ctx, &fsm.Supersede{Plan: e.Plan.ID, Why: why, State: state, By: next})
	return err
}

// stale reports whether the plan at work was not made for the cluster as it is. Nobody knows: it is not.
func (w *Worker) stale(ctx context.Context, p plan.Plan) bool {
	if w.Replanner == nil {
		return false
	}
	why, err := w.Replanner.Stale(ctx, p)
	if err != nil && ctx.Err() == nil {
		w.Logger.Debug("compare the cluster with the plan", obs.KeyError, err)
	}
	return err == nil && why != ""
}
