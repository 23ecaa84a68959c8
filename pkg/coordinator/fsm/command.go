package fsm

import (
	"encoding/json"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Command is one entry of the log. Its encoding is for ever: a log that any version wrote is replayed by all later ones.
type Command struct {
	Version int `json:"v"`
	// Key names the request: a command that comes twice is done once, and answered twice alike. "" is not remembered.
	Key string `json:"key,omitempty"`
	// Who asked, by the name in their certificate.
	Who string `json:"who"`
	// At is the leader's clock.
	At   time.Time `json:"at"`
	Kind Kind      `json:"kind"`
	Body Body      `json:"body"`
}

// Kind names what a command does.
type Kind string

// Body is the part of a command that is its kind's own; one of the types below.
type Body interface {
	kind() Kind
	apply(s *State, c Command) (any, error)
}

// commandVersion is that of the encoding that this program writes; it reads all up to it. Version 2 has throttles of bytes and latency,
// plans that are superseded, and what nodes report.
const commandVersion = 2

// bodies makes the body of each kind.
var bodies = map[Kind]func() Body{
	"report-node": func() Body { return &ReportNode{} },
	"maintain":    func() Body { return &Maintain{} },
	"set-subject": func() Body { return &SetSubject{} },
	"set-policy":  func() Body { return &SetPolicy{} },
	"throttle":    func() Body { return &SetThrottle{} },
	"propose":     func() Body { return &Propose{} },
	"approve":     func() Body { return &Approve{} },
	"pause":       func() Body { return &PausePlan{} },
	"resume":      func() Body { return &Resume{} },
	"cancel":      func() Body { return &Cancel{} },
	"abandon":     func() Body { return &Abandon{} },
	"lease":       func() Body { return &TakeLease{} },
	"report-step": func() Body { return &ReportStep{} },
	"supersede":   func() Body { return &Supersede{} },
	"admit":       func() Body { return &Admit{} },
	"join":        func() Body { return &Join{} },
}

// ReportNode tells a node's inventory.
type ReportNode struct {
	Node       storage.NodeID  `json:"node"`
	Boot       string          `json:"boot"`
	Generation uint64          `json:"generation"`
	Inventory  json.RawMessage `json:"inventory"`
}

// Maintain keeps work from a node, or gives it back with Why "".
type Maintain struct {
	Node storage.NodeID `json:"node"`
	Why  string         `json:"why"`
}

// SetSubject tells the state that a subject was found in.
type SetSubject struct {
	Subject string          `json:"subject"`
	State   json.RawMessage `json:"state"`
}

// SetPolicy writes a policy; a nil Policy removes it.
type SetPolicy struct {
	Name   string  `json:"name"`
	Policy *Policy `json:"policy"`
}

// SetThrottle bounds what plans cost.
type SetThrottle struct {
	Throttle Throttle `json:"throttle"`
}

// Propose takes a plan in. Node runs the steps whose executor is "node".
type Propose struct {
	Plan plan.Plan      `json:"plan"`
	Node storage.NodeID `json:"node,omitempty"`
	// Subject is the plan's among those of all nodes; "" if its own name is that (since version 2).
	Subject string `json:"subject,omitempty"`
}

// Approve allows a plan. Token is plan.Token: what a person must have read.
type Approve struct {
	Plan  plan.ID `json:"plan"`
	Token string  `json:"token"`
}

// PausePlan keeps a plan from beginning another step.
type PausePlan struct {
	Plan plan.ID `json:"plan"`
	Why  string  `json:"why"`
}

// Resume lets a plan go on that was paused, stopped by an error or cancelled in the middle.
type Resume struct {
	Plan plan.ID `json:"plan"`
	// PausedBy lifts a pause of that one alone, and nothing else; it does nothing where somebody else has paused the plan since.
	PausedBy string `json:"paused_by,omitempty"`
}

// Cancel ends a plan before its next step.
type Cancel struct {
	Plan plan.ID `json:"plan"`
	// Own takes a proposal of who asks back, and nothing else (since version 2).
	Own bool `json:"own,omitempty"`
}

// Abandon gives a plan up in the middle: its subject is free for other plans once its state was told anew.
type Abandon struct {
	Plan plan.ID `json:"plan"`
}

// Supersede gives up a plan of the coordinator's whose subject has changed under it, and proposes another in its place: nil for none. It
// is for the member that leads, once it has ended its own work on the plan.
type Supersede struct {
	Plan  plan.ID         `json:"plan"`
	Why   string          `json:"why"`
	State json.RawMessage `json:"state"` // of the subject as it is
	By    *plan.Plan      `json:"by,omitempty"`
}

// TakeLease asks for the right to work on a plan's current step for a time. The answer is a Work.
type TakeLease struct {
	Plan   plan.ID       `json:"plan"`
	Holder string        `json:"holder"`
	For    time.Duration `json:"for_ns"`
}

// Work is a lease with what its holder needs to go on.
type Work struct {
	Lease   Lease             `json:"lease"`
	Plan    plan.Plan         `json:"plan"`
	Records []executor.Record `json:"records,omitempty"`
}

// ReportStep tells how a step goes, and renews the lease.
type ReportStep struct {
	Plan   plan.ID         `json:"plan"`
	Holder string          `json:"holder"`
	Term   uint64          `json:"term"`
	Record executor.Record `json:"record"`
	For    time.Duration   `json:"for_ns,omitempty"`
}

func (*ReportNode) kind() Kind  { return "report-node" }
func (*Maintain) kind() Kind    { return "maintain" }
func (*SetSubject) kind() Kind  { return "set-subject" }
func (*SetPolicy) kind() Kind   { return "set-policy" }
func (*SetThrottle) kind() Kind { return "throttle" }
func (*Propose) kind() Kind     { return "propose" }
func (*Approve) kind() Kind     { return "approve" }
func (*PausePlan) kind() Kind   { return "pause" }
func (*Resume) kind() Kind      { return "resume" }
func (*Cancel) kind() Kind      { return "cancel" }
func (*Abandon) kind() Kind     { return "abandon" }
func (*TakeLease) kind() Kind   { return "lease" }
func (*Supersede) kind() Kind   { return "supersede" }
func (*ReportStep) kind() Kind  { return "report-step" }

// NewCommand makes a command of this version.
func NewCommand(who, key string, at time.Time, b Body) Command {
	return Command{Version: commandVersion, Key: key, Who: who, At: at.UTC(), Kind: b.kind(), Body: b}
}

// Encode writes a command for the log.
func (c Command) Encode() ([]byte, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fault.New(fault.Invalid, "encode command %s: %w", c.Kind, err)
	}
	return data, nil
}

// Decode reads a command. fault.Unsupported: a later program wrote it, and this one must not go on without it;
// fault.Invalid: it is no command at all.
func Decode(data []byte) (Command, error) {
	var raw struct {
		Command

		Body json.RawMessage `json:"body"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return Command{}, fault.New(fault.Invalid, "read command: %w", err)
	}
	c := raw.Command
	build, known := bodies[c.Kind]
	if c.Version > commandVersion || c.Version == commandVersion && !known {
		return Command{}, fault.New(fault.Unsupported, "command %q of version %d was written by a later program: upgrade this one", c.Kind, c.Version)
	}
	if c.Version < 1 || !known {
		return Command{}, fault.New(fault.Invalid, "command %q of version %d never was", c.Kind, c.Version)
	}
	c.Body = build()
	if err := json.Unmarshal(raw.Body, c.Body); err != nil {
		return Command{}, fault.New(fault.Invalid, "read command %s: %w", c.Kind, err)
	}
	return c, nil
}
