package fsm_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// driver gives commands, through their encoding, with a clock of its own.
type driver struct {
	t   testing.TB
	s   *fsm.State
	now time.Time
	log [][]byte
}

func newDriver(t testing.TB) *driver {
	t.Helper()
	d := &driver{t: t, s: fsm.New(), now: start}
	d.must(&fsm.ReportNode{Node: "n1", Boot: "b", Generation: 1, Inventory: []byte(`{}`)})
	d.must(&fsm.SetSubject{Subject: "stack 미디어", State: []byte(`{"disks":["A"]}`)})
	return d
}

func (d *driver) do(who, key string, b fsm.Body) fsm.Answer {
	d.t.Helper()
	d.now = d.now.Add(time.Second)
	data, err := fsm.NewCommand(who, key, d.now, b).Encode()
	if err != nil {
		d.t.Fatal(err)
	}
	d.log = append(d.log, data)
	c, err := fsm.Decode(data)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.s.Apply(c)
}

func (d *driver) must(b fsm.Body) fsm.Answer {
	d.t.Helper()
	a := d.do("minji", "", b)
	if err := a.Err(); err != nil {
		d.t.Fatal(err)
	}
	return a
}

func (d *driver) refused(class error, text string, b fsm.Body) {
	d.t.Helper()
	err := d.do("minji", "", b).Err()
	if !errors.Is(err, class) || !strings.Contains(err.Error(), text) {
		d.t.Fatalf("got %v, want %v with %q", err, class, text)
	}
}

func (d *driver) lease(id plan.ID, holder string) fsm.Work {
	d.t.Helper()
	var w fsm.Work
	if err := d.must(&fsm.TakeLease{Plan: id, Holder: holder, For: time.Minute}).Read(&w); err != nil {
		d.t.Fatal(err)
	}
	return w
}

func (d *driver) step(id plan.ID, term uint64, step int, e executor.Event) fsm.Orders {
	d.t.Helper()
	var o fsm.Orders
	r, holder := executor.Record{Step: step, Event: e}, ""
	if lease := d.s.Plans[id].Lease; lease != nil {
		holder = lease.Holder
	}
	if e == executor.StepProgress {
		r.Progress = &executor.Progress{Done: 1, Total: 2, Rate: 1}
	}
	if err := d.must(&fsm.ReportStep{Plan: id, Holder: holder, Term: term, Record: r}).Read(&o); err != nil {
		d.t.Fatal(err)
	}
	return o
}

func (d *driver) phase(id plan.ID) fsm.Phase { return d.s.Plans[id].Phase }

// sample is a plan of a step for the node and one for the coordinator, computed from the state of a subject.
func sample(t testing.TB, subject, state string, disks ...string) plan.Plan {
	t.Helper()
	parent, err := plan.Hash(json.RawMessage(state))
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Plan{
		Parent: parent, Subject: subject, What: "add " + strings.Join(disks, ","), State: json.RawMessage(`{"disks":["A","B"]}`),
		Steps: []plan.Step{
			{Kind: "array-reshape", What: "reshape", Executor: "node", Sync: 100, Args: []byte(`{}`)},
			{Kind: "crush-weight", What: "weigh", Executor: fsm.Coordinator, Args: []byte(`{}`)},
		},
	}
	for _, id := range disks {
		p.Disks = append(p.Disks, plan.Disk{ID: plan.DiskID(id), Size: 1, Use: plan.Take})
	}
	p, err = p.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAPlanGoesFromHandToHandAndEndsInItsState(t *testing.T) {
	d := newDriver(t)
	p := sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
	d.must(&fsm.Propose{Plan: p, Node: "n1"})
	d.refused(fault.Denied, `"B"`, &fsm.Approve{Plan: p.ID, Token: "yes"})
	d.refused(fault.Precondition, "proposed", &fsm.TakeLease{Plan: p.ID, Holder: "n1", For: time.Minute})
	d.must(&fsm.Approve{Plan: p.ID, Token: "B"})
	d.refused(fault.Denied, "for n1", &fsm.TakeLease{Plan: p.ID, Holder: "n2", For: time.Minute})
	w := d.lease(p.ID, "n1")
	d.step(p.ID, w.Lease.Term, 0, executor.StepBegun)
	again := d.lease(p.ID, "n1") // the agent came back
	if len(again.Records) != 1 || again.Lease.Term <= w.Lease.Term {
		t.Fatalf("%+v", again)
	}
	d.refused(fault.Aborted, "term", &fsm.ReportStep{Plan: p.ID, Holder: w.Lease.Holder, Term: w.Lease.Term, Record: executor.Record{Event: executor.StepVerified}})
	for range 50 {
		d.step(p.ID, again.Lease.Term, 0, executor.StepProgress)
	}
	if n := len(d.s.Plans[p.ID].Records); n != 2 {
		t.Errorf("%d records, and one of progress is enough", n)
	}
	if o := d.step(p.ID, again.Lease.Term, 0, executor.StepVerified); o.Lease != nil {
		t.Errorf("the next step is for another, and the lease is kept: %+v", o)
	}
	c := d.lease(p.ID, fsm.Coordinator)
	if o := d.step(p.ID, c.Lease.Term, 1, executor.StepVerified); o.Phase != fsm.Completed {
		t.Errorf("%+v", o)
	}
	if got := string(d.s.Subjects["stack 미디어"].State); got != string(p.State) {
		t.Errorf("the subject's state is %s", got)
	}
	d.refused(fault.Precondition, "completed", &fsm.Cancel{Plan: p.ID})
}

func TestAStalePlanIsRefusedWithTheDifference(t *testing.T) {
	d := newDriver(t)
	p := sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
	d.must(&fsm.Propose{Plan: p, Node: "n1"})
	d.must(&fsm.SetSubject{Subject: "stack 미디어", State: []byte(`{"disks":["A","C"]}`)})
	d.refused(fault.Precondition, `disks[1]: none -> "C"`, &fsm.Approve{Plan: p.ID, Token: "B"})
	d.refused(fault.Precondition, "stale", &fsm.Propose{Plan: sample(t, "stack 미디어", `{"disks":["Z"]}`), Node: "n1"})
}

func TestPlansThatShareADiskOrASubjectDoNotRunTogether(t *testing.T) {
	d := newDriver(t)
	d.must(&fsm.SetSubject{Subject: "stack b", State: []byte(`1`)})
	one, two := sample(t, "stack 미디어", `{"disks":["A"]}`, "B"), sample(t, "stack b", `1`, "C", "B")
	three := sample(t, "stack 미디어", `{"disks":["A"]}`, "D")
	for _, p := range []plan.Plan{one, two, three} {
		d.must(&fsm.Propose{Plan: p, Node: "n1"})
	}
	d.must(&fsm.Approve{Plan: one.ID, Token: "B"})
	d.refused(fault.Busy, "disk B", &fsm.Approve{Plan: two.ID, Token: "B,C"})
	d.refused(fault.Busy, "stack 미디어", &fsm.Approve{Plan: three.ID, Token: "D"})
	d.must(&fsm.Cancel{Plan: one.ID})
	d.must(&fsm.Approve{Plan: two.ID, Token: "B,C"})
}

func TestPauseCancelAndAbandonHoldBetweenSteps(t *testing.T) {
	d := newDriver(t)
	p := sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
	d.must(&fsm.Propose{Plan: p, Node: "n1"})
	d.must(&fsm.Approve{Plan: p.ID, Token: "B"})
	w := d.lease(p.ID, "n1")
	d.step(p.ID, w.Lease.Term, 0, executor.StepBegun)
	d.must(&fsm.PausePlan{Plan: p.ID, Why: "HEALTH_ERR"})
	if o := d.step(p.ID, w.Lease.Term, 0, executor.StepProgress); !strings.Contains(o.Rest, "HEALTH_ERR") || o.Lease == nil {
		t.Errorf("%+v", o)
	}
	d.must(&fsm.Cancel{Plan: p.ID})
	if d.phase(p.ID) != fsm.Running {
		t.Error("cancelled in the middle of a step")
	}
	d.refused(fault.Busy, "works on", &fsm.Abandon{Plan: p.ID})
	if o := d.step(p.ID, w.Lease.Term, 0, executor.StepVerified); o.Phase != fsm.Cancelled {
		t.Errorf("%+v", o)
	}
	other := sample(t, "stack 미디어", `{"disks":["A"]}`, "E")
	d.must(&fsm.Propose{Plan: other, Node: "n1"})
	d.refused(fault.Busy, "cancelled", &fsm.Approve{Plan: other.ID, Token: "E"}) // what is half done is still held
	d.must(&fsm.Resume{Plan: p.ID})
	c := d.lease(p.ID, fsm.Coordinator)
	if err := d.must(&fsm.ReportStep{Plan: p.ID, Holder: c.Lease.Holder, Term: c.Lease.Term, Record: executor.Record{Step: 1, Event: executor.Stopped, Error: "no quorum"}}).Err(); err != nil {
		t.Fatal(err)
	}
	d.must(&fsm.Abandon{Plan: p.ID})
	d.refused(fault.Precondition, "stale", &fsm.Approve{Plan: other.ID, Token: "E"}) // its state must be told anew
	d.must(&fsm.SetSubject{Subject: "stack 미디어", State: []byte(`{"disks":["A"]}`)})
	d.must(&fsm.Approve{Plan: other.ID, Token: "E"})
}

func TestAPersonsWordStandsAboveTheCoordinators(t *testing.T) {
	d := newDriver(t)
	p := sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
	d.must(&fsm.Propose{Plan: p, Node: "n1"})
	d.must(&fsm.Approve{Plan: p.ID, Token: "B"})
	guard := func(b fsm.Body) {
		t.Helper()
		if err := d.do(fsm.Coordinator, "", b).Err(); err != nil {
			t.Fatal(err)
		}
	}
	guard(&fsm.PausePlan{Plan: p.ID, Why: "nearfull"})
	d.must(&fsm.PausePlan{Plan: p.ID, Why: "mine"})
	guard(&fsm.PausePlan{Plan: p.ID, Why: "nearfull"})
	guard(&fsm.Resume{Plan: p.ID, PausedBy: fsm.Coordinator})
	if e := d.s.Plans[p.ID]; e.Pause == nil || e.Pause.By != "minji" {
		t.Errorf("a person's pause was lifted: %+v", e.Pause)
	}
	d.must(&fsm.Resume{Plan: p.ID})
	w := d.lease(p.ID, "n1")
	d.step(p.ID, w.Lease.Term, 0, executor.StepBegun)
	guard(&fsm.PausePlan{Plan: p.ID, Why: "nearfull"})
	d.must(&fsm.Cancel{Plan: p.ID})
	guard(&fsm.Resume{Plan: p.ID, PausedBy: fsm.Coordinator})
	if !d.s.Plans[p.ID].Cancel {
		t.Error("a person's cancel was forgotten")
	}
	d.now = d.now.Add(time.Hour) // the worker has died
	d.refused(fault.Precondition, "cancelled", &fsm.TakeLease{Plan: p.ID, Holder: "n1", For: time.Minute})
	if d.phase(p.ID) != fsm.Cancelled {
		t.Errorf("the plan is %s", d.phase(p.ID))
	}
}

func TestWhoProposedMayTakeItBackUntilItIsApproved(t *testing.T) {
	d := newDriver(t)
	p := sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
	own := func(who string) error { return d.do(who, "", &fsm.Cancel{Plan: p.ID, Own: true}).Err() }
	if err := d.do("agent/n1", "", &fsm.Propose{Plan: p, Node: "n1"}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := own("agent/n2"); !errors.Is(err, fault.Denied) {
		t.Errorf("another does: %v", err)
	}
	if err := own("agent/n1"); err != nil || d.phase(p.ID) != fsm.Cancelled {
		t.Errorf("it is %s: %v", d.phase(p.ID), err)
	}
	if err := d.do("agent/n1", "", &fsm.Propose{Plan: p, Node: "n1"}).Err(); err != nil {
		t.Fatal(err)
	}
	d.must(&fsm.Approve{Plan: p.ID, Token: "B"})
	if err := own("agent/n1"); !errors.Is(err, fault.Precondition) || d.phase(p.ID) != fsm.Approved {
		t.Errorf("what a person has approved is %s: %v", d.phase(p.ID), err)
	}
}

func TestWhatABackupSaysIsAtWorkWaitsForAPerson(t *testing.T) {
	d := newDriver(t)
	p := sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
	d.must(&fsm.Propose{Plan: p, Node: "n1"})
	d.must(&fsm.Approve{Plan: p.ID, Token: "B"})
	d.lease(p.ID, "n1")
	backup := restored(t, d.s)
	backup.Restored(d.now, "minji", 99)
	if e := backup.Plans[p.ID]; e.Lease != nil || e.Pause == nil || backup.Term != 99 {
		t.Errorf("%+v, term %d", e, backup.Term)
	}
}

func TestAPolicyApprovesWhatTakesNoDisk(t *testing.T) {
	d := newDriver(t)
	d.must(&fsm.SetPolicy{Name: "night", Policy: &fsm.Policy{Approves: []plan.Kind{"array-reshape", "crush-weight"}}})
	free, taking := sample(t, "stack 미디어", `{"disks":["A"]}`), sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
	d.must(&fsm.Propose{Plan: taking, Node: "n1"})
	d.must(&fsm.Propose{Plan: free, Node: "n1"})
	if d.phase(taking.ID) != fsm.Proposed || d.phase(free.ID) != fsm.Approved || d.s.Plans[free.ID].Approval.By != "policy night" {
		t.Errorf("%s, %s", d.phase(taking.ID), d.phase(free.ID))
	}
}

func TestACommandThatComesTwiceIsDoneOnce(t *testing.T) {
	d := newDriver(t)
	d.do("minji", "k", &fsm.SetThrottle{Throttle: fsm.Throttle{Backfills: 1}})
	d.must(&fsm.SetThrottle{Throttle: fsm.Throttle{Backfills: 2}})
	if err := d.do("minji", "k", &fsm.SetThrottle{Throttle: fsm.Throttle{Backfills: 1}}).Err(); err != nil || d.s.Throttle.Backfills != 2 {
		t.Errorf("%v, %v", err, d.s.Throttle)
	}
}

func TestTheClockNeverGoesBackAndOldGenerationsAreRefused(t *testing.T) {
	d := newDriver(t)
	was := d.s.Clock
	d.now = d.now.Add(-time.Hour)
	d.must(&fsm.ReportNode{Node: "n1", Boot: "b", Generation: 2})
	if d.s.Clock.Before(was) || d.s.Nodes["n1"].Reported.Before(was) {
		t.Error("the clock went back")
	}
	d.refused(fault.Aborted, "generation", &fsm.ReportNode{Node: "n1", Boot: "b", Generation: 1})
	d.must(&fsm.ReportNode{Node: "n1", Boot: "c", Generation: 1})
}

// TestMembersAgreeWhateverTheyRestoredFrom gives random commands to a state that lives on and to one that is written and read
// after each; they must be the same, byte for byte, and the rules must hold throughout.
func TestMembersAgreeWhateverTheyRestoredFrom(t *testing.T) {
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newDriver(t)
		other := restored(t, d.s)
		for i := range 150 {
			b := random(t, r, d.s)
			data, err := fsm.NewCommand("w", fmt.Sprint(r.IntN(400)), d.now.Add(time.Duration(i)*time.Second), b).Encode()
			if err != nil {
				t.Fatal(err)
			}
			one, err := fsm.Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			two, _ := fsm.Decode(data)
			a, o := d.s.Apply(one), other.Apply(two)
			if string(a.Value) != string(o.Value) || a.Message != o.Message {
				t.Fatalf("seed %d, command %d: %s %s, and after a restore %s %s", seed, i, a.Value, a.Message, o.Value, o.Message)
			}
			other = restored(t, other)
			holds(t, d.s)
		}
		if !bytes.Equal(encoded(t, d.s), encoded(t, other)) {
			t.Fatalf("seed %d: the states differ", seed)
		}
	}
}

// random is a command that may well be refused.
func random(t *testing.T, r *rand.Rand, s *fsm.State) fsm.Body {
	subject := fmt.Sprintf("stack %d", r.IntN(3))
	state := fmt.Sprintf(`{"disks":[%d]}`, r.IntN(2))
	id := plan.ID("none")
	if ids := slices.Sorted(maps.Keys(s.Plans)); len(ids) > 0 {
		id = ids[r.IntN(len(ids))]
	}
	var term uint64
	token, at, holder := "", 0, ""
	if e := s.Plans[id]; e != nil {
		token, at = e.Plan.Token(), e.Status().Step
		if e.Lease != nil {
			term, holder = e.Lease.Term-r.Uint64N(2)*r.Uint64N(2), e.Lease.Holder
		}
	}
	events := []executor.Event{executor.StepBegun, executor.StepDone, executor.StepVerified, executor.StepVerified, executor.Stopped, executor.Cancelled, "nonsense"}
	report := &fsm.ReportStep{Plan: id, Holder: holder, Term: term, Record: executor.Record{Step: at, Event: events[r.IntN(len(events))]}}
	all := []fsm.Body{
		&fsm.ReportNode{Node: "n1", Boot: "b", Generation: r.Uint64N(5)},
		&fsm.SetSubject{Subject: subject, State: []byte(state)},
		&fsm.Propose{Plan: sample(t, subject, state, fmt.Sprint("D", r.IntN(3))), Node: "n1"},
		&fsm.Propose{Plan: sample(t, subject, state), Node: "n1"},
		&fsm.Approve{Plan: id, Token: token},
		&fsm.PausePlan{Plan: id, Why: "x"}, &fsm.Resume{Plan: id}, &fsm.Resume{Plan: id}, &fsm.Cancel{Plan: id}, &fsm.Abandon{Plan: id},
		&fsm.TakeLease{Plan: id, Holder: "n1", For: time.Minute}, &fsm.TakeLease{Plan: id, Holder: fsm.Coordinator, For: time.Minute},
		report, report, report,
		&fsm.SetPolicy{Name: "p", Policy: &fsm.Policy{Approves: []plan.Kind{"array-reshape", "crush-weight"}}},
		&fsm.SetPolicy{Name: "p"},
		&fsm.Maintain{Node: "n1", Why: []string{"", "fan"}[r.IntN(2)]},
	}
	return all[r.IntN(len(all))]
}

// holds checks what must be true after every command.
func holds(t *testing.T, s *fsm.State) {
	t.Helper()
	disks, subjects := map[plan.DiskID]plan.ID{}, map[string]plan.ID{}
	for id, e := range s.Plans {
		if e.Lease != nil && (e.Phase != fsm.Approved && e.Phase != fsm.Running || e.Lease.Term > s.Term) {
			t.Fatalf("plan %s is %s and has a lease", id, e.Phase)
		}
		if !e.Held() {
			continue
		}
		if e.Approval == nil {
			t.Fatalf("plan %s is %s, and nobody approved it", id, e.Phase)
		}
		if o, twice := subjects[e.Plan.Subject]; twice {
			t.Fatalf("plans %s and %s are both held for %s", id, o, e.Plan.Subject)
		}
		subjects[e.Plan.Subject] = id
		for _, d := range e.Plan.Disks {
			if o, twice := disks[d.ID]; twice {
				t.Fatalf("plans %s and %s both have disk %s", id, o, d.ID)
			}
			disks[d.ID] = id
		}
	}
}

func encoded(t testing.TB, s *fsm.State) []byte {
	t.Helper()
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func restored(t testing.TB, s *fsm.State) *fsm.State {
	t.Helper()
	again, err := fsm.DecodeState(encoded(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// TestSubjectsOfNodesAreKeptApart: two nodes have a subject of one name each, and a plan that says no state afterwards leaves none.
func TestSubjectsOfNodesAreKeptApart(t *testing.T) {
	d := newDriver(t)
	d.must(&fsm.ReportNode{Node: "n2", Boot: "b", Generation: 1, Inventory: []byte(`{}`)})
	before := `{"disks":["A","B"]}` // as sample says that it is afterwards
	d.must(&fsm.SetSubject{Subject: "osd 3 on n1", State: []byte(before)})
	d.must(&fsm.SetSubject{Subject: "osd 3 on n2", State: []byte(before)})
	p, other := sample(t, "osd 3", before, "B"), sample(t, "osd 3", before, "C")
	d.refused(fault.Precondition, "nothing is known of osd 3 on n9", &fsm.Propose{Plan: p, Node: "n1", Subject: "osd 3 on n9"})
	d.must(&fsm.Propose{Plan: p, Node: "n1", Subject: "osd 3 on n1"})
	d.must(&fsm.Propose{Plan: other, Node: "n2", Subject: "osd 3 on n2"})
	d.must(&fsm.Approve{Plan: p.ID, Token: "B"})
	d.must(&fsm.Approve{Plan: other.ID, Token: "C"})
	w := d.lease(p.ID, "n1")
	d.step(p.ID, w.Lease.Term, 0, executor.StepVerified)
	w = d.lease(p.ID, fsm.Coordinator)
	d.step(p.ID, w.Lease.Term, 1, executor.StepVerified)
	if _, known := d.s.Subjects["osd 3 on n1"]; known || d.phase(p.ID) != fsm.Completed || d.s.Subjects["osd 3 on n2"].Hash == "" {
		t.Fatalf("%s: %v", d.phase(p.ID), d.s.Subjects)
	}
}
