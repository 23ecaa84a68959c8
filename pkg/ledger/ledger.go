// Package ledger is what a machine knows of its plans: those that are proposed, those that somebody approved, how far
// each has come, and which state of a stack the next plan starts from. It is a directory of files, so that it is the
// same for the agent, for the command line without an agent, and after a crash.
//
// Invariant: a plan has a journal only after somebody has approved it and its parent was the state that there was.
//
// It must not import what does the steps.
package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// Ledger is the plans of one machine.
type Ledger struct {
	Dir string
	// Fresh says whether a plan fits the world if its subject is no stack: fault.Precondition with the difference. nil refuses those.
	Fresh func(plan.Plan) error
}

// Of is the ledger below a data directory.
func Of(dataDir string) Ledger { return Ledger{Dir: filepath.Join(dataDir, "plans")} }

// TermFile is the file of the newest term of coordinators that this machine has seen.
func (l Ledger) TermFile() string { return filepath.Join(l.Dir, "term") }

// Term is that term; 0 if there never was a coordinator.
func (l Ledger) Term() (uint64, error) {
	data, err := os.ReadFile(l.TermFile())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the newest term: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%s: %w", l.TermFile(), err)
	}
	return n, nil
}

// Own refuses the orders of who is at this machine once coordinators have given any: fault.Aborted.
func (l Ledger) Own() error {
	term, err := l.Term()
	if err != nil || term == 0 {
		return err
	}
	return fault.New(fault.Aborted, "this node takes orders of the coordinators (term %d): give them there; if there are none any more, remove %s and start the agent again, if it runs", term, l.TermFile())
}

// Entry is a plan and what has become of it.
type Entry struct {
	Plan   plan.Plan
	Status executor.Status
	// Pausing and Cancelling are wishes of somebody who does not run it.
	Pausing, Cancelling bool
	// Touched is whether any step may have changed something.
	Touched bool
	Err     error // why it cannot be read
}

// List lists the plans that were approved, the oldest first, then the proposals by their IDs.
func (l Ledger) List() ([]Entry, error) {
	journals, err := journal.List(l.Dir)
	if err != nil {
		return nil, err
	}
	var list []Entry
	for _, j := range journals {
		list = append(list, l.entry(j))
	}
	proposals, err := journal.Proposals(l.Dir)
	if err != nil {
		return nil, err
	}
	for _, j := range proposals {
		if !slices.ContainsFunc(list, func(e Entry) bool { return e.Plan.ID == j.Plan.ID }) {
			e := proposed(j.Plan)
			e.Err = j.Err
			list = append(list, e)
		}
	}
	return list, nil
}

func proposed(p plan.Plan) Entry {
	return Entry{Plan: p, Status: executor.Status{Plan: p.ID, Phase: executor.Proposed, Steps: len(p.Steps), Forecast: p.Forecast}}
}

func (l Ledger) entry(j journal.Entry) Entry {
	if j.Err != nil {
		j.Plan.ID = plan.ID(strings.TrimSuffix(filepath.Base(j.Path), journal.Suffix))
	}
	return Entry{
		Plan: j.Plan, Status: executor.StatusOf(j.Plan, j.Records), Err: j.Err, Touched: executor.Touched(j.Records) || j.Err != nil,
		Pausing: journal.Asked(l.Dir, j.Plan.ID, journal.WishPause), Cancelling: journal.Asked(l.Dir, j.Plan.ID, journal.WishCancel),
	}
}

// Find finds a plan by its ID, or by the beginning of it that no other plan has.
func (l Ledger) Find(id plan.ID) (Entry, error) {
	list, err := l.List()
	if err != nil {
		return Entry{}, err
	}
	e, err := Pick(list, id, func(e Entry) plan.ID { return e.Plan.ID })
	return e, errors.Join(err, e.Err)
}

// Pick finds a plan by its ID, or by the beginning of it that no other plan has. fault.NotFound if there is none; fault.Invalid if there are several.
func Pick[T any](list []T, id plan.ID, of func(T) plan.ID) (T, error) {
	var none T
	var found []T
	for _, e := range list {
		if of(e) == id {
			return e, nil
		}
		if id != "" && strings.HasPrefix(string(of(e)), string(id)) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return none, fault.New(fault.NotFound, "there is no plan %s: see `holdfast plan list`", id)
	case 1:
		return found[0], nil
	default:
		return none, fault.New(fault.Invalid, "%d plans begin with %s: say more of the id", len(found), id)
	}
}

// Propose keeps a plan for somebody to approve. Of one that is known already nothing changes.
func (l Ledger) Propose(p plan.Plan) (Entry, error) {
	if e, err := l.Find(p.ID); err == nil {
		return e, nil
	}
	if err := l.fresh(p); err != nil {
		return Entry{}, err
	}
	return proposed(p), journal.Propose(l.Dir, p)
}

// Approve makes a plan one that may be run, for the token that names what is at stake. fault.Denied for another token;
// fault.Precondition if the state that it was made from is not the one that there is; fault.Busy while another plan of the
// subject is between its steps.
func (l Ledger) Approve(p plan.Plan, token string) error {
	if !Approved(p, token) {
		return fault.New(fault.Denied, "%q does not name what is at stake: it must be %s", token, p.Token())
	}
	if _, err := journal.Read(l.Dir, p.ID); err == nil || !errors.Is(err, fault.NotFound) {
		return errors.Join(err, journal.Withdraw(l.Dir, p.ID)) // approved already
	}
	if err := l.fresh(p); err != nil {
		return err
	}
	j, err := journal.Create(l.Dir, p)
	if err != nil {
		return err
	}
	return errors.Join(j.Close(), journal.Resume(l.Dir, p.ID), journal.Withdraw(l.Dir, p.ID))
}

// Approved compares serials in any order.
func Approved(p plan.Plan, token string) bool {
	list := strings.Split(token, ",")
	slices.Sort(list)
	return strings.Join(list, ",") == p.Token()
}

// Open takes the journal of an approved plan to run what is left of it. One that changed nothing yet must still be of the state
// that there is. fault.NotFound if nobody has approved it.
func (l Ledger) Open(id plan.ID) (*journal.Journal, error) {
	j, err := journal.Open(l.Dir, id)
	if err != nil {
		return nil, err
	}
	if !executor.Touched(j.Records()) {
		err = l.fresh(j.Plan())
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// Ask leaves a wish for whoever runs the plan. A proposal that is cancelled is forgotten.
func (l Ledger) Ask(id plan.ID, w journal.Wish) error {
	e, err := l.Find(id)
	switch {
	case err != nil:
		return err
	case e.Status.Phase == executor.Proposed && w == journal.WishCancel:
		return journal.Withdraw(l.Dir, e.Plan.ID)
	case e.Status.Phase == executor.Proposed:
		return fault.New(fault.Precondition, "plan %s is not approved: there is nothing to pause", e.Plan.ID)
	case e.Status.Phase.Final():
		return fault.New(fault.Precondition, "plan %s has come to its end (%s)", e.Plan.ID, e.Status)
	}
	return journal.Ask(l.Dir, e.Plan.ID, w)
}

// Resume takes wishes back, so that the plan may go on.
func (l Ledger) Resume(id plan.ID) error {
	e, err := l.Find(id)
	switch {
	case err != nil:
		return err
	case e.Status.Phase == executor.Proposed:
		return fault.New(fault.Precondition, "plan %s is not approved: `holdfast plan approve %s`", e.Plan.ID, e.Plan.ID)
	case e.Status.Phase.Final():
		return fault.New(fault.Precondition, "plan %s has come to its end (%s)", e.Plan.ID, e.Status)
	}
	return journal.Resume(l.Dir, e.Plan.ID)
}

// Again records that a plan which rests is to run. fault.Busy while another process has it.
func (l Ledger) Again(id plan.ID, now time.Time) error {
	j, err := journal.Open(l.Dir, id)
	if err != nil {
		return err
	}
	verified, _ := executor.Reached(j.Records())
	return errors.Join(j.Append(executor.Record{Event: executor.Again, Step: verified, At: now.UTC()}), j.Close())
}

// Paused reports whether the plan is asked to pause.
func (l Ledger) Paused(id plan.ID) bool { return journal.Asked(l.Dir, id, journal.WishPause) }

// Cancelled reports whether the plan is asked to end between two steps.
func (l Ledger) Cancelled(id plan.ID) bool { return journal.Asked(l.Dir, id, journal.WishCancel) }

// Next is the approved plan that is to be run now: one that was begun before one that was not, the older one first. Plans that
// were stopped by an error, paused or cancelled wait for a person. false if there is none.
func Next(list []Entry, skip func(plan.ID) bool) (Entry, bool) {
	var ready []Entry
	for _, e := range list {
		// A step that was begun goes on also under a pause, to be slowed.
		runs := e.Status.Phase == executor.Running || e.Status.Phase == executor.Waiting && !e.Pausing
		if e.Err == nil && runs && !e.Cancelling && !skip(e.Plan.ID) {
			ready = append(ready, e)
		}
	}
	if len(ready) == 0 {
		return Entry{}, false
	}
	return slices.MinFunc(ready, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Status.Since.Compare(b.Status.Since))
	}), true
}

func rank(e Entry) int {
	if e.Status.Phase == executor.Running {
		return 0
	}
	return 1
}

// Subject says whose a plan is: the word and the name of its subject, such as "stack" and "media".
func Subject(p plan.Plan) (kind, name string) {
	kind, name, _ = strings.Cut(p.Subject, " ")
	return kind, name
}

// fresh refuses a plan that was made from another state than the one that there is.
func (l Ledger) fresh(p plan.Plan) error {
	if kind, _ := Subject(p); kind == Stacks {
		return l.freshStack(p)
	}
	if l.Fresh == nil {
		return fault.New(fault.Unsupported, "plan %s is of %s, which only the agent can look after: start it by `holdfastd agent`", p.ID, p.Subject)
	}
	if err := l.Fresh(p); err != nil {
		return fmt.Errorf("plan %s is stale: %w", p.ID, err)
	}
	return nil
}
