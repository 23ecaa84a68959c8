package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/machine"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

func planRun() *cobra.Command {
	var approve, limit, hours string
	var latency time.Duration
	cmd := &cobra.Command{
		Use: "run FILE|ID", Short: "Run a plan, or go on with one; without --approve only show it", Args: cobra.ExactArgs(1),
		Long: "A plan that nobody has approved is shown, and nothing is done, unless --approve repeats the serials of the disks whose content is at stake (or the plan's ID where " +
			"there are none). A plan that was approved needs no second approval. --limit bounds how fast md copies, --full-speed says in which hours it need not, --latency lets it give way to clients; " +
			"where the agent runs plans, those are its own flags.",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := findPlan(cmd, args[0])
			if err != nil {
				return err
			}
			throttle, err := executor.ParseThrottle(limit, hours)
			if err != nil {
				return err
			}
			k, err := keeperOf(cmd)
			if err != nil {
				return err
			}
			approved, err := k.approved(cmd.Context(), p.ID)
			if err != nil {
				return err
			}
			if !approved && approve == "" {
				printPlan(cmd.OutOrStdout(), p)
				fmt.Fprintf(cmd.ErrOrStderr(), "\nnothing was done; to run it: %s plan run %s --approve %s\n", self(cmd), args[0], p.Token())
				return nil
			}
			limits := machine.Limits{Throttle: throttle, Latency: latency}
			if k.agent {
				if limits != (machine.Limits{}) {
					return fault.New(fault.Unsupported, "the agent runs plans here, with limits of its own: start `holdfastd agent` with --limit, --full-speed or --latency")
				}
				return runByAgent(cmd, k, p, approved, approve)
			}
			return runHere(cmd, k, p, approved, approve, limits)
		},
	}
	cmd.Flags().StringVar(&approve, "approve", "", "serials of the disks whose content is at stake, comma separated, or the plan's ID if there are none")
	cmd.Flags().StringVar(&limit, "limit", "", "how fast md may copy, such as 20MB/s (default: as fast as it can)")
	cmd.Flags().StringVar(&hours, "full-speed", "", "hours of the day without --limit, such as 22-6")
	cmd.Flags().DurationVar(&latency, "latency", 0, "give way to clients while their requests take longer than this, such as 30ms (default: never)")
	return cmd
}

// runByAgent has the agent run a plan and follows it. An end of this command does not end the plan.
func runByAgent(cmd *cobra.Command, k *keeper, p plan.Plan, approved bool, token string) error {
	ctx := cmd.Context()
	var err error
	if k.theirs {
		if token != "" {
			_, err = k.Propose(ctx, p)
		}
		if err != nil {
			return err
		}
		return runByCoordinators(cmd, p, token)
	}
	if approved {
		_, err = k.Do(ctx, p.ID, agentapi.Resume, "")
	} else if _, err = k.Propose(ctx, p); err == nil {
		_, err = k.Do(ctx, p.ID, agentapi.Approve, token)
	}
	if err != nil {
		return err
	}
	last, err := k.Watch(ctx, p.ID, teller(cmd))
	if err != nil {
		return err
	}
	return concluded(cmd, p, last)
}

func succeeded(cmd *cobra.Command, p plan.Plan) error {
	fmt.Fprintf(cmd.OutOrStdout(), "plan %s is done: %s, capacity %s\n", p.ID, p.Subject, p.After)
	return nil
}

// concluded says how a plan came to rest.
func concluded(cmd *cobra.Command, p plan.Plan, s executor.Status) error {
	switch s.Phase {
	case executor.Succeeded:
		return succeeded(cmd, p)
	case executor.Failed:
		return fault.New(fault.Precondition, "plan %s has stopped: %s; put that right, then %s plan resume %s", p.ID, s.Error, self(cmd), p.ID)
	case executor.GivenUp:
		return fault.New(fault.Aborted, "plan %s is %s: make another one", p.ID, s)
	default:
		return fault.New(fault.Aborted, "plan %s is %s; %s plan resume %s lets it go on", p.ID, s, self(cmd), p.ID)
	}
}

// teller prints how far a plan is, whenever that has changed.
func teller(cmd *cobra.Command) func(executor.Status) {
	last := ""
	return func(s executor.Status) {
		if text := s.String(); text != last {
			fmt.Fprintln(cmd.ErrOrStderr(), text)
			last = text
		}
	}
}

// wantsAgent refuses a plan that makes or grows an OSD: this program has no library that talks to Ceph.
func wantsAgent(p plan.Plan) error {
	for _, s := range p.Steps {
		if s.Kind == stack.KindMakeOSD || s.Kind == stack.KindGrowOSD {
			return fault.New(fault.Unsupported, "plan %s is to %s, which the agent does: start it by `holdfastd agent`, then `holdfast plan propose` and `plan approve`", p.ID, s.What)
		}
	}
	return nil
}

// runHere runs a plan in this process.
func runHere(cmd *cobra.Command, k *keeper, p plan.Plan, approved bool, token string, limits machine.Limits) error {
	if err := errors.Join(wantsAgent(p), k.machine.Ledger.Own()); err != nil {
		return err
	}
	unlock, err := journal.Lock(k.machine.Ledger.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	if !approved {
		if err := k.machine.Ledger.Approve(p, token); err != nil {
			return err
		}
	}
	if err := journal.Resume(k.machine.Ledger.Dir, p.ID); err != nil {
		return err
	}
	k.machine.Limits = limits
	if err := k.machine.Run(cmd.Context(), p.ID, teller(cmd)); err != nil {
		return err
	}
	return concluded(cmd, p, executor.Status{Phase: executor.Succeeded})
}

func planActivate() *cobra.Command {
	return &cobra.Command{
		Use: "activate NAME", Short: "Bring a stack up after a boot: arrays, volume, mount; the agent does it by itself", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := machineOf(cmd)
			if err != nil {
				return err
			}
			last, there, err := m.Ledger.Last(args[0])
			if err != nil {
				return err
			}
			if !there {
				return fault.New(fault.NotFound, "no plan in %s has made a stack %s", m.Ledger.Dir, args[0])
			}
			return m.BringUp(cmd.Context(), last)
		},
	}
}

// find returns one plan.
func (k *keeper) find(ctx context.Context, id plan.ID) (agentapi.Plan, error) {
	list, err := k.Plans(ctx)
	if err != nil {
		return agentapi.Plan{}, err
	}
	return ledger.Pick(list, id, idOf)
}

func idOf(p agentapi.Plan) plan.ID { return p.Plan.ID }

// approved reports whether somebody has approved a plan.
func (k *keeper) approved(ctx context.Context, id plan.ID) (bool, error) {
	list, err := k.Plans(ctx)
	if err != nil {
		return false, err
	}
	for _, e := range list {
		if e.Plan.ID == id {
			return e.Status.Phase != executor.Proposed, nil
		}
	}
	return false, nil
}
