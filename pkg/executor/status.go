package executor

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// past is what a journal says of earlier runs.
type past struct {
	next      int // the first step that is not verified
	begun     int // the last step that was begun, -1 if none was
	completed bool
	abandoned bool
}

func replay(records []Record) past {
	p := past{begun: -1}
	for _, r := range records {
		switch r.Event {
		case StepBegun:
			p.begun = r.Step
		case StepVerified:
			p.next = r.Step + 1
		case Completed:
			p.completed = true
		case Abandoned:
			p.abandoned = true
		}
	}
	return p
}

// Reached says how many steps are verified, and whether the next one was begun.
func Reached(records []Record) (verified int, begun bool) {
	p := replay(records)
	return p.next, p.begun == p.next
}

// Phase is where a plan is.
type Phase string

// The phases.
const (
	Proposed  Phase = "proposed"  // nobody has approved it
	Waiting   Phase = "waiting"   // it is approved, and nothing is done
	Running   Phase = "running"   // or was, when the last run was ended: it may be run again
	Failed    Phase = "stopped"   // by an error
	Ended     Phase = "cancelled" // between two steps
	Held      Phase = "paused"    // between two steps
	Succeeded Phase = "completed"
	GivenUp   Phase = "abandoned" // it ended in another state than it was to
)

// Moves reports whether it goes on without somebody's doing, as long as somebody runs it.
func (p Phase) Moves() bool { return p == Waiting || p == Running }

// Final reports whether nothing will come after it.
func (p Phase) Final() bool { return p == Succeeded || p == GivenUp }

// Status is how far a plan has come, from its journal alone.
type Status struct {
	Plan  plan.ID `json:"plan"`
	Phase Phase   `json:"phase"`
	Step  int     `json:"step"` // from 0; the number of steps at the end
	Steps int     `json:"steps"`
	What  string  `json:"what,omitempty"` // the step's words
	// Progress is of the step, as far as it was measured.
	Progress Progress  `json:"progress"`
	Since    time.Time `json:"since"` // when the plan was begun
	Moved    time.Time `json:"moved"` // when anything happened last
	// Forecast is what is left, in seconds, by the rate that was measured; by the plan's own as long as there is none.
	Forecast int64  `json:"forecast_seconds"`
	Error    string `json:"error,omitempty"`
	// Ahead is the forecast by what whole steps have taken; nil before any has.
	Ahead *Forecast `json:"ahead,omitempty"`
}

// StatusOf reads a journal. A step that was begun and begins again after a crash has the progress that was last
// reported, not none.
func StatusOf(p plan.Plan, records []Record) Status {
	s := Status{Plan: p.ID, Phase: Waiting, Steps: len(p.Steps)}
	var rate storage.Bytes
	for _, r := range records {
		s.take(r)
		if r.Progress != nil && r.Progress.Rate > 0 {
			rate = r.Progress.Rate
		}
	}
	if s.Step < len(p.Steps) {
		s.What = p.Steps[s.Step].What
	}
	s.Forecast = s.left(p, rate)
	return s
}

func (s *Status) take(r Record) {
	if s.Since.IsZero() {
		s.Since = r.At
	}
	s.Moved, s.Error = r.At, ""
	if r.Step != s.Step {
		s.Step, s.Progress = r.Step, Progress{}
	}
	s.Phase = Running
	switch r.Event {
	case StepProgress:
		s.Progress = *r.Progress
	case StepVerified:
		s.Step, s.Progress = r.Step+1, Progress{}
	case Stopped:
		s.Phase, s.Error = Failed, r.Error
	case Cancelled:
		s.Phase = Ended
	case Paused:
		s.Phase = Held
	case Abandoned:
		s.Phase, s.Error = GivenUp, r.Error
	case Completed:
		s.Phase = Succeeded
	}
}

// left is the forecast of what is to be done.
func (s *Status) left(p plan.Plan, rate storage.Bytes) int64 {
	if s.Phase.Final() {
		return 0
	}
	var bytes storage.Bytes
	var planned int64
	for i := s.Step; i < len(p.Steps); i++ {
		bytes, planned = bytes+p.Steps[i].Sync, planned+p.Steps[i].Forecast
	}
	if s.Step < len(p.Steps) && s.Progress.Total > 0 {
		step := p.Steps[s.Step]
		done := float64(s.Progress.Done) / float64(s.Progress.Total)
		bytes -= storage.Bytes(done * float64(step.Sync))
		planned -= int64(done * float64(step.Forecast))
	}
	if rate > 0 {
		return int64((bytes + rate - 1) / rate)
	}
	return planned
}

// String is the status in a line: "step 2/3 reshape ... 41 % 143 MiB/s, about 1h10m left".
func (s Status) String() string {
	switch s.Phase {
	case Running:
	case Failed:
		return fmt.Sprintf("step %d/%d stopped: %s", s.Step+1, s.Steps, s.Error)
	case GivenUp:
		return fmt.Sprintf("abandoned at step %d/%d: %s", s.Step+1, s.Steps, s.Error)
	default:
		return string(s.Phase)
	}
	if s.Step >= s.Steps {
		return fmt.Sprintf("all %d steps are done", s.Steps)
	}
	text := fmt.Sprintf("step %d/%d %s", s.Step+1, s.Steps, s.What)
	if s.Progress.Total > 0 {
		text += fmt.Sprintf(" %.0f %%", 100*float64(s.Progress.Done)/float64(s.Progress.Total))
	}
	if s.Progress.Rate > 0 {
		text += fmt.Sprintf(" %s/s", s.Progress.Rate)
	}
	if f := s.Ahead; f != nil {
		return fmt.Sprintf("%s, %s to go, ETA %s-%s", text, f.Left, plan.Duration(f.Low), plan.Duration(f.High))
	}
	if s.Forecast == 0 { // what it takes is not known, or nothing worth telling
		return text
	}
	return fmt.Sprintf("%s, about %s left", text, plan.Duration(s.Forecast))
}

// WithForecast is the status with the forecast by what whole steps have taken.
func (s Status) WithForecast(p plan.Plan, records []Record) Status {
	if s.Phase.Final() {
		return s
	}
	if f, ok := ForecastOf(p, records); ok {
		s.Ahead, s.Forecast = &f, f.Likely
	}
	return s
}

// Touched reports whether any step may have changed something.
func Touched(records []Record) bool {
	return slices.ContainsFunc(records, func(r Record) bool {
		return r.Event == StepBegun || r.Event == StepDone || r.Event == StepVerified
	})
}
