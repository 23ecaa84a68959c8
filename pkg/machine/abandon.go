package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// closingRate is for the forecast of what an abandoned plan left, which copies nothing.
const closingRate = 100 * storage.MiB

// Abandon ends a plan that nobody runs for good. What it left of a stack becomes the state that the next plan starts from; what must be done so
// that it is one, such as to give LVM what the arrays have gained, is a plan of its own, which is approved with this. Of OSDs it says nothing: their
// steps find out from the disk and the cluster what is there. fault.Busy while md is at work on what the plan began.
func (m *Machine) Abandon(ctx context.Context, id plan.ID, why string) error {
	j, err := journal.Open(m.Ledger.Dir, id)
	if err != nil {
		return err
	}
	defer func() { _ = j.Close() }() // every record is on disk already
	p := j.Plan()
	if s := executor.StatusOf(p, j.Records()); s.Phase.Final() {
		return fault.New(fault.Precondition, "plan %s has come to its end (%s)", id, s)
	}
	verified, _ := executor.Reached(j.Records())
	end := executor.Record{Event: executor.Abandoned, Step: verified, At: time.Now().UTC(), Error: why}
	if kind, _ := ledger.Subject(p); kind == ledger.Stacks && executor.Touched(j.Records()) {
		if end.State, err = m.leave(ctx, p, j.Records()); err != nil {
			return fmt.Errorf("plan %s cannot be given up: %w", id, err)
		}
		if err := m.Unbind(p); err != nil {
			return fmt.Errorf("plan %s cannot be given up: %w", id, err)
		}
	}
	return errors.Join(j.Append(end), journal.Resume(m.Ledger.Dir, id))
}

// leave works out the state that a stack's plan has left, and has what is missing of it done next.
func (m *Machine) leave(ctx context.Context, p plan.Plan, records []executor.Record) (json.RawMessage, error) {
	parent, there, err := m.Ledger.Parent(p)
	if err != nil {
		return nil, err
	}
	stacks := m.stacks(m.limit(p))
	verified, begun := executor.Reached(records)
	left, exists, err := stack.Abandon(parent, there, p, verified, begun, func(a stack.ArrayArgs) (bool, error) { return stacks.Reached(ctx, a) })
	if err != nil || !exists {
		return nil, err
	}
	closing, needed, err := left.Close(parent, stacks.Whole, closingRate)
	if err != nil {
		return nil, err
	}
	if needed {
		// It is there before the state that it fits: a crash in between leaves a plan that nothing fits yet, and giving up again makes the same.
		j, err := journal.Create(m.Ledger.Dir, closing)
		if err == nil {
			err = j.Close()
		}
		if err != nil && !errors.Is(err, fault.Exists) {
			return nil, err
		}
	}
	data, err := json.Marshal(left)
	if err != nil {
		return nil, fmt.Errorf("encode the state that is left: %w", err)
	}
	return data, nil
}
