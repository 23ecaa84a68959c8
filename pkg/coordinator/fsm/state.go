// Package fsm is what the coordinators agree on and the rules by which it changes: a State, Commands, and Apply.
//
// Invariant: Apply is pure. The same commands in the same order give the same state, byte for byte, on every member
// and after every restart; time, names and chance come in with the command. A refused command changes nothing but
// the clock, the version and the history of answers.
//
// It must not import raft, files, the network or the clock.
package fsm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// State is what the coordinators agree on. The zero value is not ready: see New.
type State struct {
	// Version is the newest of the commands that led here: a program that does not know it would lose a part of the state.
	Version int `json:"version"`
	// Clock is the latest time that any command told. It never goes back, whatever a leader's clock does.
	Clock time.Time `json:"clock"`
	// Term numbers leases over all plans: a larger one was given later.
	Term     uint64                  `json:"term"`
	Nodes    map[storage.NodeID]Node `json:"nodes"`
	Subjects map[string]Subject      `json:"subjects"` // what plans change, such as "stack media on n1"
	Policies map[string]Policy       `json:"policies"`
	Plans    map[plan.ID]*Entry      `json:"plans"`
	Throttle Throttle                `json:"throttle"`
	Tokens   map[string]Token        `json:"tokens,omitempty"` // join tokens, by the hashes of their secrets
	History  []Event                 `json:"history"`          // the newest last
	Answers  Answers                 `json:"answers"`
}

// New is the state before the first command.
func New() *State {
	return &State{
		Version: 1, Nodes: map[storage.NodeID]Node{}, Subjects: map[string]Subject{}, Policies: map[string]Policy{},
		Plans: map[plan.ID]*Entry{}, Answers: Answers{Of: map[string]Answer{}},
	}
}

// Node is what a node's agent told of it last.
type Node struct {
	// Generation grows with each change of the inventory; it begins anew with each Boot.
	Generation  uint64          `json:"generation"`
	Boot        string          `json:"boot"`
	Inventory   json.RawMessage `json:"inventory,omitempty"`
	Reported    time.Time       `json:"reported"`
	Maintenance string          `json:"maintenance,omitempty"` // why no work is given to it; "" for none
}

// Subject is one thing that plans change, one plan at a time.
type Subject struct {
	State json.RawMessage `json:"state,omitempty"`
	Hash  string          `json:"hash"` // plan.Hash of State: the parent of plans for it
}

// Policy is what people want, by name. Spec is read by whoever plans; Approves by the rules here.
type Policy struct {
	Spec json.RawMessage `json:"spec,omitempty"`
	// Approves are the kinds of steps that need no person: a plan of such steps alone, which takes and releases no
	// disk, is approved as it comes.
	Approves []plan.Kind `json:"approves,omitempty"`
}

// Throttle bounds what plans may cost the cluster's clients.
type Throttle struct {
	// Backfills is how many shards move to or from one OSD at a time, and in a wave of plans that are made from now on; 0: the planner's own.
	Backfills int `json:"backfills_per_osd,omitempty"`
	// Bytes is how much is let move in a second, and Latency how long the OSDs' commits may take while more is; 0: any.
	Bytes   storage.Bytes `json:"bytes_per_second,omitempty"`
	Latency time.Duration `json:"commit_latency_ns,omitempty"`
}

// String says it to a person.
func (t Throttle) String() string {
	text := fmt.Sprintf("at most %d backfills an OSD in a wave (0: the planner's own)", t.Backfills)
	if t.Bytes > 0 {
		text += fmt.Sprintf(", %s a second", t.Bytes)
	}
	if t.Latency > 0 {
		text += fmt.Sprintf(", while commits take up to %s", t.Latency)
	}
	return text
}

// Phase is where a plan is.
type Phase string

// The phases. Held plans are those that stand between their subject and another plan.
const (
	Proposed  Phase = "proposed"
	Approved  Phase = "approved" // nobody works on it yet
	Running   Phase = "running"  // somebody did, and may do now: see its lease
	Stopped   Phase = "stopped"  // by an error; it goes on when it is resumed
	Cancelled Phase = "cancelled"
	Completed Phase = "completed"
	Abandoned Phase = "abandoned" // given up in the middle: its subject is as it is
)

// Entry is a plan and how far it is.
type Entry struct {
	Plan plan.Plan `json:"plan"`
	// Node runs the steps whose executor is "node".
	Node storage.NodeID `json:"node,omitempty"`
	// On is the plan's subject among those of all nodes; "" if its own name is that.
	On string `json:"on,omitempty"`
	// Saw is the subject's state that it was computed from, for the difference when that has changed.
	Saw      json.RawMessage `json:"saw,omitempty"`
	Phase    Phase           `json:"phase"`
	By       string          `json:"by"` // who proposed it
	At       time.Time       `json:"at"`
	Approval *Approval       `json:"approval,omitempty"`
	Pause    *Pause          `json:"pause,omitempty"` // no further step is begun
	Cancel   bool            `json:"cancel,omitempty"`
	Lease    *Lease          `json:"lease,omitempty"`
	// Records are those of its run, with no progress but the last.
	Records []executor.Record `json:"records,omitempty"`
	Ended   time.Time         `json:"ended,omitzero"`
	// Superseded is why an abandoned plan has made way for another.
	Superseded *Superseded `json:"superseded,omitempty"`
	// Trimmed: the plan is over for long, and what its steps needed is forgotten. Its ID is still that of the whole.
	Trimmed bool `json:"trimmed,omitempty"`
}

// Approval is who allowed a plan.
type Approval struct {
	By string    `json:"by"` // a person, or "policy NAME"
	At time.Time `json:"at"`
}

// Pause is why a plan waits.
type Pause struct {
	By  string    `json:"by"`
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

// Superseded is the plan that came in the place of another, "" where nothing was left to do, and why.
type Superseded struct {
	By  plan.ID `json:"by,omitempty"`
	Why string  `json:"why"`
}

// Lease is the right to work on a plan's current step. Who reports under an older term is refused.
type Lease struct {
	Holder string    `json:"holder"`
	Term   uint64    `json:"term"`
	Until  time.Time `json:"until"`
}

// Subject is what the plan changes, by its name among those of all nodes.
func (e *Entry) Subject() string { return cmp.Or(e.On, e.Plan.Subject) }

// Status is how far the plan has come.
func (e *Entry) Status() executor.Status { return executor.StatusOf(e.Plan, e.Records) }

// Held reports whether the plan stands between its subject and other plans: it is allowed, or something of it is done.
func (e *Entry) Held() bool {
	switch e.Phase {
	case Approved, Running, Stopped:
		return true
	case Cancelled:
		return executor.Touched(e.Records)
	default:
		return false
	}
}

// Over reports whether nothing can happen to the plan any more.
func (e *Entry) Over() bool {
	return e.Phase == Completed || e.Phase == Abandoned || e.Phase == Cancelled && !executor.Touched(e.Records)
}

// Coordinator is the holder of the steps that a coordinator does itself.
const Coordinator = "coordinator"

// Worker is who does the plan's current step: a node's name, or Coordinator; "" at its end.
func (e *Entry) Worker() string {
	at := e.Status().Step
	if at >= len(e.Plan.Steps) {
		return ""
	}
	return e.workerOf(at)
}

func (e *Entry) workerOf(step int) string {
	if e.Plan.Steps[step].Executor == Coordinator {
		return Coordinator
	}
	return string(e.Node)
}
