package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
)

// byCoordinators reports whether coordinators decide on plans here: when the person says so, when this machine's agent takes its
// orders of them, and where they are known and no agent runs.
func byCoordinators(cmd *cobra.Command) (bool, error) {
	_, asked, there := certsOf(cmd)
	if asked {
		return true, nil
	}
	dir, err := dataDir(cmd)
	if err != nil {
		return false, err
	}
	agent, err := agentapi.NewClient(dir).Status(cmd.Context())
	switch {
	case errors.Is(err, fault.Unavailable):
		return there, nil
	case err != nil:
		return false, err
	case agent.Coordinated && !there:
		return false, fault.New(fault.NotFound, "this machine's agent takes its orders of coordinators: --certs says where your certificate for them is")
	default:
		return agent.Coordinated, nil
	}
}

// plansHere are the plans of this machine where no agent runs: nobody hands them to the coordinators.
func plansHere(cmd *cobra.Command) ([]agentapi.Plan, error) {
	k, err := keeperOf(cmd)
	if err != nil || k.agent {
		return nil, err
	}
	return k.Plans(cmd.Context())
}

// theirPlan is a plan of the coordinators.
func theirPlan(cmd *cobra.Command, id string) (p plan.Plan, err error) {
	err = withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
		m, err := getPlan(ctx, c, id)
		if err == nil {
			p, err = plan.Parse(m.GetPlan())
		}
		return err
	})
	return p, err
}

// either does a verb by the coordinators, or on this machine.
func either(remote, local func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		theirs, err := byCoordinators(cmd)
		if err != nil {
			return err
		}
		if theirs && len(args) > 0 {
			here, err := plansHere(cmd)
			if err != nil {
				return err
			}
			_, err = ledger.Pick(here, plan.ID(args[0]), idOf)
			theirs = errors.Is(err, fault.NotFound)
		}
		if theirs {
			return remote(cmd, args)
		}
		return local(cmd, args)
	}
}

// handedOver is how often it is looked whether the agent has handed a proposal to the coordinators.
const handedOver = 200 * time.Millisecond

// runByCoordinators approves a plan that this machine's agent hands to the coordinators, or lets one go on, and follows it. An end of
// this command does not end the plan.
func runByCoordinators(cmd *cobra.Command, p plan.Plan, token string) error {
	client, err := coordinators(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	timeout, _ := cmd.Flags().GetDuration("timeout")
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	var phase string
	err = poll.Until(ctx, handedOver, func() (bool, error) {
		m, err := getPlan(ctx, client, string(p.ID))
		phase = m.GetPhase()
		if errors.Is(err, fault.NotFound) {
			return false, nil
		}
		return err == nil, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Unavailable, "the agent has not handed plan %s to the coordinators within %s: see its log, then %s plan approve %s", p.ID, timeout, self(cmd), p.ID)
	}
	if err != nil {
		return err
	}
	verb := agentapi.Resume
	if phase == "proposed" {
		verb = agentapi.Approve
	}
	if phase != "completed" {
		if _, err := changePlan(ctx, client, string(p.ID), verb, token); err != nil {
			return err
		}
	}
	return follow(cmd, client, p)
}

// follow follows a plan of the coordinators to its end.
func follow(cmd *cobra.Command, client *coordinatorapi.Client, p plan.Plan) error {
	tell := lines(cmd.ErrOrStderr(), "")
	if err := watchPlan(cmd.Context(), client, string(p.ID), tell); err != nil {
		return err
	}
	return succeeded(cmd, p)
}
