package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// The phases of plans, as the coordinators name them.
const (
	proposed  = "proposed"
	approved  = "approved"
	running   = "running"
	cancelled = "cancelled"
	completed = "completed"
	abandoned = "abandoned"
)

// hand hands what was proposed here over to the coordinators, who keep it from then on.
func (u *Uplink) hand(ctx context.Context, local []agentapi.Plan) error {
	maps.DeleteFunc(u.refused, func(id plan.ID, _ refusal) bool {
		return !slices.ContainsFunc(local, func(p agentapi.Plan) bool { return p.Plan.ID == id })
	})
	for _, p := range local {
		if p.Status.Phase != executor.Proposed || p.Error != "" || u.waits(p.Plan.ID) {
			continue
		}
		err := u.propose(ctx, p.Plan)
		switch {
		case err == nil:
			u.Log.Info("proposal was handed over", obs.KeyPlan, p.Plan.ID, obs.KeyName, p.Plan.Subject)
			delete(u.refused, p.Plan.ID)
			if err := u.Withdraw(p.Plan.ID); err != nil {
				return err
			}
		case errors.Is(err, fault.Unavailable):
			return err
		case u.refuse(p.Plan.ID, err):
			u.Log.Warn("the coordinators do not take a proposal", obs.KeyPlan, p.Plan.ID, obs.KeyError, err)
		}
	}
	return nil
}

// refusal is why something of a plan was refused, by the coordinators or here. It is tried again after a pause that doubles each time, and
// whenever the disks have changed.
type refusal struct {
	why        string
	pause      time.Duration
	until      time.Time
	generation uint64 // of the inventory
}

// The pauses before what was refused is tried again.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// waits reports whether what was refused of a plan is not to be tried yet.
func (u *Uplink) waits(id plan.ID) bool {
	r, ok := u.refused[id]
	return ok && time.Now().Before(r.until) && u.Inventory().Generation == r.generation
}

// refuse notes a refusal, and reports whether it is news.
func (u *Uplink) refuse(id plan.ID, err error) bool {
	last := u.refused[id]
	pause := min(max(firstPause, 2*last.pause), lastPause)
	u.refused[id] = refusal{err.Error(), pause, time.Now().Add(pause), u.Inventory().Generation}
	return last.why != err.Error()
}

func (u *Uplink) propose(ctx context.Context, p plan.Plan) error {
	if err := u.tellState(ctx, p); err != nil {
		return err
	}
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode plan %s: %w", p.ID, err)
	}
	_, err = call(ctx, u, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
		return api.ProposePlan(ctx, &v1.ProposePlanRequest{Plan: data, Node: u.Node}, o...)
	})
	if err != nil { // perhaps they have forgotten the state
		delete(u.told, u.subject(p))
	}
	return err
}

// subject is the name of a plan's subject among those of all nodes.
func (u *Uplink) subject(p plan.Plan) string { return p.Subject + " on " + u.Node }

// tellState tells what the subject of a plan is like now.
func (u *Uplink) tellState(ctx context.Context, p plan.Plan) error {
	state, err := u.State(ctx, p)
	if err != nil {
		return err
	}
	hash, err := plan.Hash(state)
	if err != nil {
		return err
	}
	name := u.subject(p)
	if u.told[name] == hash {
		return nil
	}
	_, err = call(ctx, u, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.SetSubjectResponse, error) {
		return api.SetSubject(ctx, &v1.SetSubjectRequest{Subject: name, State: state}, o...)
	})
	if err == nil {
		u.told[name] = hash
	}
	return err
}

// look tells what the subjects of proposals are like, after each change of the disks: an approval is measured by that.
func (u *Uplink) look(ctx context.Context) error {
	generation := u.Inventory().Generation
	if generation == u.seen {
		return nil
	}
	for id, m := range u.plans {
		if m.GetPhase() != proposed {
			continue
		}
		p, err := u.body(ctx, id)
		if err == nil {
			err = u.tellState(ctx, p)
		}
		if errors.Is(err, fault.Unavailable) {
			return err
		}
		if err != nil {
			u.Log.Debug("the state of a subject is not told", obs.KeyPlan, id, obs.KeyError, err)
		}
	}
	u.seen = generation
	return nil
}

// withdraw takes proposals back that were handed over and are outdated by now.
func (u *Uplink) withdraw(ctx context.Context) error {
	for _, id := range u.Agent.Outdated() {
		if m := u.plans[id]; m.GetPhase() != proposed || m.GetProposedBy() != "agent/"+u.Node {
			continue
		}
		_, err := call(ctx, u, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
			return api.ChangePlan(ctx, &v1.ChangePlanRequest{Id: string(id), Verb: v1.ChangePlanRequest_VERB_CANCEL}, o...)
		})
		u.asked = time.Time{} // it has gone, or somebody was faster
		if err != nil {
			return err
		}
		u.Log.Info("outdated proposal was taken back", obs.KeyPlan, id)
	}
	return nil
}

// body is the whole plan: it never changes.
func (u *Uplink) body(ctx context.Context, id plan.ID) (plan.Plan, error) {
	if p, ok := u.bodies[id]; ok {
		return p, nil
	}
	m, err := u.get(ctx, id)
	if err != nil {
		return plan.Plan{}, err
	}
	p, err := plan.Parse(m.GetPlan())
	if err == nil {
		u.bodies[id] = p
	}
	return p, err
}

func (u *Uplink) get(ctx context.Context, id plan.ID) (*v1.Plan, error) {
	return call(ctx, u, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
		return api.GetPlan(ctx, &v1.GetPlanRequest{Id: string(id)}, o...)
	})
}

// ask lists this node's plans that are not over, unless they were listed just now.
func (u *Uplink) ask(ctx context.Context) error {
	if time.Since(u.asked) < askEvery {
		return nil
	}
	plans := map[plan.ID]*v1.Plan{}
	for token := ""; ; {
		page, err := call(ctx, u, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.ListPlansResponse, error) {
			return api.ListPlans(ctx, &v1.ListPlansRequest{PageToken: token}, o...)
		})
		if err != nil {
			return err
		}
		for _, m := range page.GetPlans() {
			plans[plan.ID(m.GetId())] = m
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	for id := range u.bodies {
		if plans[id] == nil {
			delete(u.bodies, id)
		}
	}
	if len(plans) != len(u.plans) {
		u.seen = 0 // look at the new ones
	}
	u.plans, u.asked = plans, time.Now()
	return nil
}

// obey passes on what was decided of plans that were begun here: to pause, to end, to be given up. One that cannot be obeyed does not keep
// the others from it.
func (u *Uplink) obey(ctx context.Context, local []agentapi.Plan) error {
	term, err := u.Agent.Term()
	if err != nil || term == 0 { // no coordinator has ordered anything yet
		return err
	}
	var errs []error
	over := map[plan.ID]string{}
	for _, p := range local {
		id := p.Plan.ID
		if p.Status.Phase == executor.Proposed || p.Status.Phase.Final() || p.Error != "" {
			continue
		}
		m, err := u.decided(ctx, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if u.plans[id] == nil && ended(m) {
			over[id] = m.GetPhase()
		}
		o := wanted(p, m)
		if o.Do == "" || u.waits(id) {
			continue
		}
		o.Term, o.ID = term, id
		err = u.take(ctx, o)
		switch {
		case err == nil:
			delete(u.refused, id)
		case errors.Is(err, fault.Unavailable): // the agent is not ready
			errs = append(errs, err)
		case u.refuse(id, err):
			u.Log.Warn("the agent does not do what was decided", "verb", o.Do, obs.KeyPlan, id, obs.KeyError, err)
		}
	}
	u.over = over
	return errors.Join(errs...)
}

// decided is what the coordinators say of a plan. What is over, or what they do not know as it is of the time before them, is asked for once.
func (u *Uplink) decided(ctx context.Context, id plan.ID) (*v1.Plan, error) {
	if m := u.plans[id]; m != nil {
		return m, nil
	}
	if phase, ok := u.over[id]; ok {
		return &v1.Plan{Phase: phase}, nil
	}
	m, err := u.get(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return &v1.Plan{}, nil
	}
	return m, err
}

// ended reports whether nothing will be decided of a plan any more, unless it is listed again.
func ended(m *v1.Plan) bool {
	switch m.GetPhase() {
	case "", cancelled, completed, abandoned:
		return true
	default:
		return false
	}
}

// take gives the agent an order. What hangs there, as disks do, must not keep other orders waiting.
func (u *Uplink) take(ctx context.Context, o agent.Order) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := u.Agent.Take(ctx, o)
	return err
}

// wanted is what a plan that was begun here lacks of what was decided. It is pure.
func wanted(p agentapi.Plan, m *v1.Plan) agent.Order {
	moves := p.Status.Phase.Moves()
	switch {
	case m.GetPhase() == abandoned:
		return agent.Order{Do: agentapi.Abandon, Token: p.Plan.Token()}
	case moves && !p.Cancelling && (m.GetCancelling() || m.GetPhase() == cancelled):
		return agent.Order{Do: agentapi.Cancel}
	case moves && !p.Pausing && m.GetPausedBy() != "":
		return agent.Order{Do: agentapi.Pause}
	default:
		return agent.Order{}
	}
}

// next is the plan whose next step is this node's: one that was begun before one that was not, the older approval first. It is pure.
func next(plans map[plan.ID]*v1.Plan, node string) *v1.Plan {
	var ready []*v1.Plan
	for _, m := range plans {
		if m.GetWorker() == node && (m.GetPhase() == approved || m.GetPhase() == running) && m.GetPausedBy() == "" {
			ready = append(ready, m)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	return slices.MinFunc(ready, func(a, b *v1.Plan) int {
		if (a.GetPhase() == running) != (b.GetPhase() == running) {
			if a.GetPhase() == running {
				return -1
			}
			return 1
		}
		if c := a.GetApproved().AsTime().Compare(b.GetApproved().AsTime()); c != 0 {
			return c
		}
		return slices.Compare([]byte(a.GetId()), []byte(b.GetId()))
	})
}
