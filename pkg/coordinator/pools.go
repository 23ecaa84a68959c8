package coordinator

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// Pools lists, explains and plans the pools of the cluster as it is.
type Pools interface {
	List(ctx context.Context) ([]*coordinatorv1.Pool, error)
	// Explain answers in JSON.
	Explain(ctx context.Context, name string) ([]byte, error)
	// Plan returns a plan with the state of its subject that it was made from. policies gives the specs of policies by name, nil for none.
	Plan(ctx context.Context, r *coordinatorv1.PlanPoolRequest, policies func(name string) []byte) (plan.Plan, json.RawMessage, error)
}

// errNoCluster is what is answered where no Ceph cluster is known.
func errNoCluster() error {
	return fault.New(fault.Unsupported, "this coordinator was started without a Ceph cluster (holdfastd coordinator --ceph-monitors)")
}

// PlanPool proposes a plan that makes a pool, or sets one.
func (s *Server) PlanPool(ctx context.Context, r *coordinatorv1.PlanPoolRequest) (*coordinatorv1.Plan, error) {
	if s.pools == nil {
		return nil, errNoCluster()
	}
	specs := map[string][]byte{}
	if err := s.read(ctx, func(state *fsm.State) error {
		for name, p := range state.Policies {
			specs[name] = slices.Clone(p.Spec)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	p, state, err := s.pools.Plan(ctx, r, func(name string) []byte { return specs[name] })
	if err != nil {
		return nil, err
	}
	return s.offer(ctx, p, state, r.GetDryRun())
}

// offer proposes a plan that was just made, or shows it alone.
func (s *Server) offer(ctx context.Context, p plan.Plan, state json.RawMessage, dry bool) (*coordinatorv1.Plan, error) {
	if dry {
		return message(&fsm.Entry{Plan: p, By: caller(ctx).String(), At: s.now()}, true)
	}
	if err := s.do(ctx, "", &fsm.SetSubject{Subject: p.Subject, State: state}, nil); err != nil {
		return nil, err
	}
	return s.change(ctx, "", &fsm.Propose{Plan: p})
}

// ListPools lists the pools of the cluster by name.
func (s *Server) ListPools(ctx context.Context, r *coordinatorv1.ListPoolsRequest) (*coordinatorv1.ListPoolsResponse, error) {
	if s.pools == nil {
		return nil, errNoCluster()
	}
	all, err := s.pools.List(ctx)
	if err != nil {
		return nil, err
	}
	list, next := page(all, (*coordinatorv1.Pool).GetName, r.GetPageSize(), r.GetPageToken())
	return &coordinatorv1.ListPoolsResponse{Pools: list, NextPageToken: next}, nil
}

// ExplainPool says how well a pool's data can be spread.
func (s *Server) ExplainPool(ctx context.Context, r *coordinatorv1.ExplainPoolRequest) (*coordinatorv1.ExplainPoolResponse, error) {
	if s.pools == nil {
		return nil, errNoCluster()
	}
	data, err := s.pools.Explain(ctx, r.GetName())
	return &coordinatorv1.ExplainPoolResponse{Explanation: data}, err
}

// page is the part of a list, sorted by name, after a token, which is the last name of the page before.
func page[T any](all []T, name func(T) string, size uint32, token string) (part []T, next string) {
	first := 0
	if token != "" {
		for first < len(all) && name(all[first]) <= token {
			first++
		}
	}
	part = all[first:min(len(all), first+pageSize(size))]
	if first+len(part) < len(all) {
		next = name(part[len(part)-1])
	}
	return part, next
}
