// Package coordinator serves the coordinators' API: plans, the work on them, nodes, policies and the members themselves.
//
// Invariant: it decides nothing that package fsm could decide, and answers no question about the present but as the
// leader, after a majority has confirmed that it leads.
//
// It must not import hashicorp/raft, nor what plans.
package coordinator

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/raftnode"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// Log is the members' common memory.
type Log interface {
	// Apply commits a command and returns its answer. fault.Unavailable leaves open whether it was done.
	Apply(ctx context.Context, c fsm.Command) (fsm.Answer, error)
	// Current returns once View shows all that was committed before.
	Current(ctx context.Context) error
	View(f func(*fsm.State))
	// Changed is closed with the next change of what View shows.
	Changed() <-chan struct{}
	Leads() (term uint64, ok bool)
}

// Members is what is known and done about the members themselves.
type Members interface {
	Name() string
	Members() ([]raftnode.Member, error)
	Leader() raftnode.Member
	Term() uint64
	CommitIndex() uint64
	AppliedIndex() uint64
	// State is leader, candidate, follower or shutdown.
	State() string
	LastContact() time.Time
	Add(ctx context.Context, m raftnode.Member) error
	Remove(ctx context.Context, name string) error
	Transfer(ctx context.Context, to string) error
	Restore(ctx context.Context, backup []byte, who string) error
}

var (
	_ Log     = (*raftnode.Node)(nil)
	_ Members = (*raftnode.Node)(nil)
)

// Planner plans for the cluster as it is.
type Planner interface {
	// Rebalance returns a plan with the state of its subject that it was made from. backfills is the most that a wave moves to or from an OSD.
	Rebalance(ctx context.Context, r *coordinatorv1.PlanRebalanceRequest, backfills int) (plan.Plan, json.RawMessage, error)
	// Balancer is how the manager's balancer was found last: "on", "off", or "" where that is not known.
	Balancer() string
	// Balance is which part of the raw space can be filled, and could be at best, from 0 to 1, and when that was looked at: the zero time for never.
	Balance() (usable, bound float64, at time.Time)
}

// Server serves the API.
type Server struct {
	coordinatorv1.UnimplementedCoordinatorServer

	// CA signs the certificates of those who join; nil: this member cannot.
	CA *certs.Pair

	log     Log
	members Members
	certs   *certs.Store
	planner Planner
	pools   Pools
	limits  limiter
	now     func() time.Time
	logger  *slog.Logger
}

// New makes a server. planner and pools are nil for one that knows no Ceph cluster.
func New(log Log, members Members, store *certs.Store, planner Planner, pools Pools, logger *slog.Logger) *Server {
	return &Server{log: log, members: members, certs: store, planner: planner, pools: pools, limits: limiter{callers: map[string]*bucket{}}, now: time.Now, logger: logger}
}

// do commits a body for whoever asks, and decodes the answer into v unless that is nil.
func (s *Server) do(ctx context.Context, key string, b fsm.Body, v any) error {
	if key != "" { // two who give the same key mean two requests
		key = caller(ctx).String() + " " + key
	}
	answer, err := s.log.Apply(ctx, fsm.NewCommand(caller(ctx).String(), key, s.now(), b))
	if err != nil {
		return err
	}
	if v == nil {
		return answer.Err()
	}
	return answer.Read(v)
}

// read shows the present state to f, which must not keep any of it.
func (s *Server) read(ctx context.Context, f func(*fsm.State) error) error {
	if err := s.log.Current(ctx); err != nil {
		return err
	}
	var err error
	s.log.View(func(state *fsm.State) { err = f(state) })
	return err
}
