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

// Steps binds the kinds of this package. bounds are asked for before each PG moves.
func Steps(c ceph.Cluster, bounds func() Throttle) executor.Registry {
	waveOf := func(s plan.Step, report func(executor.Progress)) *wave {
		return newWave(c, s.Sync, report, bounds, time.Now)
	}
	return executor.Registry{
		KindWave: func(s plan.Step, report func(executor.Progress)) (executor.Step, error) {
			w := waveOf(s, report)
			if err := json.Unmarshal(s.Args, &w.Wave); err != nil {
				return nil, fault.New(fault.Invalid, "read wave: %w", err)
			}
			return w, nil
		},
		KindReshape: func(s plan.Step, report func(executor.Progress)) (executor.Step, error) {
			var args Reshape
			if err := json.Unmarshal(s.Args, &args); err != nil {
				return nil, fault.New(fault.Invalid, "read change of the CRUSH map: %w", err)
			}
			w := waveOf(s, report)
			w.Wave = args.Wave
			return &reshape{w, args.Edits, args.Before, args.After}, nil
		},
	}
}

// wave does one step.
type wave struct {
	Wave

	cluster ceph.Cluster
	bytes   storage.Bytes
	report  func(executor.Progress)
	now     func() time.Time
	gate    *gate

	since  time.Time // when Do began
	looked time.Time // when the upmaps were found as they should be
	asked  time.Time // whether data may move
	told   executor.Progress

	// sent is what upmaps that are set stand for: before Do began, in all, and of what had come to rest.
	before, sent, rested storage.Bytes
	most                 int64 // misplaced objects, of all looks since then
	still                int   // looks in a row that found all settled since then
}

func newWave(c ceph.Cluster, bytes storage.Bytes, report func(executor.Progress), bounds func() Throttle, now func() time.Time) *wave {
	w := &wave{cluster: c, bytes: bytes, report: report, now: now, since: now(), told: executor.Progress{Total: bytes}}
	w.gate = &gate{wave: w, bounds: bounds, moving: map[int32]int{}}
	return w
}

var _ executor.Step = (*wave)(nil)

// Check refuses where a PG's upmap is neither what the plan saw nor what it wants.
func (w *wave) Check(ctx context.Context) (executor.State, error) {
	set, err := w.set(ctx)
	if err != nil {
		return executor.Todo, err
	}
	if err := w.free(ctx); err != nil {
		return executor.Todo, err
	}
	if set == 0 {
		return executor.Todo, nil
	}
	now, err := ceph.LookAtPGs(ctx, w.cluster)
	if err != nil || set < len(w.Upmaps) || !now.Settled {
		return executor.Begun, err
	}
	return executor.Done, nil
}

// set counts the upmaps that are as the plan wants them. Those of a CRUSH map that places data elsewhere mean something else.
func (w *wave) set(ctx context.Context) (int, error) {
	at, err := w.look(ctx)
	if err != nil {
		return 0, err
	}
	if w.Places != "" && at.places != w.Places {
		return 0, fault.New(fault.Precondition, "the CRUSH map places data otherwise than when the plan was made: somebody else has changed it; plan again")
	}
	n := 0
	for _, u := range w.Upmaps {
		switch now := orEmpty(at.upmaps[u.PG]); {
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
	if err := w.patiently(ctx, func() error { return w.takeOver(ctx) }); err != nil {
		return err
	}
	all, err := upmaps(ctx, w.cluster)
	w.since, w.looked = w.now(), w.now()
	var left []Upmap
	for _, u := range w.Upmaps {
		if err != nil || !slices.Equal(orEmpty(all[u.PG]), u.To) {
			left = append(left, u)
			continue
		}
		w.gate.take(u) // it may move still
		w.before, w.sent = w.before+u.Bytes, w.sent+u.Bytes
	}
	for _, u := range left {
		if err := w.gate.pass(ctx, u); err != nil {
			return err
		}
		if err := w.put(ctx, u, func() error { return w.unchanged(ctx) }); err != nil {
			return err
		}
		w.sent, w.still = w.sent+u.Bytes, 0
		w.again()
	}
	return w.settle(ctx)
}

// again reports what was reported last: who hears nothing for long takes the step for one that is not at work.
func (w *wave) again() { w.report(w.told) }

// unchanged refuses where somebody else has gone on.
func (w *wave) unchanged(ctx context.Context) error {
	_, err := w.set(ctx)
	return err
}

// put gives a PG its upmap. unchanged is asked before if the last look is not fresh: this process may have stood still, and another leader
// gone on.
func (w *wave) put(ctx context.Context, u Upmap, unchanged func() error) error {
	err := w.patiently(ctx, func() error {
		if w.now().Sub(w.looked) > fresh {
			if err := unchanged(); err != nil {
				return err
			}
			w.looked = w.now()
		}
		_, err := w.cluster.Mon(ctx, command(u), nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("set the upmap of PG %s: %w", u.PG, err)
	}
	return nil
}

// touched are the OSDs of a PG's changed pairs.
func touched(u Upmap) (osds []int32) {
	for _, pair := range slices.Concat(u.From, u.To) {
		if slices.Contains(u.From, pair) != slices.Contains(u.To, pair) {
			osds = append(osds, pair[0], pair[1])
		}
	}
	slices.Sort(osds)
	return slices.Compact(osds)
}

// fresh is how long a look at the map may be ago when an upmap is set.
const fresh = time.Second

// patiently tries again what an election may have kept from working, and tells that it does.
func (w *wave) patiently(ctx context.Context, try func() error) error {
	return ceph.Patiently(ctx, w.again, try)
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
	active, err := balancerActive(ctx, w.cluster)
	if err != nil || !active {
		return err
	}
	_, err = w.cluster.Mgr(ctx, map[string]any{"prefix": "balancer off"}, nil)
	return err
}

// calm is how many looks in a row must find the PGs settled: the manager hears of a new map a moment late.
const calm = 3

// settle waits until nothing moves any more, and reports how far it is.
func (w *wave) settle(ctx context.Context) error {
	w.sent, w.still = w.bytes, 0
	return poll.Until(ctx, lookEvery, func() (bool, error) {
		now, err := ceph.LookAtPGs(ctx, w.cluster)
		if err == nil {
			err = w.mayMove(ctx, now)
		}
		if err != nil {
			if ctx.Err() == nil && ceph.Passing(err) {
				w.again()
				return false, nil
			}
			return false, err
		}
		return w.tell(now) && w.gate.spent(w.gate.bounds()), nil
	})
}

// freeEvery is how often it is looked whether data may move, while it is waited for: in a large cluster the answer has megabytes.
const freeEvery = 10 * time.Second

// mayMove refuses where PGs that are not settled may not move, as far as it was looked lately.
func (w *wave) mayMove(ctx context.Context, now ceph.PGs) error {
	if now.Settled || w.now().Sub(w.asked) < freeEvery {
		return nil
	}
	w.asked = w.now()
	return w.free(ctx)
}

// free refuses where data that is only misplaced may not move.
func (w *wave) free(ctx context.Context) error {
	var dump []byte
	err := w.patiently(ctx, func() (err error) {
		dump, err = w.cluster.Mon(ctx, map[string]any{"prefix": "osd dump"}, nil)
		return err
	})
	if err != nil {
		return err
	}
	if held, err := isHeld(dump); err != nil || !held {
		return err
	}
	return fault.New(fault.Precondition, "%s is set, and nothing that is only misplaced moves: `ceph osd unset %s` where nobody needs it any more, then resume the plan", holding, holding)
}

// tell reports how far the wave is: what has come to rest, and of what was sent since then the part that is not misplaced any more. It
// returns whether all has come to rest.
func (w *wave) tell(now ceph.PGs) bool {
	if w.still++; !now.Settled {
		w.still = 0
	}
	if w.still >= calm {
		w.rested, w.most = w.sent, 0
	}
	done := w.rested
	if w.most = max(w.most, now.Misplaced); w.most > 0 && !now.Settled {
		done += storage.Bytes(float64(w.sent-w.rested) * float64(w.most-now.Misplaced) / float64(w.most))
	}
	w.told.Done = max(w.told.Done, done)
	if took := w.now().Sub(w.since).Seconds(); took > 0 {
		w.told.Rate = storage.Bytes(float64(max(0, w.told.Done-w.before)) / took)
	}
	w.again()
	return w.still >= calm
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
