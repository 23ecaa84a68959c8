package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// Worker does the steps that are for the coordinator, on the member that leads.
type Worker struct {
	Log      Log
	Registry executor.Registry
	// Trouble is why no further step may begin now, "" for nothing. nil: nobody looks.
	Trouble func(context.Context) (string, error)
	// Replanner is nil where plans are not made here.
	Replanner Replanner
	Logger    *slog.Logger

	mu      sync.Mutex
	running map[plan.ID]bool
	runs    sync.WaitGroup
}

const (
	leaseFor  = time.Minute
	lookAgain = time.Second // at plans and at the cluster's health, when nothing changes
	answerIn  = 10 * time.Second
)

// Run works until ctx ends.
func (w *Worker) Run(ctx context.Context) error {
	w.running = map[plan.ID]bool{}
	defer w.runs.Wait()
	for {
		changed := w.Log.Changed()
		if term, leads := w.Log.Leads(); leads {
			if err := w.lead(ctx, term); err != nil && ctx.Err() == nil {
				w.Logger.Warn("work of the coordinator", obs.KeyError, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(lookAgain):
		}
		select { // a change a second is enough
		case <-ctx.Done():
			return nil
		case <-time.After(lookAgain / 4):
		}
	}
}

// lead looks after the plans as the leader of a term, and begins to work on those that may run: plans of different subjects beside each
// other.
func (w *Worker) lead(ctx context.Context, term uint64) error {
	if err := errors.Join(w.renew(ctx), w.guard(ctx), w.bury(ctx)); err != nil {
		return err
	}
	for _, p := range w.next() {
		w.runs.Go(func() {
			defer w.take(p.ID, false)
			if err := w.work(ctx, term, p); err != nil && ctx.Err() == nil {
				w.Logger.Warn("work of the coordinator", obs.KeyPlan, p.ID, obs.KeyError, err)
			}
		})
	}
	return nil
}

// take notes that a plan is at work here, or is not any more.
func (w *Worker) take(id plan.ID, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if on {
		w.running[id] = true
	} else {
		delete(w.running, id)
	}
}

func (w *Worker) works(id plan.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running[id]
}

// work does a plan's steps as long as this member leads that term and the cluster is the one that the plan was made for.
func (w *Worker) work(ctx context.Context, term uint64, p plan.Plan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		w.watch(ctx, cancel, term, p)
	}()
	err := w.run(ctx, p.ID)
	cancel()
	<-watched
	return err
}

// watch ends the work when this member leads that term no more, or the cluster is not the one that the plan was made for.
func (w *Worker) watch(ctx context.Context, cancel context.CancelFunc, term uint64, p plan.Plan) {
	ticker, compare := time.NewTicker(lookAgain), time.NewTicker(staleEvery)
	defer ticker.Stop()
	defer compare.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if now, leads := w.Log.Leads(); !leads || now != term {
				cancel()
				return
			}
		case <-compare.C:
			if w.stale(ctx, p) {
				cancel()
				return
			}
		}
	}
}

// next are the plans whose next step is for the coordinator and may begin, and that nobody works on here. They count as at work then.
func (w *Worker) next() (list []plan.Plan) {
	w.Log.View(func(s *fsm.State) {
		for _, each := range slices.Sorted(maps.Keys(s.Plans)) {
			e := s.Plans[each]
			if (e.Phase == fsm.Approved || e.Phase == fsm.Running) && e.Pause == nil && !e.Cancel && e.Worker() == fsm.Coordinator && !w.works(each) {
				list = append(list, e.Plan)
			}
		}
	})
	for _, p := range list {
		w.take(p.ID, true)
	}
	return list
}

// bury ends plans that were to be cancelled by a worker that has died since.
func (w *Worker) bury(ctx context.Context) error {
	var ids []plan.ID
	w.Log.View(func(s *fsm.State) {
		for _, id := range slices.Sorted(maps.Keys(s.Plans)) {
			if e := s.Plans[id]; e.Cancel && e.Lease != nil && !e.Lease.Until.After(time.Now()) {
				ids = append(ids, id)
			}
		}
	})
	for _, id := range ids {
		if _, err := w.apply(ctx, &fsm.Cancel{Plan: id}); err != nil {
			return err
		}
	}
	return nil
}

// guard pauses the coordinator's plans while there is trouble, and lets those go on that it paused.
func (w *Worker) guard(ctx context.Context) error {
	if w.Trouble == nil {
		return nil
	}
	var held, paused []plan.ID
	w.Log.View(func(s *fsm.State) {
		for _, id := range slices.Sorted(maps.Keys(s.Plans)) {
			switch e := s.Plans[id]; {
			case !e.Held() || e.Worker() != fsm.Coordinator || e.Phase == fsm.Stopped || e.Phase == fsm.Cancelled:
			case e.Pause == nil:
				held = append(held, id)
			case e.Pause.By == fsm.Coordinator:
				paused = append(paused, id)
			}
		}
	})
	if len(held)+len(paused) == 0 {
		return nil
	}
	why, err := w.Trouble(ctx)
	if err != nil {
		why = "the cluster does not tell how it is: " + err.Error()
	}
	change := func(ids []plan.ID, body func(plan.ID) fsm.Body) error {
		for _, id := range ids {
			if _, err := w.apply(ctx, body(id)); err != nil {
				return err
			}
		}
		return nil
	}
	if why != "" {
		return change(held, func(id plan.ID) fsm.Body { return &fsm.PausePlan{Plan: id, Why: why} })
	}
	return change(paused, func(id plan.ID) fsm.Body { return &fsm.Resume{Plan: id, PausedBy: fsm.Coordinator} })
}

func (w *Worker) apply(ctx context.Context, b fsm.Body) (fsm.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	a, err := w.Log.Apply(ctx, fsm.NewCommand(fsm.Coordinator, "", time.Now(), b))
	if err != nil {
		return a, err
	}
	return a, a.Err()
}

// run does the steps of a plan that are for the coordinator, from where it is.
func (w *Worker) run(ctx context.Context, id plan.ID) error {
	a, err := w.apply(ctx, &fsm.TakeLease{Plan: id, Holder: fsm.Coordinator, For: leaseFor})
	if err != nil {
		return err
	}
	var work fsm.Work
	if err := a.Read(&work); err != nil {
		return err
	}
	j := &logJournal{worker: w, ctx: ctx, work: work}
	e := executor.Executor{Registry: w.Registry, Now: time.Now, Paused: j.rests}
	err = e.Run(ctx, work.Plan, j)
	if errors.Is(err, executor.ErrPaused) {
		return nil
	}
	if errors.Is(err, fault.Unsupported) && !j.rest { // it could not even be begun: no record tells that
		at, _ := executor.Reached(work.Records)
		err = errors.Join(err, j.Append(executor.Record{Event: executor.Stopped, Step: at, Error: err.Error()}))
	}
	if err != nil {
		return fmt.Errorf("plan %s: %w", id, err)
	}
	return nil
}

// logJournal is a plan's journal in the coordinators' log.
type logJournal struct {
	worker *Worker
	ctx    context.Context //nolint:containedctx // the journal lives as long as the run
	work   fsm.Work
	rest   bool // no further step may be begun here
}

var _ executor.Journal = (*logJournal)(nil)

// Records are those that the log had when the work was taken.
func (j *logJournal) Records() []executor.Record { return j.work.Records }

// rests reports whether somebody wants no further step, or the next one is another's.
func (j *logJournal) rests() bool { return j.rest }

// Append commits a record. What the log concludes from others (that a plan is complete, paused or cancelled) is not told to it.
func (j *logJournal) Append(r executor.Record) error {
	switch r.Event {
	case executor.StepBegun, executor.StepProgress, executor.StepDone, executor.StepVerified, executor.Stopped:
	default:
		return nil
	}
	a, err := j.worker.apply(j.ctx, &fsm.ReportStep{Plan: j.work.Plan.ID, Holder: fsm.Coordinator, Term: j.work.Lease.Term, Record: r, For: leaseFor})
	if err != nil {
		return err
	}
	var o fsm.Orders
	if err := a.Read(&o); err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	j.rest = o.Lease == nil || o.Rest != ""
	if o.Lease == nil && r.Event != executor.StepVerified && r.Event != executor.Stopped {
		return fault.New(fault.Aborted, "the work on plan %s was taken away", j.work.Plan.ID)
	}
	return nil
}
