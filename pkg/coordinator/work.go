package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-storage/holdfast/pkg/certs"
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
	if who := caller(ctx); who.Role == certs.Agent && !strings.HasSuffix(r.GetSubject(), " on "+who.Name) {
		return nil, fault.New(fault.Denied, "%s may tell the state of what is on %s alone (\"... on %s\"), not of %q", who, who.Name, who.Name, r.GetSubject())
	}
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
	var o fsm.Orders
	if err := s.do(ctx, "", &fsm.ReportStep{Plan: plan.ID(r.GetPlan()), Holder: caller(ctx).Name, Term: r.GetTerm(), Record: record, For: r.GetFor().AsDuration()}, &o); err != nil {
		return nil, err
	}
	return &coordinatorv1.Orders{Lease: leaseMessage(o.Lease), Phase: string(o.Phase), Rest: o.Rest}, nil
}

func leaseMessage(l *fsm.Lease) *coordinatorv1.Lease {
	if l == nil {
		return nil
	}
	return &coordinatorv1.Lease{Holder: l.Holder, Term: l.Term, Until: timestamppb.New(l.Until)}
}
