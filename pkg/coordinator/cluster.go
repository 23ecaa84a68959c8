package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/raftnode"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// GetStatus tells how this member sees the cluster; agents, which know of their own nodes' plans alone, nothing of what is wrong with plans.
func (s *Server) GetStatus(ctx context.Context, _ *coordinatorv1.GetStatusRequest) (*coordinatorv1.Status, error) {
	members, err := s.members.Members()
	if err != nil {
		return nil, err
	}
	m := &coordinatorv1.Status{
		Name: s.members.Name(), Term: s.members.Term(), CommitIndex: s.members.CommitIndex(),
		CertificateExpires: timestamppb.New(s.certs.Expires()),
	}
	checks := s.ownChecks()
	if caller(ctx).Role != certs.Agent {
		checks = append(checks, s.planChecks()...)
	}
	for _, c := range checks {
		m.Checks = append(m.Checks, &coordinatorv1.Check{Code: string(c.Code), Message: c.Message})
	}
	if s.planner != nil {
		m.Balancer = s.planner.Balancer()
	}
	if last := s.members.LastContact(); !last.IsZero() {
		m.LastContact = timestamppb.New(last)
	}
	if l := s.members.Leader(); l.Name != "" {
		m.Leader = &coordinatorv1.Member{Name: l.Name, Address: l.Address}
	}
	for _, each := range members {
		m.Members = append(m.Members, &coordinatorv1.Member{Name: each.Name, Address: each.Address})
	}
	s.log.View(func(state *fsm.State) {
		for _, e := range state.Plans {
			switch {
			case e.Held():
				m.PlansHeld++
			case e.Over():
				m.PlansOver++
			}
		}
	})
	return m, nil
}

// AddMember takes a process in.
func (s *Server) AddMember(ctx context.Context, r *coordinatorv1.AddMemberRequest) (*coordinatorv1.Status, error) {
	m := raftnode.Member{Name: r.GetMember().GetName(), Address: r.GetMember().GetAddress()}
	return s.after(ctx, s.members.Add(ctx, m))
}

// RemoveMember takes a member out.
func (s *Server) RemoveMember(ctx context.Context, r *coordinatorv1.RemoveMemberRequest) (*coordinatorv1.Status, error) {
	return s.after(ctx, s.members.Remove(ctx, r.GetName()))
}

// Transfer hands leadership on.
func (s *Server) Transfer(ctx context.Context, r *coordinatorv1.TransferRequest) (*coordinatorv1.Status, error) {
	return s.after(ctx, s.members.Transfer(ctx, r.GetTo()))
}

func (s *Server) after(ctx context.Context, err error) (*coordinatorv1.Status, error) {
	if err != nil {
		return nil, err
	}
	return s.GetStatus(ctx, nil)
}

// chunk is the size of a backup's parts.
const chunk = 1 << 20

// Backup sends the state as it is now.
func (s *Server) Backup(_ *coordinatorv1.BackupRequest, stream grpc.ServerStreamingServer[coordinatorv1.Chunk]) error {
	var data []byte
	err := s.read(stream.Context(), func(state *fsm.State) (err error) {
		data, err = state.Encode()
		return err
	})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(data, chunk) {
		if err := stream.Send(&coordinatorv1.Chunk{Data: part}); err != nil {
			return fmt.Errorf("send backup: %w", err)
		}
	}
	return nil
}

// mostBackup is the largest backup that is taken in.
const mostBackup = 1 << 30

// Restore replaces the state by a backup.
func (s *Server) Restore(stream grpc.ClientStreamingServer[coordinatorv1.Chunk, coordinatorv1.Status]) error {
	var data bytes.Buffer
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("receive backup: %w", err)
		}
		if data.Write(part.GetData()); data.Len() > mostBackup {
			return fault.New(fault.Range, "a backup of more than %d bytes", mostBackup)
		}
	}
	if err := s.members.Restore(stream.Context(), data.Bytes(), caller(stream.Context()).String()); err != nil {
		return err
	}
	status, err := s.GetStatus(stream.Context(), nil)
	if err != nil {
		return err
	}
	return stream.SendAndClose(status)
}

// SetThrottle bounds what plans cost.
func (s *Server) SetThrottle(ctx context.Context, r *coordinatorv1.Throttle) (*coordinatorv1.Throttle, error) {
	if r.GetBytesPerSecond() > math.MaxInt64 {
		return nil, fault.New(fault.Range, "a throttle of %d bytes a second", r.GetBytesPerSecond())
	}
	t := fsm.Throttle{Backfills: int(r.GetBackfillsPerOsd()), Bytes: storage.Bytes(r.GetBytesPerSecond()), Latency: r.GetCommitLatency().AsDuration()}
	if err := s.do(ctx, "", &fsm.SetThrottle{Throttle: t}, &t); err != nil {
		return nil, err
	}
	return throttleMessage(t), nil
}

// GetThrottle tells it.
func (s *Server) GetThrottle(ctx context.Context, _ *coordinatorv1.GetThrottleRequest) (m *coordinatorv1.Throttle, err error) {
	err = s.read(ctx, func(state *fsm.State) error {
		m = throttleMessage(state.Throttle)
		return nil
	})
	return m, err
}

func throttleMessage(t fsm.Throttle) *coordinatorv1.Throttle {
	m := &coordinatorv1.Throttle{BackfillsPerOsd: uint32(t.Backfills), BytesPerSecond: uint64(t.Bytes)}
	if t.Latency > 0 {
		m.CommitLatency = durationpb.New(t.Latency)
	}
	return m
}

// SetPolicy writes or removes a policy.
func (s *Server) SetPolicy(ctx context.Context, r *coordinatorv1.SetPolicyRequest) (*coordinatorv1.Policy, error) {
	b := &fsm.SetPolicy{Name: r.GetPolicy().GetName()}
	if !r.GetRemove() {
		b.Policy = &fsm.Policy{}
		if spec := r.GetPolicy().GetSpec(); len(spec) > 0 {
			document, err := document(spec, "policy "+b.Name)
			if err != nil {
				return nil, err
			}
			b.Policy.Spec = document
		}
		for _, kind := range r.GetPolicy().GetApproves() {
			b.Policy.Approves = append(b.Policy.Approves, plan.Kind(kind))
		}
	}
	return r.GetPolicy(), s.do(ctx, r.GetKey(), b, nil)
}

// ListPolicies lists policies by name.
func (s *Server) ListPolicies(ctx context.Context, r *coordinatorv1.ListPoliciesRequest) (*coordinatorv1.ListPoliciesResponse, error) {
	answer := &coordinatorv1.ListPoliciesResponse{}
	return answer, s.read(ctx, func(state *fsm.State) error {
		names, next := page(slices.Sorted(maps.Keys(state.Policies)), func(name string) string { return name }, r.GetPageSize(), r.GetPageToken())
		answer.NextPageToken = next
		for _, name := range names {
			m := &coordinatorv1.Policy{Name: name, Spec: slices.Clone(state.Policies[name].Spec)}
			for _, kind := range state.Policies[name].Approves {
				m.Approves = append(m.Approves, string(kind))
			}
			answer.Policies = append(answer.Policies, m)
		}
		return nil
	})
}

// ListHistory lists what was done, the newest first. A token counts events from the newest, so what comes meanwhile moves it.
func (s *Server) ListHistory(ctx context.Context, r *coordinatorv1.ListHistoryRequest) (*coordinatorv1.ListHistoryResponse, error) {
	skip := 0
	if t := r.GetPageToken(); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil || n < 0 {
			return nil, fault.New(fault.Token, "page token %q is none of this service", t)
		}
		skip = n
	}
	answer := &coordinatorv1.ListHistoryResponse{}
	return answer, s.read(ctx, func(state *fsm.State) error {
		for i := len(state.History) - 1 - skip; i >= 0; i-- {
			if len(answer.Events) == pageSize(r.GetPageSize()) {
				answer.NextPageToken = strconv.Itoa(skip + len(answer.GetEvents()))
				return nil
			}
			e := state.History[i]
			answer.Events = append(answer.Events, &coordinatorv1.Event{At: timestamppb.New(e.At), Who: e.Who, What: e.What, On: e.On})
		}
		return nil
	})
}

// nodesPage is how many bytes of inventories end a page of nodes: a message holds 16 MiB, and an inventory at most 8 MiB.
const nodesPage = 4 << 20

// ListNodes lists the nodes whose agents have reported, by name; a token is the last name of the page before.
func (s *Server) ListNodes(ctx context.Context, r *coordinatorv1.ListNodesRequest) (*coordinatorv1.ListNodesResponse, error) {
	answer := &coordinatorv1.ListNodesResponse{}
	return answer, s.read(ctx, func(state *fsm.State) error {
		size := 0
		for _, name := range slices.Sorted(maps.Keys(state.Nodes)) {
			if string(name) <= r.GetPageToken() {
				continue
			}
			if n := len(answer.Nodes); n == pageSize(r.GetPageSize()) || size >= nodesPage {
				answer.NextPageToken = answer.Nodes[n-1].GetName()
				return nil
			}
			n := state.Nodes[name]
			m := &coordinatorv1.Node{Name: string(name), Boot: n.Boot, Generation: n.Generation, Reported: timestamppb.New(n.Reported), Maintenance: n.Maintenance}
			if r.GetInventory() {
				m.Inventory = slices.Clone(n.Inventory)
				size += len(m.Inventory)
			}
			answer.Nodes = append(answer.Nodes, m)
		}
		return nil
	})
}

// SetMaintenance keeps work from a node, or gives it back.
func (s *Server) SetMaintenance(ctx context.Context, r *coordinatorv1.SetMaintenanceRequest) (*coordinatorv1.SetMaintenanceResponse, error) {
	return &coordinatorv1.SetMaintenanceResponse{}, s.do(ctx, "", &fsm.Maintain{Node: storage.NodeID(r.GetNode()), Why: r.GetWhy()}, nil)
}
