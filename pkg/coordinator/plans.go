package coordinator

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// mostPlan is the largest plan, in bytes.
const mostPlan = 4 << 20

// ProposePlan takes a plan in. An agent proposes for its own node alone.
func (s *Server) ProposePlan(ctx context.Context, r *coordinatorv1.ProposePlanRequest) (*coordinatorv1.Plan, error) {
	if len(r.GetPlan()) > mostPlan {
		return nil, fault.New(fault.Range, "a plan of %d bytes: %d are possible", len(r.GetPlan()), mostPlan)
	}
	p, err := plan.Parse(r.GetPlan())
	if err != nil {
		return nil, err
	}
	node := r.GetNode()
	if who := caller(ctx); who.Role == certs.Agent {
		if node != who.Name || slices.ContainsFunc(p.Steps, func(step plan.Step) bool { return step.Executor == fsm.Coordinator }) {
			return nil, fault.New(fault.Denied, "%s may propose plans for the disks of %s alone", who, who.Name)
		}
	}
	return s.change(ctx, r.GetKey(), &fsm.Propose{Plan: p, Node: storage.NodeID(node), Subject: onNode(p.Subject, node)})
}

// onNode is the name that a node's subject has among those of all nodes, such as "stack media on n1"; "" if it has that already.
func onNode(subject, node string) string {
	if node == "" || strings.HasSuffix(subject, " on "+node) {
		return ""
	}
	return subject + " on " + node
}

// usualBackfills is how many shards move to or from one OSD in a wave, unless somebody says otherwise.
const usualBackfills = 8

// PlanRebalance makes a plan of the cluster as it is, and proposes it.
func (s *Server) PlanRebalance(ctx context.Context, r *coordinatorv1.PlanRebalanceRequest) (*coordinatorv1.Plan, error) {
	if s.planner == nil {
		return nil, errNoCluster()
	}
	backfills := int(r.GetWaveBackfills())
	if err := s.read(ctx, func(state *fsm.State) error {
		backfills = cmp.Or(backfills, state.Throttle.Backfills, usualBackfills)
		return nil
	}); err != nil {
		return nil, err
	}
	p, state, err := s.planner.Rebalance(ctx, r, backfills)
	if err != nil {
		return nil, err
	}
	return s.offer(ctx, p, state, r.GetDryRun())
}

// ChangePlan approves, pauses, resumes, cancels or abandons a plan. An agent may take back what it has proposed, and no more.
func (s *Server) ChangePlan(ctx context.Context, r *coordinatorv1.ChangePlanRequest) (*coordinatorv1.Plan, error) {
	id := plan.ID(r.GetId())
	who := caller(ctx)
	if who.Role == certs.Agent && r.GetVerb() != coordinatorv1.ChangePlanRequest_VERB_CANCEL {
		return nil, fault.New(fault.Denied, "%s may take back what it has proposed, and no more", who)
	}
	var b fsm.Body
	switch r.GetVerb() {
	case coordinatorv1.ChangePlanRequest_VERB_APPROVE:
		b = &fsm.Approve{Plan: id, Token: r.GetToken()}
	case coordinatorv1.ChangePlanRequest_VERB_PAUSE:
		b = &fsm.PausePlan{Plan: id, Why: cmp.Or(r.GetWhy(), "asked for")}
	case coordinatorv1.ChangePlanRequest_VERB_RESUME:
		b = &fsm.Resume{Plan: id}
	case coordinatorv1.ChangePlanRequest_VERB_CANCEL:
		b = &fsm.Cancel{Plan: id, Own: who.Role == certs.Agent}
	case coordinatorv1.ChangePlanRequest_VERB_ABANDON:
		b = &fsm.Abandon{Plan: id}
	case coordinatorv1.ChangePlanRequest_VERB_UNSPECIFIED:
		fallthrough
	default:
		return nil, fault.New(fault.Invalid, "plan %s: verb %v is none", id, r.GetVerb())
	}
	return s.change(ctx, r.GetKey(), b)
}

// change commits what concerns a plan, and returns the plan as it is then.
func (s *Server) change(ctx context.Context, key string, b fsm.Body) (*coordinatorv1.Plan, error) {
	var done fsm.Changed
	if err := s.do(ctx, key, b, &done); err != nil {
		return nil, err
	}
	var m *coordinatorv1.Plan
	err := fault.New(fault.NotFound, "plan %s has gone since", done.Plan)
	s.log.View(func(state *fsm.State) { // it is applied here: this member led
		if e, ok := state.Plans[done.Plan]; ok {
			m, err = message(e, true)
		}
	})
	return m, err
}

// GetPlan returns a plan.
func (s *Server) GetPlan(ctx context.Context, r *coordinatorv1.GetPlanRequest) (m *coordinatorv1.Plan, err error) {
	err = s.read(ctx, func(state *fsm.State) error {
		e, ok := state.Plans[plan.ID(r.GetId())]
		if !ok || !concerns(caller(ctx), e) {
			return fault.New(fault.NotFound, "there is no plan %s", r.GetId())
		}
		m, err = message(e, true)
		return err
	})
	return m, err
}

// concerns reports whether somebody may know of a plan: agents know of those of their own nodes.
func concerns(who certs.Identity, e *fsm.Entry) bool {
	return who.Role != certs.Agent || string(e.Node) == who.Name
}

// The sizes of a page.
const (
	usualPage = 100
	mostPage  = 1000
)

func pageSize(asked uint32) int {
	return min(cmp.Or(int(asked), usualPage), mostPage)
}

// ListPlans lists plans by their ids; a token is the last id of the page before.
func (s *Server) ListPlans(ctx context.Context, r *coordinatorv1.ListPlansRequest) (*coordinatorv1.ListPlansResponse, error) {
	answer := &coordinatorv1.ListPlansResponse{}
	err := s.read(ctx, func(state *fsm.State) error {
		for _, id := range slices.Sorted(maps.Keys(state.Plans)) {
			e := state.Plans[id]
			if string(id) <= r.GetPageToken() || e.Over() && !r.GetOver() || !concerns(caller(ctx), e) {
				continue
			}
			if len(answer.Plans) == pageSize(r.GetPageSize()) {
				answer.NextPageToken = answer.GetPlans()[len(answer.GetPlans())-1].GetId()
				return nil
			}
			m, err := message(e, false)
			if err != nil {
				return err
			}
			answer.Plans = append(answer.Plans, m)
		}
		return nil
	})
	return answer, err
}

// watchProof is how long a watcher may hear nothing before the leader proves again that it leads.
const watchProof = 10 * time.Second

// watchPause is the least time between two looks at the state for one watcher.
const watchPause = 100 * time.Millisecond

// WatchPlans sends plans whenever they change. It ends when this member does not lead any more, or with the plan that it is about.
func (s *Server) WatchPlans(r *coordinatorv1.WatchPlansRequest, stream coordinatorv1.Coordinator_WatchPlansServer) error {
	ctx := stream.Context()
	sent := map[plan.ID]string{}
	for {
		changed := s.log.Changed()
		list, over, err := s.news(ctx, plan.ID(r.GetId()), sent)
		if err != nil {
			return err
		}
		for _, m := range list {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
		for _, wait := range []<-chan struct{}{changed, after(ctx, watchPause)} {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-wait:
			case <-time.After(watchProof): // a leader that was cut off sees no change, and must not be believed
			}
		}
	}
}

// after is closed after a time, or with ctx.
func after(ctx context.Context, d time.Duration) <-chan struct{} {
	ctx, cancel := context.WithTimeout(ctx, d)
	context.AfterFunc(ctx, cancel)
	return ctx.Done()
}

// news are the plans that are not as they were sent, which it notes.
func (s *Server) news(ctx context.Context, id plan.ID, sent map[plan.ID]string) (list []*coordinatorv1.Plan, over bool, err error) {
	err = s.read(ctx, func(state *fsm.State) error {
		if e, ok := state.Plans[id]; id != "" {
			if !ok || !concerns(caller(ctx), e) {
				return fault.New(fault.NotFound, "there is no plan %s", id)
			}
			over = e.Over()
		}
		for _, key := range slices.Sorted(maps.Keys(state.Plans)) {
			e := state.Plans[key]
			if id != "" && key != id || id == "" && e.Over() && sent[key] == "" || !concerns(caller(ctx), e) {
				continue
			}
			m, err := message(e, false)
			if err != nil {
				return err
			}
			if text := m.String(); text != sent[key] {
				sent[key] = text
				list = append(list, m)
			}
		}
		return nil
	})
	return list, over, err
}

// message is a plan as the API shows it.
func message(e *fsm.Entry, whole bool) (*coordinatorv1.Plan, error) {
	at := e.Status()
	if e.Over() {
		at.Forecast, at.Progress.Rate = 0, 0
	} else {
		at = at.WithForecast(e.Plan, e.Records)
	}
	status, err := json.Marshal(at)
	if err != nil {
		return nil, fault.New(fault.Invalid, "encode status of plan %s: %w", e.Plan.ID, err)
	}
	m := &coordinatorv1.Plan{
		Id: string(e.Plan.ID), Node: string(e.Node), Phase: string(e.Phase), ProposedBy: e.By, Proposed: timestamppb.New(e.At),
		Cancelling: e.Cancel, Worker: e.Worker(), Status: status, Token: e.Plan.Token(), Subject: e.Subject(), What: e.Plan.What,
	}
	if e.Approval != nil {
		m.ApprovedBy, m.Approved = e.Approval.By, timestamppb.New(e.Approval.At)
	}
	if e.Pause != nil {
		m.PausedBy, m.PausedWhy = e.Pause.By, e.Pause.Why
	}
	if e.Superseded != nil {
		m.SupersededBy, m.SupersededWhy = string(e.Superseded.By), e.Superseded.Why
	}
	if !e.Ended.IsZero() {
		m.Ended = timestamppb.New(e.Ended)
	}
	if whole && !e.Trimmed {
		if m.Plan, err = json.Marshal(e.Plan); err != nil {
			return nil, fault.New(fault.Invalid, "encode plan %s: %w", e.Plan.ID, err)
		}
	}
	return m, nil
}
