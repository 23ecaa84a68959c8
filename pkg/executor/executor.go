// Package executor runs plans: every step is checked, done and verified, and each of that is in the journal before
// the next begins. It takes only the plan: where the world is not as a step's precondition says, it stops.
//
// Invariant: whatever a run was ended by (a crash, a kill, a power cut), running the same plan on the same
// journal goes on where it was; a step may be done twice, so Do must be idempotent, and none is left out.
//
// It must not import what a step does, nor read files or the clock itself.
package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// State is what a check finds.
type State int

// The states.
const (
	Todo  State = iota // the precondition holds and nothing of the step is done
	Begun              // a part is done, by a run that was ended or by what it started: Do goes on
	Done               // the world is as the step leaves it
)

// Step is the behaviour behind a plan's step.
type Step interface {
	// Check looks at the world and changes nothing. fault.Precondition, fault.NotFound or fault.Busy say why the step
	// must not be done.
	Check(ctx context.Context) (State, error)
	// Do brings the world to where Verify holds, from any point at which an earlier Do was ended.
	Do(ctx context.Context) error
	// Verify confirms the step's end. It is called at least once, also after a crash in between.
	Verify(ctx context.Context) error
}

// Progress is how far a step has come.
type Progress struct {
	Done  storage.Bytes `json:"done_bytes"`
	Total storage.Bytes `json:"total_bytes"`
	// Rate is what is measured now, in bytes a second; 0 if it is not known.
	Rate storage.Bytes `json:"rate_bytes_per_second"`
}

// Make makes the behaviour of one kind of step. report may be called from Do at any time; it does not block for long.
type Make func(s plan.Step, report func(Progress)) (Step, error)

// Registry binds kinds to behaviour.
type Registry map[plan.Kind]Make

// Journal is the lasting memory of one plan's run.
type Journal interface {
	// Append returns once the record would survive a power cut.
	Append(r Record) error
	// Records are all that were appended, by this run and those before.
	Records() []Record
}

// Event is what has been journalled: the stage that a step has come to.
type Event string

// The events, in a step's order.
const (
	StepBegun    Event = "begun"    // its precondition held; Do comes next
	StepProgress Event = "progress" // now and then, for the forecast
	StepDone     Event = "done"     // Do has returned; Verify comes next
	StepVerified Event = "verified" // the next step may begin
	Stopped      Event = "stopped"  // by an error, which is in the record; it may be run again
	Cancelled    Event = "cancelled"
	Paused       Event = "paused" // between two steps
	Again        Event = "again"  // after it had stopped, or ended between two steps: it is to run
	Completed    Event = "completed"
	Abandoned    Event = "abandoned" // it will never go on; State is what it left
)

// Record is one entry of a journal.
type Record struct {
	Event    Event     `json:"event"`
	Step     int       `json:"step"` // from 0
	At       time.Time `json:"at"`
	Progress *Progress `json:"progress,omitempty"`
	Error    string    `json:"error,omitempty"`
	// State is the subject's as an abandoned plan left it, null if there is no such subject any more.
	State json.RawMessage `json:"state,omitempty"`
}

// A run that was asked to end between two steps says by which wish.
var (
	ErrCancelled = errors.New("cancelled between two steps")
	ErrPaused    = errors.New("paused between two steps")
)

// Executor runs plans.
type Executor struct {
	Registry Registry
	// Now is the clock.
	Now func() time.Time
	// Cancelled is asked before each step; nil never cancels.
	Cancelled func() bool
	// Paused is asked before each step that was not begun; nil never pauses. A step that was begun goes on: what it copies is
	// slowed by whoever bounds it, and md would go on without it.
	Paused func() bool
	// Watch hears of all that happens; nil for nobody.
	Watch func(Status)
}

// progressEvery is how often progress goes to the journal.
const progressEvery = 10 * time.Second

// Run runs what is left of the plan. nil means that all steps are verified, now or before. A plan that was cancelled
// goes on, too: what lies between two steps is neither the state before nor the one after, so there is no other way from it.
// It rests before a step of another executor than that of the step which it begins with. fault.Unsupported without any record in the
// journal: there is a step here of a kind that is not in the registry.
func (e *Executor) Run(ctx context.Context, p plan.Plan, j Journal) error {
	past := replay(j.Records())
	switch {
	case past.completed:
		return nil
	case past.abandoned:
		return fault.New(fault.Precondition, "plan %s was abandoned: make another one", p.ID)
	}
	left := p.Steps[past.next:]
	nothing := "nothing"
	if past.next > 0 || past.begun >= 0 {
		nothing = "nothing more"
	}
	others := func(s plan.Step) bool { return s.Executor != left[0].Executor }
	for _, s := range left {
		if others(s) {
			break
		}
		if _, ok := e.Registry[s.Kind]; !ok {
			return fault.New(fault.Unsupported, "%s was done: no step of kind %q is known here, and the plan has one: %s", nothing, s.Kind, s.What)
		}
	}
	for i := past.next; i < len(p.Steps); i++ {
		if err := e.halt(j, i, past.begun == i, others(p.Steps[i])); err != nil {
			return err
		}
		r := &run{Executor: e, plan: p, journal: j, index: i}
		if err := r.step(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err() // it has not stopped: whoever ran it has
			}
			err = fmt.Errorf("step %d of %d, %s: %w", i+1, len(p.Steps), p.Steps[i].What, err)
			return errors.Join(err, e.append(j, Record{Event: Stopped, Step: i, Error: err.Error()}))
		}
	}
	return e.append(j, Record{Event: Completed, Step: len(p.Steps)})
}

// halt ends the run before a step if somebody asked for that, or if the step is another's.
func (e *Executor) halt(j Journal, step int, begun, other bool) error {
	switch {
	case e.Cancelled != nil && e.Cancelled():
		return errors.Join(fault.As(fault.Aborted, ErrCancelled), e.append(j, Record{Event: Cancelled, Step: step}))
	case other, e.Paused != nil && !begun && e.Paused():
		return errors.Join(fault.As(fault.Aborted, ErrPaused), e.append(j, Record{Event: Paused, Step: step}))
	default:
		return nil
	}
}

func (e *Executor) append(j Journal, r Record) error {
	r.At = e.Now().UTC()
	if err := j.Append(r); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// run is one step of a run.
type run struct {
	*Executor
	plan    plan.Plan
	journal Journal
	index   int
	said    time.Time // when progress was last journalled
}

func (r *run) step(ctx context.Context) error {
	s := r.plan.Steps[r.index]
	step, err := r.Registry[s.Kind](s, r.progress)
	if err != nil {
		return err
	}
	state, err := step.Check(ctx)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	r.tell(StepBegun, nil)
	if state != Done {
		if err := r.append(r.journal, Record{Event: StepBegun, Step: r.index}); err != nil {
			return err
		}
		if err := step.Do(ctx); err != nil {
			return err
		}
		if err := r.append(r.journal, Record{Event: StepDone, Step: r.index}); err != nil {
			return err
		}
	}
	if err := step.Verify(ctx); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if err := r.append(r.journal, Record{Event: StepVerified, Step: r.index}); err != nil {
		return err
	}
	r.tell(StepVerified, nil)
	return nil
}

// progress tells the watcher always and the journal now and then. A journal that cannot be written ends the step at
// its next record.
func (r *run) progress(p Progress) {
	r.tell(StepProgress, &p)
	now := r.Now()
	if r.said.IsZero() {
		r.said = now
	}
	if now.Sub(r.said) >= progressEvery {
		r.said = now
		_ = r.append(r.journal, Record{Event: StepProgress, Step: r.index, Progress: &p})
	}
}

func (r *run) tell(event Event, p *Progress) {
	if r.Watch == nil {
		return
	}
	records := append(r.journal.Records(), Record{Event: event, Step: r.index, At: r.Now().UTC(), Progress: p})
	r.Watch(StatusOf(r.plan, records))
}
