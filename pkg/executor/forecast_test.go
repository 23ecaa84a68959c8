package executor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// ran is a plan of steps of so many bytes, and the records of those that took so many seconds.
func ran(bytes []storage.Bytes, seconds ...int) (p plan.Plan, records []executor.Record) {
	for _, n := range bytes {
		p.Steps = append(p.Steps, plan.Step{What: "wave", Sync: n})
	}
	at := time.Unix(0, 0)
	for i, n := range seconds {
		records = append(records, executor.Record{Event: executor.StepBegun, Step: i, At: at})
		at = at.Add(time.Duration(n) * time.Second)
		records = append(records, executor.Record{Event: executor.StepVerified, Step: i, At: at})
	}
	return p, records
}

func TestTheForecastKnowsThatSmallStepsTakeTime(t *testing.T) {
	// Each step takes 4 s and one more for each 10 bytes.
	p, records := ran([]storage.Bytes{100, 20, 0, 50, 10, 0}, 14, 6, 4)
	f, ok := executor.ForecastOf(p, records)
	if want := int64(9 + 5 + 4); !ok || f.Likely != want || f.Left != 60 || f.Rate != 5 {
		t.Errorf("got %+v, want %d s", f, want)
	}
	if f.Low >= f.Likely || f.High <= f.Likely {
		t.Errorf("no range: %+v", f)
	}
	records = append(records, executor.Record{Event: executor.StepProgress, Step: 3, At: time.Unix(30, 0), Progress: &executor.Progress{Done: 25, Total: 50}})
	s := executor.StatusOf(p, records).WithForecast(p, records)
	if s.Ahead == nil || s.Ahead.Left != 35 || s.Forecast != 14 || !strings.Contains(s.String(), "35 B to go, ETA 12s-15s") {
		t.Errorf("half a step later: %+v: %s", s.Ahead, s)
	}
}

func TestThereIsNoForecastBeforeAnythingWasMeasured(t *testing.T) {
	p, records := ran([]storage.Bytes{0, 100}, 3)
	if f, ok := executor.ForecastOf(p, records); ok || f.Left != 100 {
		t.Errorf("%+v, %v", f, ok)
	}
	p, records = ran([]storage.Bytes{100, 100}, 10, 10)
	records = append(records, executor.Record{Event: executor.Completed, Step: 2, At: time.Unix(20, 0)})
	if s := executor.StatusOf(p, records).WithForecast(p, records); s.Ahead != nil || s.Forecast != 0 {
		t.Errorf("a plan that is over: %+v", s)
	}
}

func TestTheForecastCountsWhatLiesBetweenSteps(t *testing.T) {
	p := plan.Plan{Steps: []plan.Step{{Sync: 10}, {Sync: 10}, {Sync: 10}, {Sync: 10}}}
	at := func(second int, event executor.Event, step int) executor.Record {
		return executor.Record{Event: event, Step: step, At: time.Unix(int64(second), 0)}
	}
	records := []executor.Record{
		at(10, executor.StepBegun, 0), at(16, executor.StepVerified, 0),
		at(18, executor.StepBegun, 1), at(19, executor.StepBegun, 1), at(22, executor.StepVerified, 1), // 2 s of checks, a second try
		at(22, executor.Paused, 2), at(9000, executor.Again, 2), at(9002, executor.StepBegun, 2), at(9006, executor.StepVerified, 2),
	}
	if f, ok := executor.ForecastOf(p, records); !ok || f.Likely != 6 {
		t.Errorf("%+v, %v", f, ok)
	}
}
