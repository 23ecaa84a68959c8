package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// lookEvery is how often the cluster is asked how far it is.
const lookEvery = time.Second

// Steps binds the kinds of this package.
func Steps(c ceph.Cluster) executor.Registry {
	return executor.Registry{KindWave: func(s plan.Step, report func(executor.Progress)) (executor.Step, error) {
		w := &wave{cluster: c, bytes: s.Sync, report: report, now: time.Now}
		if err := json.Unmarshal(s.Args, &w.Wave); err != nil {
			return nil, fault.New(fault.Invalid, "read wave: %w", err)
		}
		return w, nil
	}}
}

// wave does one step.
type wave struct {
	Wave

	cluster ceph.Cluster
	bytes   storage.Bytes
	report  func(executor.Progress)
	now     func() time.Time
}

var _ executor.Step = (*wave)(nil)

// Check refuses where a PG's upmap is neither what the plan saw nor what it wants.
func (w *wave) Check(ctx context.Context) (executor.State, error) {
	set, err := w.set(ctx)
	if err != nil {
		return executor.Todo, err
	}
	if set == 0 {
		return executor.Todo, nil
	}
	now, err := look(ctx, w.cluster)
	if err != nil || set < len(w.Upmaps) || !now.Settled {
		return executor.Begun, err
	}
	return executor.Done, nil
}

// set counts the upmaps that are as the plan wants them.
func (w *wave) set(ctx context.Context) (int, error) {
	var all map[string][][2]int32
	err := patiently(ctx, func() (err error) {
		all, err = upmaps(ctx, w.cluster)
		return err
	})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, u := range w.Upmaps {
		switch now := orEmpty(all[u.PG]); {
		case slices.Equal(now, u.To):
			n++
		case !slices.Equal(now, u.From):
			return 0, fault.New(fault.Precondition, "the upmap of PG %s is %v: the plan knew it as %v and wants %v; somebody else changes the map: plan again", u.PG, now, u.From, u.To)
		}
	}
	return n, nil
}

// Do sets the upmaps and waits until all PGs are where they belong.
func (w *wave) Do(ctx context.Context) error {
	if err := patiently(ctx, func() error { return w.takeOver(ctx) }); err != nil {
		return err
	}
	looked := w.now()
	for _, u := range w.Upmaps {
		if w.now().Sub(looked) > fresh { // this process may have stood still, and another leader gone on
			if _, err := w.set(ctx); err != nil {
				return err
			}
			looked = w.now()
		}
		err := patiently(ctx, func() error {
			_, err := w.cluster.Mon(ctx, command(u), nil)
			return err
		})
		if err != nil {
			return fmt.Errorf("set the upmap of PG %s: %w", u.PG, err)
		}
	}
	return w.settle(ctx)
}

// fresh is how long a look at the map may be ago when an upmap is set.
const fresh = time.Second

// patience is how long a cluster may take for an election.
const patience = 2 * time.Minute

// patiently tries again what a monitor election, or a manager that is replaced, may have kept from working.
func patiently(ctx context.Context, try func() error) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	err := poll.Until(limited, lookEvery, func() (bool, error) {
		if last = try(); last != nil && !isPassing(last) {
			return false, last
		}
		return last == nil, nil
	})
	if err != nil && ctx.Err() == nil && last != nil {
		return last
	}
	return err
}

// command is the monitor command that gives a PG its upmap.
func command(u Upmap) map[string]any {
	if len(u.To) == 0 {
		return map[string]any{"prefix": "osd rm-pg-upmap-items", "pgid": u.PG}
	}
	ids := make([]int32, 0, 2*len(u.To))
	for _, pair := range u.To {
		ids = append(ids, pair[0], pair[1])
	}
	return map[string]any{"prefix": "osd pg-upmap-items", "pgid": u.PG, "id": ids}
}

// takeOver switches the manager's balancer off: two that move PGs undo each other's work.
func (w *wave) takeOver(ctx context.Context) error {
	data, err := w.cluster.Mgr(ctx, map[string]any{"prefix": "balancer status"}, nil)
	if err != nil {
		return err
	}
	var status struct {
		Active bool `json:"active"`
	}
	if err := json.Unmarshal(data, &status); err != nil {
		return fmt.Errorf("read the balancer's status from %.200q: %w", data, err)
	}
	if !status.Active {
		return nil
	}
	_, err = w.cluster.Mgr(ctx, map[string]any{"prefix": "balancer off"}, nil)
	return err
}

// calm is how many looks in a row must find the PGs settled: the manager hears of a new map a moment late.
const calm = 3

// settle waits until nothing moves any more, and reports how far it is.
func (w *wave) settle(ctx context.Context) error {
	var most int64
	still, since := 0, w.now()
	return poll.Until(ctx, lookEvery, func() (bool, error) {
		now, err := look(ctx, w.cluster)
		if err != nil {
			if ctx.Err() == nil && isPassing(err) {
				return false, nil
			}
			return false, err
		}
		if still++; !now.Settled {
			still = 0
		}
		most = max(most, now.Misplaced)
		w.tell(now, most, since)
		return still >= calm, nil
	})
}

// tell reports the part of the wave's bytes that the misplaced objects which are gone stand for.
func (w *wave) tell(now pgs, most int64, since time.Time) {
	p := executor.Progress{Total: w.bytes}
	if most > 0 {
		p.Done = storage.Bytes(float64(w.bytes) * float64(most-now.Misplaced) / float64(most))
	}
	if took := w.now().Sub(since).Seconds(); took > 0 {
		p.Rate = storage.Bytes(float64(p.Done) / took)
	}
	w.report(p)
}

// Verify finds all upmaps set; Do has waited until the PGs were settled.
func (w *wave) Verify(ctx context.Context) error {
	set, err := w.set(ctx)
	if err != nil {
		return err
	}
	if set < len(w.Upmaps) {
		return fault.New(fault.Precondition, "%d of %d upmaps of the wave are set", set, len(w.Upmaps))
	}
	return nil
}
