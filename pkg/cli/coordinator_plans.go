package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// planView is a plan as scripts get it.
type planView struct {
	ID         string `json:"id"`
	Subject    string `json:"subject"`
	What       string `json:"what"`
	Phase      string `json:"phase"`
	Worker     string `json:"worker,omitempty"`
	ProposedBy string `json:"proposed_by"`
	ApprovedBy string `json:"approved_by,omitempty"`
	PausedBy   string `json:"paused_by,omitempty"`
	PausedWhy  string `json:"paused_why,omitempty"`
	Cancelling bool   `json:"cancelling,omitempty"`
	// SupersededBy is "" where nothing was left to do, and Why where it was not superseded.
	SupersededBy  string          `json:"superseded_by,omitempty"`
	SupersededWhy string          `json:"superseded_why,omitempty"`
	Token         string          `json:"token"`
	Status        executor.Status `json:"status"`
	Plan          *plan.Plan      `json:"plan,omitempty"`
}

func viewOf(m *v1.Plan) (planView, error) {
	v := planView{
		ID: m.GetId(), Subject: m.GetSubject(), What: m.GetWhat(), Phase: m.GetPhase(), Worker: m.GetWorker(), ProposedBy: m.GetProposedBy(),
		ApprovedBy: m.GetApprovedBy(), PausedBy: m.GetPausedBy(), PausedWhy: m.GetPausedWhy(), Cancelling: m.GetCancelling(), Token: m.GetToken(),
		SupersededBy: m.GetSupersededBy(), SupersededWhy: m.GetSupersededWhy(),
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
	case v.SupersededBy != "":
		return fmt.Sprintf("superseded by plan %s (%s): holdfast plan watch %[1]s", v.SupersededBy, v.SupersededWhy)
	case v.SupersededWhy != "":
		return fmt.Sprintf("given up with nothing left to do (%s)", v.SupersededWhy)
	case v.Phase == "abandoned" || v.Phase == "cancelled":
		return fmt.Sprintf("ended at step %d of %d", min(v.Status.Step+1, v.Status.Steps), v.Status.Steps)
	default:
		return v.Status.String()
	}
}

// listByCoordinators lists their plans, and those that are known on this machine alone, for which nobody else needs to answer.
func listByCoordinators(cmd *cobra.Command, _ []string) error {
	all, _ := cmd.Flags().GetBool("all")
	here, err := plansHere(cmd)
	if err != nil {
		return err
	}
	var list []planView
	err = withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) (err error) {
		list, err = listPlans(ctx, c, all)
		return err
	})
	if err != nil && len(here) == 0 {
		return err
	}
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "the coordinators' plans are missing: %v\n", err)
	}
	t := &Table{Header: []string{"ID", "PHASE", "SUBJECT", "WHAT", "PROGRESS"}}
	for _, e := range here {
		list = append(list, planView{ID: string(e.Plan.ID), Subject: e.Plan.Subject, What: e.Plan.What, Phase: stateOf(e), Token: e.Plan.Token(), Status: e.Status})
	}
	for _, v := range list {
		t.Rows = append(t.Rows, []string{v.ID, v.Phase, v.Subject, v.What, v.progress()})
	}
	return emit(cmd, list, t, nil)
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

func showByCoordinators(cmd *cobra.Command, args []string) error {
	return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
		m, err := getPlan(ctx, c, args[0])
		if err != nil {
			return err
		}
		return showPlan(cmd, m)
	})
}

func getPlan(ctx context.Context, c *coordinatorapi.Client, id string) (*v1.Plan, error) {
	return coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
		return api.GetPlan(ctx, &v1.GetPlanRequest{Id: id}, o...)
	})
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
			fmt.Fprintf(out, "next: %s plan approve %s --token '%s'\n", self(cmd), v.ID, v.Token)
		}
	})
}

// orderByCoordinators does a verb to a plan. What names what is at stake is asked for where the verb needs it.
func orderByCoordinators(verb agentapi.Verb, needsToken bool) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		token, _ := cmd.Flags().GetString("token")
		return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
			if needsToken {
				m, err := getPlan(ctx, c, args[0])
				if err != nil {
					return err
				}
				if token == "" {
					fmt.Fprintf(cmd.ErrOrStderr(), "nothing was done; to %s it: %s plan %s %s --token '%s'\n", verb, self(cmd), verb, m.GetId(), m.GetToken())
					return showPlan(cmd, m)
				}
				if !sameToken(token, m.GetToken()) {
					return fault.New(fault.Denied, "%q does not name what is at stake: it must be %s", token, m.GetToken())
				}
				token = m.GetToken()
			}
			v, err := changePlan(ctx, c, args[0], verb, token)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "plan %s is %s: %s\n", v.ID, v.Phase, v.progress())
			return emit(cmd, v, nil, func(io.Writer) {})
		})
	}
}

// sameToken compares serials in any order.
func sameToken(a, b string) bool {
	x, y := strings.Split(a, ","), strings.Split(b, ",")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// changes are the verbs as the API has them.
var changes = map[agentapi.Verb]v1.ChangePlanRequest_Verb{
	agentapi.Approve: v1.ChangePlanRequest_VERB_APPROVE,
	agentapi.Pause:   v1.ChangePlanRequest_VERB_PAUSE,
	agentapi.Resume:  v1.ChangePlanRequest_VERB_RESUME,
	agentapi.Cancel:  v1.ChangePlanRequest_VERB_CANCEL,
	agentapi.Abandon: v1.ChangePlanRequest_VERB_ABANDON,
}

func changePlan(ctx context.Context, c *coordinatorapi.Client, id string, verb agentapi.Verb, token string) (planView, error) {
	m, err := coordinatorapi.Call(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
		return api.ChangePlan(ctx, &v1.ChangePlanRequest{Id: id, Verb: changes[verb], Token: token}, o...)
	})
	if err != nil {
		return planView{}, err
	}
	return viewOf(m)
}

func watchByCoordinators(cmd *cobra.Command, args []string) error {
	client, err := coordinators(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	format, _ := cmd.Flags().GetString("output")
	return watchPlan(cmd.Context(), client, args[0], lines(cmd.OutOrStdout(), format))
}

// lines tells a plan's progress in lines, or in JSON objects, each on a line of its own.
func lines(out io.Writer, format string) func(planView) {
	encoder, last := json.NewEncoder(out), ""
	return func(v planView) {
		line := v.Phase + ": " + v.progress()
		switch {
		case line == last:
		case format == "json":
			_ = encoder.Encode(v) // as printing does, it ends with its reader
		default:
			fmt.Fprintln(out, line)
		}
		last = line
	}
}

// watchAgain is the pause before another member is asked.
const watchAgain = time.Second

// watchPlan tells of the plan whenever it changes. fault.Precondition: it did not complete.
func watchPlan(ctx context.Context, c *coordinatorapi.Client, id string, tell func(planView)) error {
	for {
		for _, address := range c.Addresses(ctx) {
			over, err := watchAt(ctx, c, address, id, tell)
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

func watchAt(ctx context.Context, c *coordinatorapi.Client, address, id string, tell func(planView)) (over bool, err error) {
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
		tell(v)
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
