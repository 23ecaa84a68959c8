package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// Replanner plans anew where the cluster has changed under a plan.
type Replanner interface {
	// Stale says what a plan was not made for, "" for nothing.
	Stale(ctx context.Context, p plan.Plan) (string, error)
	// Again ends what the plan's run has begun and must not be left so, plans what is left, for the cluster as it is, and returns the state that
	// this was made from. nil: there is nothing left to do. It is for the member that leads, once nobody works on the plan.
	Again(ctx context.Context, p plan.Plan, records []executor.Record, backfills int) (*plan.Plan, json.RawMessage, error)
}

// staleEvery is how often the cluster is compared with the plan that is at work.
const staleEvery = 5 * time.Second

// The pauses before what is left of a plan is planned once more, after that has failed: it takes seconds in a large cluster.
const (
	shortPause = 10 * time.Second
	longPause  = 5 * time.Minute
)

// stuck is a plan that must not go on: the cluster has changed under it, or does not tell, and there is none in its place yet.
type stuck struct {
	stale string // what has changed
	why   string // no plan can be made, "" while nobody has tried
	pause time.Duration
	again time.Time // when it is tried once more
}

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
	known := w.stuck
	w.stuck = map[plan.ID]stuck{}
	var errs []error
	for _, e := range held {
		id := e.Plan.ID
		if w.works(id) {
			continue // it ends by itself
		}
		now, err := w.supersede(ctx, e, backfills, known[id])
		if now != nil {
			w.stuck[id] = *now
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("plan anew for plan %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// supersede puts another plan in the place of one that is stale. was is how that was stuck before; nil: it is not, or not any more.
func (w *Worker) supersede(ctx context.Context, e fsm.Entry, backfills int, was stuck) (*stuck, error) {
	stale, err := w.Replanner.Stale(ctx, e.Plan)
	if err != nil {
		return &was, err
	}
	if stale == "" {
		return nil, nil
	}
	if was.stale != stale {
		was = stuck{stale: stale}
	}
	if time.Now().Before(was.again) {
		return &was, nil
	}
	if w.Trouble != nil {
		if trouble, err := w.Trouble(ctx); err != nil || trouble != "" {
			return &was, err // copies are made anew, or somebody has to help first
		}
	}
	next, state, err := w.Replanner.Again(ctx, e.Plan, e.Records, backfills)
	if err == nil {
		_, err = w.apply(ctx, &fsm.Supersede{Plan: e.Plan.ID, Why: stale, State: state, By: next})
	}
	switch {
	case err == nil:
		w.Logger.Info("plan superseded", obs.KeyPlan, e.Plan.ID, "why", stale)
		return nil, nil
	case !errors.Is(err, fault.Unavailable) && ctx.Err() == nil:
		was.why = fmt.Sprintf("%s, and what is left cannot be planned for that: %v; it is tried again: put that right, or cancel and abandon the plan", stale, err)
	}
	was.pause = min(max(2*was.pause, shortPause), longPause)
	was.again = time.Now().Add(was.pause)
	return &was, err
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
