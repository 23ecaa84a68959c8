package machine

import (
	"context"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// Abandon ends a plan for good.
func (m *Machine) Abandon(_ context.Context, id plan.ID, _ string) error {
	return fault.New(fault.Unsupported, "plan %s cannot be given up: put right why it stopped", id)
}
