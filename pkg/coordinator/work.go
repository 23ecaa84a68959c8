package coordinator

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// ReportNode tells the inventory of the node whose agent calls.
func (s *Server) ReportNode(ctx context.Context, r *coordinatorv1.ReportNodeRequest) (*coordinatorv1.ReportNodeResponse, error) {
	inventory, err := document(r.GetInventory(), "the inventory")
	if err != nil {
		return nil, err
	}
	return &coordinatorv1.ReportNodeResponse{}, s.do(ctx, "", &fsm.ReportNode{
		Node: storage.NodeID(caller(ctx).Name), Boot: r.GetBoot(), Generation: r.GetGeneration(), Inventory: inventory,
	}, nil)
}

// SetSubject tells the state that a subject was found in.
func (s *Server) SetSubject(ctx context.Context, r *coordinatorv1.SetSubjectRequest) (*coordinatorv1.SetSubjectResponse, error) {
	state, err := document(r.GetState(), "the state of "+r.GetSubject())
	if err != nil {
		return nil, err
	}
	var known fsm.Subject
	if err := s.do(ctx, "", &fsm.SetSubject{Subject: r.GetSubject(), State: state}, &known); err != nil {
		return nil, err
	}
	return &coordinatorv1.SetSubjectResponse{Hash: known.Hash}, nil
}

// document refuses what is no JSON: it would be in the log for ever.
func document(data []byte, what string) (json.RawMessage, error) {
	if !json.Valid(data) {
		return nil, fault.New(fault.Invalid, "%s is no JSON", what)
	}
	return data, nil
}

// TakeWork gives the right to a plan's next step.
func (s *Server) TakeWork(ctx context.Context, r *coordinatorv1.TakeWorkRequest) (*coordinatorv1.Work, error) {
	var w fsm.Work
	if err := s.do(ctx, "", &fsm.TakeLease{Plan: plan.ID(r.GetPlan()), Holder: caller(ctx).Name, For: r.GetFor().AsDuration()}, &w); err != nil {
		return nil, err
	}
	p, err := json.Marshal(w.Plan)
	if err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	records, err := json.Marshal(w.Records)
	if err != nil {
		return nil, fmt.Errorf("encode records: %w", err)
	}
	return &coordinatorv1.Work{Lease: leaseMessage(&w.Lease), Plan: p, Records: records}, nil
}

// ReportStep tells how a step goes.
func (s *Server) ReportStep(ctx context.Context, r *coordinatorv1.ReportStepRequest) (*coordinatorv1.Orders, error) {
	var record executor.Record
	if err := json.Unmarshal(r.GetRecord(), &record); err != nil {
		return nil, fault.New(fault.Invalid, "read record of a step: %w", err)
	}
	if err := s.holds(ctx, plan.ID(r.GetPlan()), r.GetTerm()); err != nil {
		return nil, err
	}
	var o fsm.Orders
	if err := s.do(ctx, "", &fsm.ReportStep{Plan: plan.ID(r.GetPlan()), Term: r.GetTerm(), Record: record, For: r.GetFor().AsDuration()}, &o); err != nil {
		return nil, err
	}
	return &coordinatorv1.Orders{Lease: leaseMessage(o.Lease), Phase: string(o.Phase), Rest: o.Rest}, nil
}

// holds refuses an agent that reports under a lease that another node has.
func (s *Server) holds(ctx context.Context, id plan.ID, term uint64) (err error) {
	s.log.View(func(state *fsm.State) {
		if e := state.Plans[id]; e != nil && e.Lease != nil && e.Lease.Term == term && e.Lease.Holder != caller(ctx).Name {
			err = fault.New(fault.Denied, "the work on plan %s is for %s", id, e.Lease.Holder)
		}
	})
	return err
}

func leaseMessage(l *fsm.Lease) *coordinatorv1.Lease {
	if l == nil {
		return nil
	}
	return &coordinatorv1.Lease{Holder: l.Holder, Term: l.Term, Until: timestamppb.New(l.Until)}
}
