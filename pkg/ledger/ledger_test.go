package ledger_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func disk(id string) layout.Disk { return layout.Disk{ID: id, Size: 8 * storage.GiB} }

func made(t *testing.T, name string) (stack.Stack, plan.Plan) {
	t.Helper()
	s, p, err := stack.New(name, "6a5f3c2e-0000-4000-8000-000000000001", []layout.Disk{disk("D1"), disk("D2")}, layout.Policy{Tolerance: 1, Reserve: storage.GiB},
		stack.Volume{FileSystem: "ext4", MountPoint: "/mnt/" + name}, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func grown(t *testing.T, s stack.Stack, id string) (stack.Stack, plan.Plan) {
	t.Helper()
	after, p, err := s.Grow(layout.Change{Add: []layout.Disk{disk(id)}}, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	return after, p
}

// write appends to the journal of an approved plan.
func write(t *testing.T, l ledger.Ledger, p plan.Plan, records ...executor.Record) {
	t.Helper()
	j, err := l.Open(p.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		r.At = time.Unix(1, 0)
		err = errors.Join(err, j.Append(r))
	}
	if err := errors.Join(err, j.Close()); err != nil {
		t.Fatal(err)
	}
}

func approve(t *testing.T, l ledger.Ledger, p plan.Plan) {
	t.Helper()
	if err := l.Approve(p, p.Token()); err != nil {
		t.Fatal(err)
	}
}

func TestAnAbandonedPlanLeadsToWhatItLeft(t *testing.T) {
	l := ledger.Of(t.TempDir())
	first, p := made(t, "media")
	approve(t, l, p)
	write(t, l, p, executor.Record{Event: executor.StepBegun}, executor.Record{Event: executor.Completed, Step: len(p.Steps)})
	_, one := grown(t, first, "D3")
	approve(t, l, one)
	write(t, l, one, executor.Record{Event: executor.StepBegun})
	if _, _, err := l.Stack("media"); !errors.Is(err, fault.Busy) {
		t.Fatal("a plan is between its steps:", err)
	}
	_, two := grown(t, first, "D4")
	if err := l.Approve(two, two.Token()); !errors.Is(err, fault.Busy) {
		t.Fatal(err)
	}
	if parent, there, err := l.Parent(one); err != nil || !there || parent.Generation != first.Generation {
		t.Fatal(parent, there, err)
	}
	left := first
	left.Generation = 5
	state, err := plan.Hash(left)
	if err != nil {
		t.Fatal(err)
	}
	data := marshal(t, left)
	write(t, l, one, executor.Record{Event: executor.Abandoned, Error: "its disk died", State: data})
	now, there, err := l.Stack("media")
	if err != nil || !there || now.Generation != 5 {
		t.Fatal(now, there, err)
	}
	if err := l.Approve(two, two.Token()); !errors.Is(err, fault.Precondition) {
		t.Fatal("it was made from what was before:", err)
	}
	_, three := grown(t, now, "D4")
	if three.Parent != state {
		t.Fatal("its parent is another")
	}
	approve(t, l, three)
	if e, err := l.Find(one.ID); err != nil || e.Status.Phase != executor.GivenUp || !strings.Contains(e.Status.String(), "its disk died") {
		t.Fatal(e.Status, err)
	}
	if err := l.Resume(one.ID); !errors.Is(err, fault.Precondition) {
		t.Fatal(err)
	}
}

func TestANewStackThatWasAbandonedIsNone(t *testing.T) {
	l := ledger.Of(t.TempDir())
	_, p := made(t, "media")
	approve(t, l, p)
	write(t, l, p, executor.Record{Event: executor.StepBegun}, executor.Record{Event: executor.Abandoned, Error: "no disk"})
	if _, there, err := l.Stack("media"); err != nil || there {
		t.Fatal(there, err)
	}
}

func TestTheNextPlanIsTheOneThatWasBegun(t *testing.T) {
	entry := func(id plan.ID, phase executor.Phase, at int64) ledger.Entry {
		return ledger.Entry{Plan: plan.Plan{ID: id}, Status: executor.Status{Phase: phase, Since: time.Unix(at, 0)}}
	}
	none := func(plan.ID) bool { return false }
	list := []ledger.Entry{
		entry("stopped", executor.Failed, 1), entry("done", executor.Succeeded, 1), entry("held", executor.Held, 1), entry("proposed", executor.Proposed, 1),
		entry("waits", executor.Waiting, 2), entry("later", executor.Running, 9), entry("begun", executor.Running, 5),
	}
	if e, ok := ledger.Next(list, none); !ok || e.Plan.ID != "begun" {
		t.Error(e.Plan.ID, ok)
	}
	if e, ok := ledger.Next(list, func(id plan.ID) bool { return id != "waits" }); !ok || e.Plan.ID != "waits" {
		t.Error(e.Plan.ID, ok)
	}
	list[4].Pausing = true
	list[5].Cancelling = true
	list[6].Pausing = true
	if e, ok := ledger.Next(list, none); !ok || e.Plan.ID != "begun" {
		t.Error("a step that was begun is slowed, and not left:", e.Plan.ID, ok)
	}
	if e, ok := ledger.Next(list[:6], none); ok {
		t.Error(e.Plan.ID)
	}
}

func TestAWishIsOnlyForAPlanThatMayMeetIt(t *testing.T) {
	l := ledger.Of(t.TempDir())
	_, p := made(t, "media")
	if _, err := l.Propose(p); err != nil {
		t.Fatal(err)
	}
	if err := l.Ask(p.ID, journal.WishPause); !errors.Is(err, fault.Precondition) {
		t.Fatal("nothing runs:", err)
	}
	approve(t, l, p)
	if err := l.Ask(p.ID, journal.WishPause); err != nil || !l.Paused(p.ID) {
		t.Fatal(err)
	}
	if err := l.Resume(p.ID); err != nil || l.Paused(p.ID) {
		t.Fatal(err)
	}
	write(t, l, p, executor.Record{Event: executor.StepBegun}, executor.Record{Event: executor.Completed, Step: len(p.Steps)})
	if err := l.Ask(p.ID, journal.WishCancel); !errors.Is(err, fault.Precondition) {
		t.Fatal("it is over:", err)
	}
	if _, err := l.Find(p.ID[:4]); err != nil {
		t.Fatal(err)
	}
}

func TestAPlanForNothingThatIsKnownHereIsRefused(t *testing.T) {
	l := ledger.Of(t.TempDir())
	p, err := plan.Plan{Subject: "osd 3"}.Seal(-1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Propose(p); !errors.Is(err, fault.Unsupported) {
		t.Fatal(err)
	}
	l.Fresh = func(plan.Plan) error { return fault.New(fault.Precondition, "the disk has another OSD") }
	if _, err := l.Propose(p); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "stale") {
		t.Fatal(err)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAProposalThatCannotBeReadIsListedWithItsError(t *testing.T) {
	l := ledger.Of(t.TempDir())
	_, p := made(t, "media")
	if _, err := l.Propose(p); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.Dir, "0bad.plan"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := l.List()
	if err != nil || len(list) != 2 || list[0].Plan.ID != "0bad" || list[0].Err == nil || list[1].Err != nil {
		t.Fatal(list, err)
	}
	if _, err := l.Find("0bad"); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
