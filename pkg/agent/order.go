package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
)

// Order is what somebody who may decide wants done to a plan.
type Order struct {
	// Term is that of who decides: 0 for a person at this machine, above it for the leader of the coordinators, whose terms grow.
	Term uint64
	Do   agentapi.Verb
	ID   plan.ID
	// Plan is what is proposed; an approval may bring it, too.
	Plan  *plan.Plan
	Token string // names what is at stake
}

// Take carries an order out. fault.Aborted for a term that is older than the newest one seen here; else errors as of package
// ledger.
func (a *Agent) Take(ctx context.Context, o Order) (agentapi.Plan, error) {
	a.orders.Lock()
	defer a.orders.Unlock()
	if err := a.mayOrder(o); err != nil {
		return agentapi.Plan{}, err
	}
	if !a.mayRun() {
		return agentapi.Plan{}, fault.New(fault.Unavailable, "the agent does not run plans yet: %s", a.why())
	}
	if err := a.take(ctx, &o); err != nil {
		return agentapi.Plan{}, err
	}
	a.Log.Info("order was taken", "verb", o.Do, obs.KeyPlan, o.ID, "term", o.Term)
	a.set(func() { delete(a.refused, o.ID) })
	e, err := a.Ledger.Find(o.ID)
	if errors.Is(err, fault.NotFound) && o.Do == agentapi.Cancel {
		return agentapi.Plan{Status: executor.Status{Plan: o.ID, Phase: executor.Ended}}, nil
	}
	if err != nil {
		return agentapi.Plan{}, err
	}
	return a.view(e), nil
}

// mayOrder refuses who may not give an order. Anybody at this machine may propose: that does nothing.
func (a *Agent) mayOrder(o Order) error {
	if o.Term == 0 && o.Do == agentapi.Propose {
		return nil
	}
	if o.Term == 0 && a.Coordinated {
		return fault.New(fault.Aborted, "this node takes orders of the coordinators: give them there (holdfast plan --certs DIR, with a person's certificate)")
	}
	return a.terms.accept(o.Term)
}

// Term is the newest term that this node has seen; 0 if there never was a coordinator.
func (a *Agent) Term() (uint64, error) { return a.terms.newest() }

// take does the verb and leaves the whole id in o.
func (a *Agent) take(ctx context.Context, o *Order) error {
	if o.Plan != nil {
		o.ID = o.Plan.ID
		if _, err := a.Ledger.Propose(*o.Plan); err != nil {
			return err
		}
	}
	e, err := a.Ledger.Find(o.ID)
	if err != nil {
		return err
	}
	o.ID = e.Plan.ID
	switch o.Do {
	case agentapi.Propose:
		return nil
	case agentapi.Approve:
		return a.Ledger.Approve(e.Plan, o.Token)
	case agentapi.Pause:
		return a.Ledger.Ask(o.ID, journal.WishPause)
	case agentapi.Cancel:
		return a.Ledger.Ask(o.ID, journal.WishCancel)
	case agentapi.Resume:
		return a.resume(e)
	case agentapi.Abandon:
		return a.abandon(ctx, e, o.Token)
	default:
		return fault.New(fault.Invalid, "nothing is known of %q", o.Do)
	}
}

// resume lets a plan go on, also one that has stopped: then it is told to the journal that it is to run again.
func (a *Agent) resume(e ledger.Entry) error {
	if err := a.Ledger.Resume(e.Plan.ID); err != nil {
		return err
	}
	if e.Status.Phase == executor.Running || e.Status.Phase == executor.Waiting {
		return nil
	}
	return a.Ledger.Again(e.Plan.ID, a.Now())
}

// abandon ends the plan's run, if it runs, and then the plan.
func (a *Agent) abandon(ctx context.Context, e ledger.Entry, token string) error {
	if !ledger.Approved(e.Plan, token) {
		return fault.New(fault.Denied, "%q does not name what is at stake: it must be %s", token, e.Plan.Token())
	}
	if e.Status.Phase == executor.Proposed {
		return a.Ledger.Ask(e.Plan.ID, journal.WishCancel)
	}
	a.mu.Lock()
	running, stop, ended := a.running == e.Plan.ID, a.stop, a.ended
	a.mu.Unlock()
	if running {
		// Until the abandoning is through it must not be begun again.
		a.set(func() { a.refused[e.Plan.ID] = fault.New(fault.Aborted, "it is being abandoned") })
		stop()
		select {
		case <-ended:
		case <-ctx.Done(): // a disk that hangs must not keep other orders waiting: it goes on, and may be given up again
			a.set(func() { delete(a.refused, e.Plan.ID) })
			return fmt.Errorf("wait for the run of plan %s to end: %w", e.Plan.ID, ctx.Err())
		}
	}
	err := a.Worker.Abandon(ctx, e.Plan.ID, "abandoned by order")
	if err != nil && running {
		a.set(func() { delete(a.refused, e.Plan.ID) }) // then it goes on
	}
	return err
}

func (a *Agent) mayRun() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.locked
}

func (a *Agent) why() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting
}

// terms is the newest term that this node has seen, in a file: a leader that was deposed is refused also by the next agent.
type terms struct {
	book ledger.Ledger

	mu   sync.Mutex
	read bool
	term uint64
}

// newest is the newest term that was seen; 0 if there never was a coordinator.
func (t *terms) newest() (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known()
}

// known is newest under the lock.
func (t *terms) known() (uint64, error) {
	if t.read {
		return t.term, nil
	}
	n, err := t.book.Term()
	t.read, t.term = err == nil, n
	return n, err
}

// accept refuses a term that is older than the newest one, and remembers a newer one before anything is done by it.
func (t *terms) accept(term uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	newest, err := t.known()
	switch {
	case err != nil:
		return err
	case term < newest && term == 0:
		return t.book.Own()
	case term < newest:
		return fault.New(fault.Aborted, "term %d is over, the newest is %d: another leader was elected", term, newest)
	case term == newest:
		return nil
	}
	if err := journal.Save(t.book.TermFile(), strconv.FormatUint(term, 10)+"\n"); err != nil {
		return err
	}
	t.term = term
	return nil
}
