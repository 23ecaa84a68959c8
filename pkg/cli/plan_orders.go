package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/machine"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
)

// plans is who keeps this machine's plans; agentapi.Client is one.
type plans interface {
	Plans(ctx context.Context) ([]agentapi.Plan, error)
	Propose(ctx context.Context, p plan.Plan) (agentapi.Plan, error)
	Do(ctx context.Context, id plan.ID, v agentapi.Verb, token string) (agentapi.Plan, error)
	Watch(ctx context.Context, id plan.ID, tell func(executor.Status)) (executor.Status, error)
}

var (
	_ plans = (*agentapi.Client)(nil)
	_ plans = (*localPlans)(nil)
)

// keeper is the agent, or, where none runs, the data directory itself.
type keeper struct {
	plans
	agent   bool
	theirs  bool // the agent takes orders of coordinators
	machine *machine.Machine
}

// keeperOf asks whether the agent runs.
func keeperOf(cmd *cobra.Command) (*keeper, error) {
	m, err := machineOf(cmd)
	if err != nil {
		return nil, err
	}
	dir, err := dataDir(cmd)
	if err != nil {
		return nil, err
	}
	client := agentapi.NewClient(dir)
	status, err := client.Status(cmd.Context())
	switch {
	case err == nil:
		return &keeper{plans: client, agent: true, theirs: status.Coordinated, machine: m}, nil
	case errors.Is(err, fault.Unavailable):
		return &keeper{plans: &localPlans{m}, machine: m}, nil
	default:
		return nil, err
	}
}

// says tells what has become of a plan: as -o asks, and to a person who has done it.
func (k *keeper) says(cmd *cobra.Command, e agentapi.Plan, next string) error {
	who := "the agent"
	if !k.agent {
		who = "no agent runs: " + k.machine.Ledger.Dir
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "plan %s: %s (%s)\n", e.Status.Plan, stateOf(e), who)
	if next != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "next: %s %s\n", self(cmd), next)
	}
	return emit(cmd, rowOf(e), nil, func(io.Writer) {})
}

// localPlans keeps plans without an agent.
type localPlans struct{ machine *machine.Machine }

func view(e ledger.Entry) agentapi.Plan {
	p := agentapi.Plan{Plan: e.Plan, Status: e.Status, Pausing: e.Pausing, Cancelling: e.Cancelling}
	if e.Err != nil {
		p.Error = e.Err.Error()
	}
	return p
}

// Plans implements plans.
func (l *localPlans) Plans(context.Context) ([]agentapi.Plan, error) {
	list, err := l.machine.Ledger.List()
	var all []agentapi.Plan
	for _, e := range list {
		all = append(all, view(e))
	}
	return all, err
}

// Propose implements plans.
func (l *localPlans) Propose(_ context.Context, p plan.Plan) (agentapi.Plan, error) {
	e, err := l.machine.Ledger.Propose(p)
	return view(e), err
}

// Do implements plans.
func (l *localPlans) Do(ctx context.Context, id plan.ID, v agentapi.Verb, token string) (agentapi.Plan, error) {
	book := l.machine.Ledger
	if err := book.Own(); err != nil {
		return agentapi.Plan{}, err
	}
	e, err := book.Find(id)
	if err != nil {
		return agentapi.Plan{}, err
	}
	switch v {
	case agentapi.Approve:
		err = book.Approve(e.Plan, token)
	case agentapi.Pause:
		err = book.Ask(e.Plan.ID, journal.WishPause)
	case agentapi.Cancel:
		err = book.Ask(e.Plan.ID, journal.WishCancel)
	case agentapi.Resume:
		if err = book.Resume(e.Plan.ID); err == nil {
			err = l.machine.Unbind(e.Plan)
		}
	case agentapi.Abandon:
		err = l.abandon(ctx, e, token)
	default:
		err = fault.New(fault.Invalid, "nothing is known of %q", v)
	}
	if err != nil {
		return agentapi.Plan{}, err
	}
	after, err := book.Find(e.Plan.ID)
	if errors.Is(err, fault.NotFound) { // a proposal that was withdrawn
		e.Status.Phase = executor.Ended
		return view(e), nil
	}
	return view(after), err
}

// abandon ends a plan that nobody runs.
func (l *localPlans) abandon(ctx context.Context, e ledger.Entry, token string) error {
	if !ledger.Approved(e.Plan, token) {
		return fault.New(fault.Denied, "%q does not name what is at stake: it must be %s", token, e.Plan.Token())
	}
	if e.Status.Phase == executor.Proposed {
		return l.machine.Ledger.Ask(e.Plan.ID, journal.WishCancel)
	}
	unlock, err := journal.Lock(l.machine.Ledger.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	return l.machine.Abandon(ctx, e.Plan.ID, "abandoned by order")
}

// planWatchEvery is how often a journal is looked at.
const planWatchEvery = time.Second

// Watch implements plans, by the journal.
func (l *localPlans) Watch(ctx context.Context, id plan.ID, tell func(executor.Status)) (executor.Status, error) {
	ticker := time.NewTicker(planWatchEvery)
	defer ticker.Stop()
	for {
		e, err := l.machine.Ledger.Find(id)
		if err != nil {
			return executor.Status{}, err
		}
		tell(e.Status)
		if !e.Status.Phase.Moves() && e.Status.Phase != executor.Proposed {
			return e.Status, nil
		}
		select {
		case <-ctx.Done():
			return e.Status, ctx.Err()
		case <-ticker.C:
		}
	}
}

func planPropose() *cobra.Command {
	cmd := &cobra.Command{
		Use: "propose FILE", Short: "Have a plan kept until somebody approves it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := findPlan(cmd, args[0])
			if err != nil {
				return err
			}
			k, err := keeperOf(cmd)
			if err != nil {
				return err
			}
			e, err := k.Propose(cmd.Context(), p)
			if err != nil {
				return err
			}
			return k.says(cmd, e, "plan approve "+string(p.ID))
		},
	}
	addOutputFlag(cmd)
	return cmd
}

func planApprove() *cobra.Command {
	var token string
	cmd := &cobra.Command{
		Use: "approve ID", Short: "Let a plan be run; without --token only show it", Args: cobra.ExactArgs(1),
		Long: "--token repeats the serials of the disks whose content is at stake, comma separated, or the plan's ID where there are none. A plan is refused, with the difference, if what it " +
			"was made from has changed since.",
		ValidArgsFunction: planIDs,
		RunE: either(orderByCoordinators(agentapi.Approve, true), func(cmd *cobra.Command, args []string) error {
			k, err := keeperOf(cmd)
			if err != nil {
				return err
			}
			e, err := k.find(cmd.Context(), plan.ID(args[0]))
			if err != nil {
				return err
			}
			if token == "" {
				printPlan(cmd.OutOrStdout(), e.Plan)
				fmt.Fprintf(cmd.ErrOrStderr(), "\nnothing was approved; to approve it: %s plan approve %s --token '%s'\n", self(cmd), e.Plan.ID, e.Plan.Token())
				return nil
			}
			e, err = k.Do(cmd.Context(), e.Plan.ID, agentapi.Approve, token)
			if err != nil {
				return err
			}
			next := "plan watch " + string(e.Plan.ID)
			if !k.agent {
				next = "plan run " + string(e.Plan.ID)
			}
			return k.says(cmd, e, next)
		}),
	}
	cmd.Flags().StringVar(&token, "token", "", "what the command said to say")
	addOutputFlag(cmd)
	return cmd
}

// order is a verb of the command line that needs no more than a plan's ID, and perhaps a token.
type order struct {
	verb        agentapi.Verb
	short, long string
	token       bool
}

var orders = []order{
	{agentapi.Pause, "Have a plan copy no more, and begin no further step; `resume` lets it go on", "What md copies slows to a trickle at once: data stays as safe as the plan says of the step that runs. A pause outlives kills and boots.", false},
	{agentapi.Resume, "Let a plan go on that was paused, cancelled or stopped by an error", "", false},
	{agentapi.Cancel, "End a running plan before its next step, and forget one that nobody has approved; `resume` goes on with it", "", false},
	{agentapi.Abandon, "Give a plan up that can never come to its end, such as one whose new disk has died", "What the steps so far have left becomes the state that the next plan is made from; it is " +
		"worked out from the journal and from what the arrays are. Where that is no state that a plan can start from, nothing is done and the reason is said. --token is as of `approve`.", true},
}

func planOrder(o order) *cobra.Command {
	var token string
	cmd := &cobra.Command{
		Use: string(o.verb) + " ID", Short: o.short, Long: o.long, Args: cobra.ExactArgs(1), ValidArgsFunction: planIDs,
		RunE: either(orderByCoordinators(o.verb, o.token), func(cmd *cobra.Command, args []string) error {
			k, err := keeperOf(cmd)
			if err != nil {
				return err
			}
			if o.token && token == "" {
				e, err := k.find(cmd.Context(), plan.ID(args[0]))
				if err == nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "plan %s: %s\nto give it up: %s plan %s %s --token '%s'\n", e.Plan.ID, e.Status, self(cmd), o.verb, e.Plan.ID, e.Plan.Token())
				}
				return err
			}
			e, err := k.Do(cmd.Context(), plan.ID(args[0]), o.verb, token)
			if err != nil {
				return err
			}
			next := ""
			if o.verb == agentapi.Resume && !k.agent {
				next = "plan run " + args[0]
			}
			return k.says(cmd, e, next)
		}),
	}
	if o.token {
		cmd.Flags().StringVar(&token, "token", "", "what the command said to say")
	}
	addOutputFlag(cmd)
	return cmd
}

func planWatch() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch ID", Short: "Follow a plan until it ends, stops or rests", Args: cobra.ExactArgs(1), ValidArgsFunction: planIDs,
		Long: "It fails unless the plan comes to its end. With -o json a status is a JSON object on a line of its own.",
		RunE: either(watchByCoordinators, func(cmd *cobra.Command, args []string) error {
			k, err := keeperOf(cmd)
			if err != nil {
				return err
			}
			format, _ := cmd.Flags().GetString("output")
			lines := json.NewEncoder(cmd.OutOrStdout())
			last := ""
			end, err := k.Watch(cmd.Context(), plan.ID(args[0]), func(s executor.Status) {
				text := s.String()
				switch {
				case text == last:
				case format == "json":
					_ = lines.Encode(s) // as printing does, it ends with its reader
				default:
					fmt.Fprintln(cmd.OutOrStdout(), text)
				}
				last = text
			})
			if err != nil || end.Phase == executor.Succeeded {
				return err
			}
			return concluded(cmd, plan.Plan{ID: end.Plan}, end)
		}),
	}
	cmd.Flags().StringP("output", "o", "", "json: a JSON object a line")
	return cmd
}
