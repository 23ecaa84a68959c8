package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/unixhttp"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// bodyLimit is what a request may weigh, in bytes: a plan of 60 disks has about 2 MB.
const bodyLimit = 16 << 20

// Serve answers on listener until ctx ends.
func (a *Agent) Serve(ctx context.Context, listener net.Listener) error {
	return unixhttp.Serve(ctx, listener, a.Handler())
}

// Handler routes the API's paths.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+agentapi.PathStatus, handle(a, func(*http.Request) (agentapi.Status, error) { return a.Status() }))
	mux.HandleFunc("GET "+agentapi.PathInventory, handle(a, a.inventory))
	mux.HandleFunc("GET "+agentapi.PathPlans, handle(a, func(*http.Request) ([]agentapi.Plan, error) { return a.Plans() }))
	mux.HandleFunc("POST "+agentapi.PathPlans, handle(a, a.propose))
	mux.HandleFunc("GET "+agentapi.PathPlans+"/{id}/"+agentapi.PathWatch, a.watch)
	mux.HandleFunc("POST "+agentapi.PathPlans+"/{id}/{verb}", handle(a, a.verb))
	if a.OSDs != nil {
		a.osdRoutes(mux)
	}
	return mux
}

// handle answers with what fn returns.
func handle[A any](a *Agent, fn func(*http.Request) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		answer, err := fn(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			a.Log.Debug("call was given up", obs.KeyMethod, r.URL.Path, obs.KeyError, err)
		}
	}
}

// fail sends an error with its class, which is what the client tells them apart by.
func (a *Agent) fail(w http.ResponseWriter, r *http.Request, err error) {
	a.Log.Warn("call failed", obs.KeyMethod, r.URL.Path, obs.KeyError, err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(volumeapi.FailureOf(err)) // its only error: the client went away
}

func (a *Agent) inventory(*http.Request) (agentapi.Inventory, error) {
	i := a.Inventory()
	if i.Generation == 0 {
		return agentapi.Inventory{}, fault.New(fault.Unavailable, "the disks are being looked at for the first time: ask again")
	}
	return agentapi.Inventory{Generation: i.Generation, Scanned: i.Scanned, Disks: i.Disks}, nil
}

// Plans lists all plans: those that were approved, the oldest first, then the proposals.
func (a *Agent) Plans() ([]agentapi.Plan, error) {
	list, err := a.Ledger.List()
	plans := make([]agentapi.Plan, 0, len(list))
	for _, e := range list {
		plans = append(plans, a.view(e))
	}
	return plans, err
}

// view is an entry with what the journal does not have yet: progress is journalled now and then.
func (a *Agent) view(e ledger.Entry) agentapi.Plan {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := agentapi.Plan{Plan: e.Plan, Status: e.Status, Pausing: e.Pausing, Cancelling: e.Cancelling}
	if s, ok := a.live[e.Plan.ID]; ok {
		p.Status = s
	}
	if e.Err != nil {
		p.Error = e.Err.Error()
	}
	if err := a.refused[e.Plan.ID]; err != nil && !p.Status.Phase.Final() && p.Status.Error == "" {
		p.Status.Phase, p.Status.Error = executor.Failed, err.Error() // it could not even be begun
	}
	return p
}

func (a *Agent) propose(r *http.Request) (agentapi.Plan, error) {
	var raw json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&raw); err != nil {
		return agentapi.Plan{}, fault.New(fault.Invalid, "the request is no plan: %w", err)
	}
	p, err := plan.Parse(raw)
	if err != nil {
		return agentapi.Plan{}, err
	}
	return a.Take(r.Context(), Order{Do: agentapi.Propose, Plan: &p})
}

func (a *Agent) verb(r *http.Request) (agentapi.Plan, error) {
	var o agentapi.Order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		return agentapi.Plan{}, fault.New(fault.Invalid, "the request is no order: %w", err)
	}
	return a.Take(r.Context(), Order{Do: agentapi.Verb(r.PathValue("verb")), ID: plan.ID(r.PathValue("id")), Token: o.Token})
}

// watch sends how far a plan is, whenever that has changed, until it goes on no more without somebody's doing.
func (a *Agent) watch(w http.ResponseWriter, r *http.Request) {
	encoder, control := json.NewEncoder(w), http.NewResponseController(w)
	for last := ""; ; {
		changed := a.Changed()
		e, err := a.Ledger.Find(plan.ID(r.PathValue("id")))
		if err != nil && last == "" {
			a.fail(w, r, err)
			return
		}
		if err != nil {
			return
		}
		p := a.view(e)
		if text := p.Status.String(); text != last {
			if errors.Join(encoder.Encode(p.Status), control.Flush()) != nil {
				return // the client went away
			}
			last = text
		}
		if rests(p) {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

// rests reports whether a plan that was approved waits for a person, or has ended.
func rests(p agentapi.Plan) bool {
	return !p.Status.Phase.Moves() && p.Status.Phase != executor.Proposed
}

// Status is what `holdfast agent status` shows.
func (a *Agent) Status() (agentapi.Status, error) {
	list, err := a.Ledger.List()
	if err != nil {
		return agentapi.Status{}, err
	}
	term, err := a.terms.newest()
	if err != nil {
		return agentapi.Status{}, err
	}
	i := a.Inventory()
	s := agentapi.Status{
		Version: a.Version, Node: a.Node, DataDir: a.DataDir, Term: term, Coordinated: a.Coordinated, MetricsURL: a.MetricsURL, Generation: i.Generation, Scanned: i.Scanned, Checks: a.checks(list),
	}
	for _, e := range list {
		if e.Err == nil && e.Status.Phase == executor.Proposed {
			s.Proposed = append(s.Proposed, agentapi.Proposal{ID: e.Plan.ID, Subject: e.Plan.Subject, What: e.Plan.What})
		}
	}
	for _, d := range i.Disks {
		if !d.Because(storage.ReasonKind) {
			s.Disks++
		}
		if d.Free() {
			s.Free++
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Running, s.Waiting = a.running, a.waiting
	return s, nil
}
