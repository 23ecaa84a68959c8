package fsm_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// The simulation: one state, a node's agent, an operator, and a network that loses, doubles, delays and reorders what they say, all
// drawn from a seed. What the log says was verified must have been done.

// incarnation is one approval of a plan: the same plan may be proposed again after it was abandoned.
type incarnation struct {
	id plan.ID
	n  int
}

// simAgent is the agent of node n1: a machine of few states that forgets all when it crashes.
type simAgent struct {
	boot    int // a new one with every crash: answers to an older one are for nobody
	plan    plan.ID
	inc     incarnation
	term    uint64
	step    int
	begun   bool // its StepBegun was taken
	waiting bool // for an answer
}

type simMessage struct {
	from  int // the agent's boot, -1 for the operator
	body  fsm.Body
	reply *fsm.Answer // nil: a request
	until int         // the turn before which it does not arrive
}

type simulation struct {
	r       *rand.Rand
	s       *fsm.State
	now     time.Time
	turns   int
	agent   simAgent
	network []simMessage
	done    map[incarnation]int // how many steps the world has of it
	current map[plan.ID]int     // the incarnation that was approved last
	plans   []plan.Plan
	faults  map[string]int
	log     []string
	// forget is the planted bug: reports count whatever their term is.
	forget bool
	wrong  string // the first violation
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	d := newDriver(t)
	sim := &simulation{r: rand.New(rand.NewPCG(seed, 7)), s: d.s, now: d.now, done: map[incarnation]int{}, current: map[plan.ID]int{}, faults: map[string]int{}}
	for _, disk := range []string{"B", "C"} {
		p := sample(t, "stack 미디어", `{"disks":["A"]}`, disk)
		p.Steps = append(p.Steps[:1:1], p.Steps[0], p.Steps[0])
		p, err := p.Seal(1)
		if err != nil {
			t.Fatal(err)
		}
		sim.plans = append(sim.plans, p)
	}
	return sim
}

func (sim *simulation) note(format string, args ...any) {
	sim.log = append(sim.log, fmt.Sprintf(format, args...))
}

// turn lets one thing happen.
func (sim *simulation) turn(faulty bool) {
	sim.now = sim.now.Add(time.Duration(sim.r.IntN(3000)) * time.Millisecond)
	sim.turns++
	switch n := sim.r.IntN(80); {
	case !faulty && len(sim.network) > 0:
		sim.deliver(false)
	case faulty && n == 0:
		sim.faults["agent crash"]++
		sim.note("the agent crashes")
		sim.agent = simAgent{boot: sim.agent.boot + 1}
	case faulty && n < 2:
		jump := time.Duration(sim.r.IntN(240)-120) * time.Second
		sim.faults["clock jump"]++
		sim.now = sim.now.Add(jump)
		sim.note("the clock jumps by %v", jump)
	case faulty && n < 4:
		sim.faults["leader change"]++
		again, err := fsm.DecodeState(must(sim.s.Encode()))
		if err != nil {
			sim.wrong = err.Error()
			return
		}
		sim.s = again
	case n < 14:
		sim.operate(faulty)
	case n < 34:
		sim.work(faulty)
	default:
		sim.deliver(faulty)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// operate is what a person may do at any time.
func (sim *simulation) operate(faulty bool) {
	p, found := sim.plans[sim.r.IntN(len(sim.plans))], &fsm.SetSubject{Subject: "stack 미디어", State: []byte(`{"disks":["A"]}`)}
	propose, approve, resume := &fsm.Propose{Plan: p, Node: "n1"}, &fsm.Approve{Plan: p.ID, Token: p.Token()}, &fsm.Resume{Plan: p.ID}
	all := []fsm.Body{propose, propose, propose, approve, approve, approve, resume, resume}
	if faulty {
		all = append(all, &fsm.PausePlan{Plan: p.ID, Why: "x"}, &fsm.Cancel{Plan: p.ID}, &fsm.Abandon{Plan: p.ID}, &fsm.Abandon{Plan: p.ID}, found, found)
	}
	sim.send(-1, all[sim.r.IntN(len(all))])
}

// work is the agent's next move.
func (sim *simulation) work(faulty bool) {
	a := &sim.agent
	switch {
	case a.waiting:
		if sim.r.IntN(12) == 0 { // the call's deadline has come: it begins anew
			*a = simAgent{boot: a.boot}
		}
	case a.plan == "":
		a.waiting = true
		sim.send(a.boot, &fsm.TakeLease{Plan: sim.plans[sim.r.IntN(len(sim.plans))].ID, Holder: "n1", For: 30 * time.Second})
	case !a.begun:
		a.waiting = true
		sim.report(executor.StepBegun)
	case faulty && sim.r.IntN(12) == 0:
		a.waiting = true
		sim.report(executor.Stopped)
	default:
		if sim.done[a.inc] == a.step { // Do is idempotent, and in order
			sim.done[a.inc] = a.step + 1
		}
		a.waiting = true
		sim.report(executor.StepVerified)
	}
}

func (sim *simulation) report(e executor.Event) {
	a := sim.agent
	sim.send(a.boot, &fsm.ReportStep{Plan: a.plan, Holder: "n1", Term: a.term, Record: executor.Record{Step: a.step, Event: e}, For: 30 * time.Second})
}

func (sim *simulation) send(from int, b fsm.Body) {
	sim.network = append(sim.network, simMessage{from: from, body: b})
}

// deliver brings one message that is under way to where it is for.
func (sim *simulation) deliver(faulty bool) {
	if len(sim.network) == 0 {
		return
	}
	i := sim.r.IntN(len(sim.network))
	m := &sim.network[i]
	if faulty && m.until > sim.turns {
		return
	}
	fate := 9
	if faulty {
		fate = sim.r.IntN(10)
	}
	switch fate {
	case 0:
		sim.faults["late message"]++
		m.until = sim.turns + sim.r.IntN(400)
		return
	case 1:
		sim.faults["doubled message"]++
		again := *m
		again.until = sim.turns + sim.r.IntN(400)
		sim.network = append(sim.network, again)
	}
	sim.arrive(i, fate == 2)
}

// arrive takes a message out of the network, and loses it or brings it to where it is for.
func (sim *simulation) arrive(i int, lost bool) {
	m := sim.network[i]
	sim.network = slices.Delete(sim.network, i, i+1)
	switch {
	case lost:
		sim.faults["lost message"]++
	case m.reply != nil:
		sim.hear(m)
	default:
		sim.apply(m)
	}
}

// apply commits a request and checks what it says against the world.
func (sim *simulation) apply(m simMessage) {
	b := m.body
	report, isReport := b.(*fsm.ReportStep)
	var held incarnation
	before := -1
	if isReport {
		if e := sim.s.Plans[report.Plan]; e != nil {
			held, before = incarnation{report.Plan, sim.current[report.Plan]}, e.Status().Step
			if sim.forget && e.Lease != nil {
				copied := *report
				copied.Term = e.Lease.Term
				b = &copied
			}
		}
	}
	a := sim.s.Apply(must(fsm.Decode(must(fsm.NewCommand("x", "", sim.now, b).Encode()))))
	sim.note("%s: %s", said(b), cmp.Or(a.Message, "done"))
	if approve, ok := b.(*fsm.Approve); ok && a.Err() == nil && len(sim.s.Plans[approve.Plan].Records) == 0 && sim.s.Plans[approve.Plan].Phase == fsm.Approved {
		sim.approved(approve.Plan)
	}
	if isReport && a.Err() == nil && report.Record.Event == executor.StepVerified && before == report.Record.Step && sim.done[held] <= before && sim.wrong == "" {
		sim.wrong = fmt.Sprintf("step %d of %s counts as verified, and the world has %d steps of it", before, report.Plan, sim.done[held])
	}
	if m.from >= 0 {
		sim.network = append(sim.network, simMessage{from: m.from, body: m.body, reply: &a})
	}
}

// said is a request in few words.
func said(b fsm.Body) string {
	switch b := b.(type) {
	case *fsm.ReportStep:
		return fmt.Sprintf("n1 reports %s of step %d of %.4s under term %d", b.Record.Event, b.Record.Step, b.Plan, b.Term)
	case *fsm.Propose:
		return fmt.Sprintf("propose %.4s", b.Plan.ID)
	default:
		return fmt.Sprintf("%T %.60v", b, b)
	}
}

// approved begins a new incarnation, unless this approval was counted already.
func (sim *simulation) approved(id plan.ID) {
	e := sim.s.Plans[id]
	key := e.At.UnixNano()
	if known, ok := sim.current[plan.ID(fmt.Sprint(id, key))]; ok {
		sim.current[id] = known
		return
	}
	sim.current[id]++
	sim.current[plan.ID(fmt.Sprint(id, key))] = sim.current[id]
}

// hear brings an answer to the agent that asked, if it is still that one.
func (sim *simulation) hear(m simMessage) {
	a := &sim.agent
	if m.from != a.boot || !a.waiting {
		return
	}
	a.waiting = false
	switch b := m.body.(type) {
	case *fsm.TakeLease:
		var w fsm.Work
		if m.reply.Read(&w) != nil {
			return
		}
		at := executor.StatusOf(w.Plan, w.Records).Step
		*a = simAgent{boot: a.boot, plan: b.Plan, inc: incarnation{b.Plan, sim.current[b.Plan]}, term: w.Lease.Term, step: at}
	case *fsm.ReportStep:
		var o fsm.Orders
		if m.reply.Read(&o) != nil || o.Lease == nil || b.Record.Event == executor.Stopped {
			*a = simAgent{boot: a.boot}
			return
		}
		switch b.Record.Event {
		case executor.StepBegun:
			a.begun = true
		case executor.StepVerified:
			a.step, a.begun = b.Record.Step+1, false
			if o.Rest != "" {
				*a = simAgent{boot: a.boot}
			}
		}
	}
}

// run lets a seed happen: faults first, then peace, in which some plan must come to its end.
func (sim *simulation) run() string {
	for range 2500 {
		if sim.turn(true); sim.wrong != "" {
			return sim.wrong
		}
	}
	for range 3000 {
		if _, known := sim.s.Subjects["stack 미디어"]; !known && len(sim.network) == 0 {
			sim.send(-1, &fsm.SetSubject{Subject: "stack 미디어", State: []byte(`{"disks":["A"]}`)})
		}
		if sim.turn(false); sim.wrong != "" {
			return sim.wrong
		}
		for _, id := range slices.Sorted(maps.Keys(sim.s.Plans)) {
			if sim.s.Plans[id].Phase != fsm.Completed {
				continue
			}
			if n := sim.done[incarnation{id, sim.current[id]}]; n != len(sim.s.Plans[id].Plan.Steps) {
				return fmt.Sprintf("plan %s is completed, and the world has %d steps of it", id, n)
			}
			return ""
		}
	}
	return "no plan came to its end in peace"
}

// TestSimulatedFaultsNeverMakeTheLogLie runs HOLDFAST_SIM_SEEDS seeds (100).
func TestSimulatedFaultsNeverMakeTheLogLie(t *testing.T) {
	seeds := uint64(100)
	if text := os.Getenv("HOLDFAST_SIM_SEEDS"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = n
	}
	faults := map[string]int{}
	for seed := range seeds {
		sim := newSimulation(t, seed)
		if wrong := sim.run(); wrong != "" {
			t.Fatalf("seed %d: %s\n%s", seed, wrong, strings.Join(sim.log[max(0, len(sim.log)-60):], "\n"))
		}
		for kind, n := range sim.faults {
			faults[kind] += n
		}
	}
	t.Logf("%d seeds, faults: %v", seeds, faults)
}

// TestASimulationFindsStaleTerms plants the bug that reports count whatever their term is.
func TestASimulationFindsStaleTerms(t *testing.T) {
	for seed := range uint64(400) {
		sim := newSimulation(t, seed)
		sim.forget = true
		if sim.run(); sim.wrong != "" {
			t.Logf("seed %d: %s", seed, sim.wrong)
			return
		}
	}
	t.Error("a coordinator that takes reports of old terms was not found out")
}
