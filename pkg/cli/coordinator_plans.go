package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

func coordinatorPlanCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "plan", Short: "Plans of the whole cluster: list, show, approve, watch, pause, resume, cancel, abandon"}
	cmd.AddCommand(coordinatorPlanList(), coordinatorPlanShow(), coordinatorPlanApprove(), coordinatorPlanWatch())
	for _, v := range []struct {
		use, short string
		verb       v1.ChangePlanRequest_Verb
	}{
		{"pause", "Let no further step of a plan begin", v1.ChangePlanRequest_VERB_PAUSE},
		{"resume", "Let a plan go on that was paused, cancelled in the middle, or stopped by an error", v1.ChangePlanRequest_VERB_RESUME},
		{"cancel", "End a plan before its next step", v1.ChangePlanRequest_VERB_CANCEL},
		{"abandon", "Give a plan up in the middle: what it has done stays", v1.ChangePlanRequest_VERB_ABANDON},
	} {
		cmd.AddCommand(&cobra.Command{Use: v.use + " ID", Short: v.short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return changePlan(cmd, &v1.ChangePlanRequest{Id: args[0], Verb: v.verb})
		}})
	}
	for _, each := range cmd.Commands() {
		if strings.HasSuffix(each.Use, " ID") {
			each.ValidArgsFunction = planIDs
		}
	}
	return cmd
}

// planView is a plan as scripts get it.
type planView struct {
	ID         string          `json:"id"`
	Subject    string          `json:"subject"`
	What       string          `json:"what"`
	Phase      string          `json:"phase"`
	Worker     string          `json:"worker,omitempty"`
	ProposedBy string          `json:"proposed_by"`
	ApprovedBy string          `json:"approved_by,omitempty"`
	PausedBy   string          `json:"paused_by,omitempty"`
	PausedWhy  string          `json:"paused_why,omitempty"`
	Cancelling bool            `json:"cancelling,omitempty"`
	Token      string          `json:"token"`
	Status     executor.Status `json:"status"`
	Plan       *plan.Plan      `json:"plan,omitempty"`
}

func viewOf(m *v1.Plan) (planView, error) {
	v := planView{
		ID: m.GetId(), Subject: m.GetSubject(), What: m.GetWhat(), Phase: m.GetPhase(), Worker: m.GetWorker(), ProposedBy: m.GetProposedBy(),
		ApprovedBy: m.GetApprovedBy(), PausedBy: m.GetPausedBy(), PausedWhy: m.GetPausedWhy(), Cancelling: m.GetCancelling(), Token: m.GetToken(),
	}
	if err := json.Unmarshal(m.GetStatus(), &v.Status); err != nil {
		return v, fmt.Errorf("read status of plan %s: %w", v.ID, err)
	}
	if len(m.GetPlan()) > 0 {
		p, err := plan.Parse(m.GetPlan())
		if err != nil {
			return v, err
		}
		v.Plan = &p
	}
	return v, nil
}

// progress is how far the plan is, in a line.
func (v planView) progress() string {
	switch {
	case v.PausedBy != "":
		return fmt.Sprintf("paused by %s: %s", v.PausedBy, v.PausedWhy)
	case v.Phase == "proposed":
		return "waits for approval"
	case v.Cancelling:
		return "ends before its next step; " + v.Status.String()
	case v.Phase == "completed":
		return "all steps are done and verified"
	default:
		return v.Status.String()
	}
}

func coordinatorPlanList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List plans", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		all, _ := cmd.Flags().GetBool("all")
		return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
			list, err := listPlans(ctx, c, all)
			if err != nil {
				return err
			}
			t := &Table{Header: []string{"ID", "PHASE", "SUBJECT", "WHAT", "PROGRESS"}}
			for _, v := range list {
				t.Rows = append(t.Rows, []string{v.ID, v.Phase, v.Subject, v.What, v.progress()})
			}
			return emit(cmd, list, t, nil)
		})
	}}
	cmd.Flags().Bool("all", false, "also those that are over")
	addOutputFlag(cmd)
	return cmd
}

func listPlans(ctx context.Context, c *coordinatorapi.Client, all bool) ([]planView, error) {
	list := []planView{}
	for token := ""; ; {
		page, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.ListPlansResponse, error) {
			return api.ListPlans(ctx, &v1.ListPlansRequest{Over: all, PageToken: token}, o...)
		})
		if err != nil {
			return nil, err
		}
		for _, m := range page.GetPlans() {
			v, err := viewOf(m)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		if token = page.GetNextPageToken(); token == "" {
			return list, nil
		}
	}
}

func coordinatorPlanShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "Show a plan: what it does, what it costs, how far it is", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
			m, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
				return api.GetPlan(ctx, &v1.GetPlanRequest{Id: args[0]}, o...)
			})
			if err != nil {
				return err
			}
			return showPlan(cmd, m)
		})
	}}
	addOutputFlag(cmd)
	return cmd
}

func showPlan(cmd *cobra.Command, m *v1.Plan) error {
	v, err := viewOf(m)
	if err != nil {
		return err
	}
	return emit(cmd, v, nil, func(out io.Writer) {
		if v.Plan == nil {
			fmt.Fprintf(out, "plan %s: %s: %s; it is over for long, and its steps are forgotten\n", v.ID, v.Subject, v.What)
		} else {
			fmt.Fprint(out, v.Plan.Text())
		}
		if v.Phase == "" { // of a dry run
			return
		}
		fmt.Fprintln(out, v.progress())
		if v.Phase == "proposed" {
			fmt.Fprintf(out, "next: holdfast coordinator plan approve %s --token %s\n", v.ID, v.Token)
		}
	})
}

func coordinatorPlanApprove() *cobra.Command {
	cmd := &cobra.Command{Use: "approve ID", Short: "Allow a plan to run", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		token, _ := cmd.Flags().GetString("token")
		return changePlan(cmd, &v1.ChangePlanRequest{Id: args[0], Verb: v1.ChangePlanRequest_VERB_APPROVE, Token: token})
	}}
	cmd.Flags().String("token", "", "what `show` tells: the serials of the disks at stake, or the plan's id")
	return cmd
}

func changePlan(cmd *cobra.Command, r *v1.ChangePlanRequest) error {
	return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
		m, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
			return api.ChangePlan(ctx, r, o...)
		})
		if err != nil {
			return err
		}
		v, err := viewOf(m)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "plan %s is %s: %s\n", v.ID, v.Phase, v.progress())
		return nil
	})
}

func coordinatorPlanWatch() *cobra.Command {
	return &cobra.Command{Use: "watch ID", Short: "Follow a plan to its end, whoever leads", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		client, err := coordinators(cmd)
		if err != nil {
			return err
		}
		defer client.Close()
		return watchPlan(cmd.Context(), client, args[0], cmd.OutOrStdout())
	}}
}

// watchAgain is the pause before another member is asked.
const watchAgain = time.Second

// watchPlan prints a line whenever the plan's status changes. fault.Precondition: it did not complete.
func watchPlan(ctx context.Context, c *coordinatorapi.Client, id string, out io.Writer) error {
	last := ""
	for {
		for _, address := range c.Addresses() {
			over, err := watchAt(ctx, c, address, id, out, &last)
			if over || ctx.Err() != nil || err != nil && !errors.Is(err, fault.Unavailable) {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchAgain):
		}
	}
}

func watchAt(ctx context.Context, c *coordinatorapi.Client, address, id string, out io.Writer, last *string) (over bool, err error) {
	api, err := c.At(address)
	if err != nil {
		return false, err
	}
	stream, err := api.WatchPlans(ctx, &v1.WatchPlansRequest{Id: id})
	if err != nil {
		return false, fault.FromStatus(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return false, fault.FromStatus(err)
		}
		v, err := viewOf(m)
		if err != nil {
			return true, err
		}
		if line := v.Phase + ": " + v.progress(); line != *last {
			*last = line
			fmt.Fprintln(out, line)
		}
		switch v.Phase {
		case "completed":
			return true, nil
		case "cancelled", "abandoned", "stopped":
			return true, fault.New(fault.Precondition, "plan %s is %s: %s", id, v.Phase, v.progress())
		}
	}
}

// planIDs completes the ids of plans.
func planIDs(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	_ = withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
		list, err := listPlans(ctx, c, false)
		for _, v := range list {
			if strings.HasPrefix(v.ID, prefix) {
				ids = append(ids, v.ID+"\t"+v.What)
			}
		}
		return err
	})
	return ids, cobra.ShellCompDirectiveNoFileComp
}
