package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// NotLeader says that another member must be asked; it is fault.Unavailable.
type NotLeader struct {
	Leader Member // the zero value: nobody leads now
}

func (e *NotLeader) Error() string {
	if e.Leader.Name == "" {
		return "no coordinator leads now: is a majority of them up?"
	}
	return fmt.Sprintf("coordinator %s leads, at %s", e.Leader.Name, e.Leader.Address)
}

// Unwrap gives the class.
func (*NotLeader) Unwrap() error { return fault.Unavailable }

// Apply puts a command into the log and returns its answer; a refusal is in the answer, not in the error.
func (n *Node) Apply(ctx context.Context, c fsm.Command) (fsm.Answer, error) {
	data, err := c.Encode()
	if err != nil {
		return fsm.Answer{}, err
	}
	if _, err := fsm.Decode(data); err != nil { // what no member can read must not be in the log
		return fsm.Answer{}, err
	}
	future := n.raft.Apply(data, patience(ctx))
	if err := n.wait(ctx, future); err != nil {
		return fsm.Answer{}, err
	}
	answer, ok := future.Response().(fsm.Answer)
	if !ok {
		return fsm.Answer{}, fmt.Errorf("command %s gave %T", c.Kind, future.Response())
	}
	return answer, nil
}

// patience is how long a command may wait for its place in the queue.
func patience(ctx context.Context) time.Duration {
	if until, ok := ctx.Deadline(); ok {
		return max(time.Until(until), time.Millisecond)
	}
	return 30 * time.Second
}

// wait waits for a future, or for ctx: a disk that hangs answers no future.
func (n *Node) wait(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case <-ctx.Done():
		return fault.As(fault.Unavailable, fmt.Errorf("wait for a majority of the coordinators: %w", ctx.Err()))
	case err := <-done:
		return n.explain(err)
	}
}

// explain gives raft's errors their class.
func (n *Node) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return &NotLeader{n.Leader()}
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrAbortedByRestore), errors.Is(err, raft.ErrEnqueueTimeout):
		return fault.As(fault.Unavailable, fmt.Errorf("the coordinator ceased to lead: ask again: %w", err))
	default:
		return err
	}
}

// Current returns once View shows everything that was committed when it was called. Only the leader can tell.
func (n *Node) Current(ctx context.Context) error {
	r := n.reads.join(func() error { return n.raft.Barrier(0).Error() })
	select {
	case <-ctx.Done():
		return fault.As(fault.Unavailable, fmt.Errorf("wait for a majority of the coordinators: %w", ctx.Err()))
	case <-r.done:
		return n.explain(r.err)
	}
}

// Leads reports whether this member leads, and the term it does so in: a later leader's is larger.
func (n *Node) Leads() (term uint64, ok bool) {
	term = n.raft.CurrentTerm()
	return term, n.raft.State() == raft.Leader && n.ready.Load() == term
}

// Leader is who leads, as far as this member knows; the zero value if nobody does.
func (n *Node) Leader() Member {
	address, name := n.raft.LeaderWithID()
	return Member{string(name), string(address)}
}
