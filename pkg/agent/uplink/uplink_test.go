package uplink

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

func TestWhatWasDecidedIsPassedOnOnce(t *testing.T) {
	moving := agentapi.Plan{Status: executor.Status{Phase: executor.Running}}
	pausing, cancelling, held := moving, moving, agentapi.Plan{Status: executor.Status{Phase: executor.Held}}
	pausing.Pausing, cancelling.Cancelling = true, true
	for _, c := range []struct {
		local  agentapi.Plan
		remote *v1.Plan
		want   agentapi.Verb
	}{
		{moving, &v1.Plan{Phase: "running"}, ""},
		{moving, &v1.Plan{Phase: "running", PausedBy: "admin/minji"}, agentapi.Pause},
		{pausing, &v1.Plan{Phase: "running", PausedBy: "admin/minji"}, ""},
		{held, &v1.Plan{Phase: "running", PausedBy: "admin/minji"}, ""},
		{moving, &v1.Plan{Phase: "running", Cancelling: true}, agentapi.Cancel},
		{pausing, &v1.Plan{Phase: "running", PausedBy: "admin/minji", Cancelling: true}, agentapi.Cancel},
		{moving, &v1.Plan{Phase: "cancelled"}, agentapi.Cancel}, // the node was cut off meanwhile
		{cancelling, &v1.Plan{Phase: "cancelled"}, ""},
		{held, &v1.Plan{Phase: "cancelled"}, ""},
		{moving, &v1.Plan{Phase: "abandoned"}, agentapi.Abandon},
		{held, &v1.Plan{Phase: "abandoned"}, agentapi.Abandon},
		{moving, &v1.Plan{Phase: "completed"}, ""},
	} {
		if got := wanted(c.local, c.remote); got.Do != c.want {
			t.Errorf("%+v, %v: %q, want %q", c.local.Status.Phase, c.remote, got.Do, c.want)
		}
	}
}

func TestWhatWasBegunIsNextAndThenTheOlderApproval(t *testing.T) {
	at := func(n int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(n, 0)) }
	plans := map[plan.ID]*v1.Plan{
		"late":   {Id: "late", Worker: "n1", Phase: approved, Approved: at(9)},
		"early":  {Id: "early", Worker: "n1", Phase: approved, Approved: at(1)},
		"begun":  {Id: "begun", Worker: "n1", Phase: running, Approved: at(8)},
		"other":  {Id: "other", Worker: "n2", Phase: running, Approved: at(0)},
		"wished": {Id: "wished", Worker: "n1", Phase: proposed},
		"paused": {Id: "paused", Worker: "n1", Phase: running, Approved: at(0), PausedBy: "coordinator"},
	}
	for _, want := range []string{"begun", "early", "late", ""} {
		if got := next(plans, "n1"); got.GetId() != want {
			t.Errorf("%q, want %q", got.GetId(), want)
		}
		delete(plans, plan.ID(want))
	}
}

// TestAJournalIsToldFromWhereTheCoordinatorsAre under a new lease: steps that they know are left out, and so is an end that was not the last word.
func TestAJournalIsToldFromWhereTheCoordinatorsAre(t *testing.T) {
	journal := []executor.Record{
		{Event: executor.StepBegun}, {Event: executor.StepVerified}, {Event: executor.StepBegun, Step: 1}, {Event: executor.Stopped, Step: 1}, {Event: executor.Again, Step: 1},
		{Event: executor.StepBegun, Step: 1}, {Event: executor.Cancelled, Step: 1},
	}
	w := &work{step: 1}
	var told []executor.Event
	for i, r := range journal {
		if w.tells(r, i == len(journal)-1) {
			told = append(told, r.Event)
		}
	}
	if len(told) != 3 || told[0] != executor.StepBegun || told[1] != executor.StepBegun || told[2] != executor.Cancelled {
		t.Errorf("%v", told)
	}
}
