package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Bounds of what is remembered. They are part of the rules: another bound gives another state.
const (
	keepHistory = 10_000 // events
	keepAnswers = 4096   // answers by key
	keepOver    = 1000   // plans that are over
	keepWhole   = 20     // of those, with all that their steps needed

	mostProposals = 1000 // plans that wait for approval
	maxBody       = 8 << 20

	// Of one node, since version 2: its agent must not take all there is.
	mostNodeProposals = 100
	mostNodeSubjects  = 1000
	mostNodeStates    = 16 << 20 // bytes of the states of its subjects
)

// Answer is what a command gave: a value in JSON, or the class and text of its refusal.
type Answer struct {
	Value   json.RawMessage `json:"value,omitempty"`
	Class   string          `json:"class,omitempty"`
	Message string          `json:"message,omitempty"`
}

// Answers are those to the last commands with keys.
type Answers struct {
	Of    map[string]Answer `json:"of"`
	Order []string          `json:"order"` // the oldest first
}

// classes are those that a refusal can have.
var classes = []error{fault.Invalid, fault.NotFound, fault.Exists, fault.Busy, fault.Precondition, fault.Denied, fault.Aborted, fault.Range, fault.Unsupported}

// Err is the refusal, nil for none.
func (a Answer) Err() error {
	if a.Message == "" {
		return nil
	}
	for _, class := range classes {
		if class.Error() == a.Class {
			return fault.New(class, "%s", a.Message)
		}
	}
	return errors.New(a.Message)
}

// Read decodes the value into v.
func (a Answer) Read(v any) error {
	if err := a.Err(); err != nil {
		return err
	}
	if err := json.Unmarshal(a.Value, v); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// Event is one thing that was done, and by whom.
type Event struct {
	At   time.Time `json:"at"`
	Who  string    `json:"who"`
	What string    `json:"what"`
	On   string    `json:"on"` // a plan, node, subject or policy
}

// Apply does one command. It never fails: a refusal is an answer.
func (s *State) Apply(c Command) Answer {
	if c.At.After(s.Clock) {
		s.Clock = c.At
	}
	c.At = s.Clock
	s.Version = max(s.Version, c.Version)
	if a, done := s.Answers.Of[c.Key]; done && c.Key != "" {
		return a
	}
	value, err := c.Body.apply(s, c)
	a := answerOf(value, err)
	s.remember(c.Key, a)
	return a
}

func answerOf(value any, err error) Answer {
	if err != nil {
		a := Answer{Message: err.Error()}
		for _, class := range classes {
			if errors.Is(err, class) {
				a.Class = class.Error()
				break
			}
		}
		return a
	}
	data, err := json.Marshal(value)
	if err != nil {
		return Answer{Message: err.Error()}
	}
	return Answer{Value: data}
}

// remember keeps the answer for the command's second coming.
func (s *State) remember(key string, a Answer) {
	if key == "" {
		return
	}
	s.Answers.Of[key] = a
	s.Answers.Order = append(s.Answers.Order, key)
	if len(s.Answers.Order) > keepAnswers {
		delete(s.Answers.Of, s.Answers.Order[0])
		s.Answers.Order = s.Answers.Order[1:]
	}
}

// note writes the history.
func (s *State) note(c Command, on, format string, args ...any) {
	s.History = append(s.History, Event{At: c.At, Who: c.Who, What: fmt.Sprintf(format, args...), On: on})
	if len(s.History) > keepHistory {
		s.History = s.History[len(s.History)-keepHistory:]
	}
}

// Encode writes the whole state, for a snapshot or a backup.
func (s *State) Encode() ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return data, nil
}

// DecodeState reads what Encode wrote.
func DecodeState(data []byte) (*State, error) {
	s := &State{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fault.New(fault.Invalid, "read state: %w", err)
	}
	if s.Version < 1 || s.Version > commandVersion {
		return nil, fault.New(fault.Unsupported, "state of version %d: this program knows versions up to %d", s.Version, commandVersion)
	}
	if err := s.whole(); err != nil {
		return nil, err
	}
	return s, nil
}

// whole refuses a state that no commands can have led to, and would fall on.
func (s *State) whole() error {
	if s.Nodes == nil || s.Subjects == nil || s.Policies == nil || s.Plans == nil || s.Answers.Of == nil {
		return fault.New(fault.Invalid, "read state: a part of it is null")
	}
	for id, e := range s.Plans {
		if e == nil || e.Plan.ID != id {
			return fault.New(fault.Invalid, "read state: plan %s has another's place", id)
		}
	}
	return nil
}
