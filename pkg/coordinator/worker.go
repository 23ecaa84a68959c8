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

	stuck map[plan.ID]stuck // plans that must not go on; of the goroutine that runs Run

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
// other. One that cannot be planned anew keeps no other from that.
func (w *Worker) lead(ctx context.Context, term uint64) error {
	renewed := w.renew(ctx)
	if err := errors.Join(w.guard(ctx), w.bury(ctx)); err != nil {
		return errors.Join(renewed, err)
	}
	for _, p := range w.next() {
		w.runs.Go(func() {
			defer w.take(p.ID, false)
			if err := w.work(ctx, term, p); err != nil && ctx.Err() == nil {
				w.Logger.Warn("work of the coordinator", obs.KeyPlan, p.ID, obs.KeyError, err)
			}
		})
	}
	return renewed
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

// work does a plan's steps as long as this member leads that term and has the lease, and the cluster is the one that the plan was made for.
func (w *Worker) work(ctx context.Context, term uint64, p plan.Plan) error {
	a, err := w.apply(ctx, &fsm.TakeLease{Plan: p.ID, Holder: fsm.Coordinator, For: leaseFor})
	if err != nil {
		return err
	}
	var work fsm.Work
	if err := a.Read(&work); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		w.watch(ctx, cancel, term, work)
	}()
	err = w.run(ctx, work)
	if ctx.Err() != nil {
		err = nil // it was to end
	}
	cancel()
	<-watched
	return err
}

// watch ends the work when this member leads that term no more, the lease is another's or nobody's, or the cluster is not the one that the
// plan was made for.
func (w *Worker) watch(ctx context.Context, cancel context.CancelFunc, term uint64, work fsm.Work) {
	ticker, compare := time.NewTicker(lookAgain), time.NewTicker(staleEvery)
	defer ticker.Stop()
	defer compare.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if now, leads := w.Log.Leads(); !leads || now != term || !w.holds(work) {
				cancel()
				return
			}
		case <-compare.C:
			if w.stale(ctx, work.Plan) {
				cancel()
				return
			}
		}
	}
}

// holds reports whether a lease still counts.
func (w *Worker) holds(work fsm.Work) (holds bool) {
	w.Log.View(func(s *fsm.State) {
		e, ok := s.Plans[work.Plan.ID]
		holds = ok && e.Lease != nil && e.Lease.Term == work.Lease.Term
	})
	return holds
}

// next are the plans whose next step is for the coordinator and may begin, and that nobody works on here. They count as at work then.
func (w *Worker) next() (list []plan.Plan) {
	w.Log.View(func(s *fsm.State) {
		for _, each := range slices.Sorted(maps.Keys(s.Plans)) {
			e := s.Plans[each]
			if _, stuck := w.stuck[each]; !stuck && (e.Phase == fsm.Approved || e.Phase == fsm.Running) && e.Pause == nil && !e.Cancel && e.Worker() == fsm.Coordinator && !w.works(each) {
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

// guard pauses the coordinator's plans while there is trouble or they are stuck, and lets those go on that it paused.
func (w *Worker) guard(ctx context.Context) error {
	pauses := map[plan.ID]*fsm.Pause{}
	w.Log.View(func(s *fsm.State) {
		for id, e := range s.Plans {
			if e.Held() && e.Worker() == fsm.Coordinator && e.Phase != fsm.Stopped && e.Phase != fsm.Cancelled && (e.Pause == nil || e.Pause.By == fsm.Coordinator) {
				pauses[id] = e.Pause
			}
		}
	})
	if len(pauses) == 0 {
		return nil
	}
	trouble := ""
	if w.Trouble != nil {
		var err error
		if trouble, err = w.Trouble(ctx); err != nil {
			trouble = "the cluster does not tell how it is: " + err.Error()
		}
	}
	for _, id := range slices.Sorted(maps.Keys(pauses)) {
		if b := guarded(id, pauses[id], w.stuck[id].why, trouble); b != nil {
			if _, err := w.apply(ctx, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// guarded is what is to be done to a plan that is paused so, or not, while it is stuck or there is trouble; nil for nothing. Trouble that
// changes, as objects are counted, is not told anew.
func guarded(id plan.ID, pause *fsm.Pause, stuck, trouble string) fsm.Body {
	switch {
	case stuck != "" && (pause == nil || pause.Why != stuck):
		return &fsm.PausePlan{Plan: id, Why: stuck}
	case stuck == "" && trouble != "" && pause == nil:
		return &fsm.PausePlan{Plan: id, Why: trouble}
	case stuck == "" && trouble == "" && pause != nil:
		return &fsm.Resume{Plan: id, PausedBy: fsm.Coordinator}
	default:
		return nil
	}
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
func (w *Worker) run(ctx context.Context, work fsm.Work) error {
	j := &logJournal{worker: w, ctx: ctx, work: work}
	e := executor.Executor{Registry: w.Registry, Now: time.Now, Paused: j.rests}
	err := e.Run(ctx, work.Plan, j)
	if errors.Is(err, executor.ErrPaused) {
		return nil
	}
	if errors.Is(err, fault.Unsupported) && !j.rest { // it could not even be begun: no record tells that
		at, _ := executor.Reached(work.Records)
		err = errors.Join(err, j.Append(executor.Record{Event: executor.Stopped, Step: at, Error: err.Error()}))
	}
	if err != nil {
		return fmt.Errorf("plan %s: %w", work.Plan.ID, err)
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
