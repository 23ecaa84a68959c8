package pools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// The kinds of steps.
const (
	KindCreate plan.Kind = "pool-create"
	KindSet    plan.Kind = "pool-set"
)

// Create is what a step of that kind does.
type Create struct {
	Name        string            `json:"name"`
	Application string            `json:"application,omitempty"`
	Advice      *placement.Advice `json:"advice"`
}

// Set changes a pool's size and PGs.
type Set struct {
	Name   string            `json:"name"`
	From   State             `json:"from"`
	To     State             `json:"to"`
	Advice *placement.Advice `json:"advice"`
}

// ErrAsWanted says that a pool is as its policy wants it.
var ErrAsWanted = errors.New("the pool is as its policy wants it")

// Plan plans a pool that is to be made, or set, as its policies want it: what the request says, then the pool's own, its device class's and
// the cluster's policy, by name, and the defaults. The state that it was made from is the second value.
func (k *Keeper) Plan(ctx context.Context, r *coordinatorv1.PlanPoolRequest, policies func(name string) []byte) (plan.Plan, json.RawMessage, error) {
	policy, asked, err := inherited(r, policies)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	c, err := k.Connected()
	if err != nil {
		return plan.Plan{}, nil, err
	}
	w, err := read(ctx, c)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	advice, err := placement.Advise(policy, w.inventory(policy.Class))
	if err != nil {
		return plan.Plan{}, nil, err
	}
	now := w.state(r.GetName())
	p := plan.Plan{Subject: Subject(r.GetName()), Disks: []plan.Disk{}, Notes: advice.Reasons}
	if p.Parent, err = plan.Hash(now); err != nil {
		return plan.Plan{}, nil, err
	}
	step, after, err := w.step(r, now, advice, asked)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	p.What, p.Steps = step.What, []plan.Step{step}
	if r.GetSet() { // other PGs and sizes are what plans for the placement are not made for
		p.Excludes = []string{"placement"}
	}
	if p.State, err = json.Marshal(after); err != nil {
		return plan.Plan{}, nil, fmt.Errorf("encode state: %w", err)
	}
	state, err := json.Marshal(now)
	if err != nil {
		return plan.Plan{}, nil, fmt.Errorf("encode state: %w", err)
	}
	p, err = p.Seal(-1)
	return p, state, err
}

// inherited is the policy that counts for a pool. asked: the request itself says how many failures are to be survived.
func inherited(r *coordinatorv1.PlanPoolRequest, policies func(string) []byte) (p placement.Policy, asked bool, err error) {
	if name := r.GetName(); name == "" || strings.ContainsAny(name, "/@ \t\n") {
		return p, false, fault.New(fault.Invalid, "a pool named %q: no spaces, / or @", name)
	}
	parse := func(what string, data []byte) (p placement.Policy, err error) {
		if len(data) > 0 {
			if err = json.Unmarshal(data, &p); err != nil {
				err = fault.New(fault.Invalid, "read %s: %w", what, err)
			}
		}
		return p, err
	}
	if p, err = parse("what is wanted of the pool", r.GetPolicy()); err != nil {
		return p, false, err
	}
	asked = p.Failures > 0
	cluster, err := parse("the cluster's policy", policies("cluster"))
	if err != nil {
		return p, false, err
	}
	own, err := parse("the pool's policy", policies("pool "+r.GetName()))
	if err != nil {
		return p, false, err
	}
	p = p.Inherit(own)
	if class := p.Inherit(cluster).Class; class != "" {
		above, err := parse("the policy of class "+class, policies("class "+class))
		if err != nil {
			return p, false, err
		}
		p = p.Inherit(above)
	}
	return p.Inherit(cluster).Inherit(placement.DefaultPolicy()), asked, nil
}

// step is what is to be done for an advice, and the pool afterwards. What a pool survives is lowered only where that was asked for with the
// request itself: an inventory that is short for a while, or a policy of all pools, must not do it.
func (w world) step(r *coordinatorv1.PlanPoolRequest, now State, a *placement.Advice, asked bool) (plan.Step, State, error) {
	name := r.GetName()
	want := State{Size: a.Size, MinSize: a.MinSize, PGs: uint32(a.PGs), Rule: name}
	p := w.pool(name)
	switch {
	case !r.GetSet() && p != nil:
		return plan.Step{}, want, fault.New(fault.Exists, "there is a pool %s already: `holdfast pool set %s` makes it as its policy wants it", name, name)
	case r.GetSet() && p == nil:
		return plan.Step{}, want, fault.New(fault.NotFound, "there is no pool %s", name)
	case p == nil:
		args, err := json.Marshal(Create{Name: name, Application: application(a.Policy.Profile), Advice: a})
		if err != nil {
			return plan.Step{}, want, fmt.Errorf("encode step: %w", err)
		}
		return plan.Step{
			Kind: KindCreate, What: fmt.Sprintf("make the %s pool %s: size %d, min_size %d, failure domain %s, %d PGs", a.Type, name, a.Size, a.MinSize, a.Domain, a.PGs),
			Executor: "coordinator", Requires: []string{"there is no such pool"}, Redundancy: -1, Args: args,
		}, want, nil
	}
	domain, class := w.spread(w.rule(p))
	if p.Erasure() != (a.Type == "erasure") || domain != a.Domain || class != a.Policy.Class {
		return plan.Step{}, want, fault.New(fault.Unsupported,
			"pool %s is %s over %s (class %q), and its policy wants %s over %s (class %q): make another pool and move the data, or change its rule (`holdfast placement plan --failure-domain`)",
			name, typeOf(p.Erasure()), domain, class, a.Type, a.Domain, a.Policy.Class)
	}
	if want.Rule = now.Rule; p.Erasure() { // both are its profile's, which is for ever
		want.Size, want.MinSize = now.Size, now.MinSize
	}
	switch {
	case now == want:
		return plan.Step{}, want, fault.As(fault.Precondition, ErrAsWanted)
	case (want.Size < now.Size || want.MinSize < now.MinSize) && !asked:
		return plan.Step{}, want, fault.New(fault.Precondition,
			"pool %s has size %d, min_size %d, and for what there is now its policies give size %d, min_size %d, which is less: bring back what is missing, or say --failures %d to have it lowered",
			name, now.Size, now.MinSize, want.Size, want.MinSize, a.Policy.Failures)
	}
	args, err := json.Marshal(Set{Name: name, From: now, To: want, Advice: a})
	if err != nil {
		return plan.Step{}, want, fmt.Errorf("encode step: %w", err)
	}
	return plan.Step{
		Kind: KindSet, What: fmt.Sprintf("pool %s: size %d -> %d, min_size %d -> %d, PGs %d -> %d", name, now.Size, want.Size, now.MinSize, want.MinSize, now.PGs, want.PGs),
		Executor: "coordinator", Requires: []string{"the pool is as it was planned from"}, Redundancy: -1, Args: args,
	}, want, nil
}

func typeOf(erasure bool) string {
	if erasure {
		return "erasure"
	}
	return "replicated"
}

// application is what Ceph calls the use of a pool. That of CephFS is set by `fs new` and `fs add_data_pool`.
func application(p placement.Profile) string {
	if p == placement.CephFS {
		return ""
	}
	return "rbd"
}
