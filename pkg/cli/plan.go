package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/machine"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

func planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "plan", Short: "Plans: of the whole cluster, and for storage stacks on this machine's disks",
		Long: "A plan says step by step what is to be done to which disks, by their serial numbers or WWNs. `new` and `grow` only calculate; `run` and `approve` " +
			"show the plan and do nothing unless the serials of the disks whose content is at stake are repeated. What was done is in a journal under " +
			"--data-dir: after a crash or a kill, a plan goes on where it was.\n\n" +
			"Where the agent runs (`holdfastd agent`), it keeps the plans and runs those that are approved, also after a reboot. Where none runs, these commands work on --data-dir " +
			"themselves, and `run` runs a plan in this process.\n\n" +
			"Where coordinators are known (by --certs, $" + certsVariable + ", `holdfast up` in --data-dir, or " + usualCerts + "), `list`, `show`, `approve`, `pause`, `resume`, `cancel`, `abandon` " +
			"and `watch` are about their plans, unless an agent runs here that takes no orders of them.",
	}
	addDiskFlags(cmd)
	addCoordinatorFlags(cmd)
	cmd.AddCommand(planNew(), planGrow(), planShow(), planRun(), planList(), planWatch(), planActivate(), planPropose(), planApprove())
	for _, o := range orders {
		cmd.AddCommand(planOrder(o))
	}
	return cmd
}

// addDiskFlags are how a machine's disks are looked for.
func addDiskFlags(cmd *cobra.Command) {
	cmd.PersistentFlags().String("root", "/", "root directory of the machine; in a container, where the host's is mounted")
	cmd.PersistentFlags().StringArray("device", nil, "a loop or UML device that counts as a disk, for tests")
	_ = cmd.PersistentFlags().MarkHidden("device")
}

// diskConfig is how the flags have disks looked at.
func diskConfig(cmd *cobra.Command) disk.Config {
	root, _ := cmd.Flags().GetString("root")
	asked, _ := cmd.Flags().GetStringArray("device")
	dir, _ := cmd.Flags().GetString("data-dir")
	return disk.Config{Root: root, FSID: fsidIn(dir), Asked: asked}
}

// machineOf is this machine with the plans below the data directory.
func machineOf(cmd *cobra.Command) (*machine.Machine, error) {
	dir, err := dataDir(cmd)
	if err != nil {
		return nil, err
	}
	return &machine.Machine{Ledger: ledger.Of(dir), Devices: machine.NewDisks(diskConfig(cmd))}, nil
}

// findPlan reads a plan from a file, or by its ID from those that are known here.
func findPlan(cmd *cobra.Command, name string) (p plan.Plan, err error) {
	data, err := os.ReadFile(name)
	if err == nil {
		p, err = plan.Parse(data)
		return p, err
	}
	if !errors.Is(err, os.ErrNotExist) {
		return p, fmt.Errorf("read plan: %w", err)
	}
	k, err := keeperOf(cmd)
	if err != nil {
		return p, err
	}
	e, err := k.find(cmd.Context(), plan.ID(filepath.Base(name)))
	if errors.Is(err, fault.NotFound) && k.theirs {
		return theirPlan(cmd, name)
	}
	if errors.Is(err, fault.NotFound) {
		return p, fault.New(fault.NotFound, "%s is neither a file nor a plan of this machine: see `%s plan list`", name, self(cmd))
	}
	return e.Plan, err
}

func planShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show FILE|ID", Short: "Show a plan, with the disks before and after", Args: cobra.ExactArgs(1),
		ValidArgsFunction: planIDs,
	}
	here := func(cmd *cobra.Command, args []string) error {
		p, err := findPlan(cmd, args[0])
		if err != nil {
			return err
		}
		return emit(cmd, p, nil, func(out io.Writer) { printPlan(out, p) })
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := os.Stat(args[0]); err == nil {
			return here(cmd, args)
		}
		return either(showByCoordinators, here)(cmd, args)
	}
	addOutputFlag(cmd)
	return cmd
}

// printPlan shows a plan with the layout that it ends with.
func printPlan(out io.Writer, p plan.Plan) {
	fmt.Fprint(out, p.Text())
	if kind, _ := ledger.Subject(p); kind != ledger.Stacks {
		return
	}
	if s, err := stack.Parse(p.State); err == nil {
		fmt.Fprintf(out, "\nafterwards:\n%s", s.Layout.Picture())
	}
}

// planRow is a plan in a list.
type planRow struct {
	ID         plan.ID         `json:"id"`
	Subject    string          `json:"subject"`
	What       string          `json:"what"`
	Status     executor.Status `json:"status"`
	Pausing    bool            `json:"pausing,omitempty"`
	Cancelling bool            `json:"cancelling,omitempty"`
	Error      string          `json:"error,omitempty"`
}

func rowOf(e agentapi.Plan) planRow {
	return planRow{ID: e.Plan.ID, Subject: e.Plan.Subject, What: e.Plan.What, Status: e.Status, Pausing: e.Pausing, Cancelling: e.Cancelling, Error: e.Error}
}

func planList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the coordinators' plans, or this machine's, the oldest first, then those that nobody has approved", Args: cobra.NoArgs,
		RunE: either(listByCoordinators, func(cmd *cobra.Command, _ []string) error {
			k, err := keeperOf(cmd)
			if err != nil {
				return err
			}
			list, err := k.Plans(cmd.Context())
			if err != nil {
				return err
			}
			rows := []planRow{}
			table := &Table{Header: []string{"ID", "SUBJECT", "STATE", "STEP", "CAPACITY", "WHAT"}}
			for _, e := range list {
				row := rowOf(e)
				rows = append(rows, row)
				table.Rows = append(table.Rows, []string{
					string(row.ID), row.Subject, stateOf(e), fmt.Sprintf("%d/%d", row.Status.Step, row.Status.Steps), e.Plan.After.String(), strings.TrimSpace(row.What + " " + row.Error),
				})
			}
			return emit(cmd, rows, table, nil)
		}),
	}
	cmd.Flags().Bool("all", false, "of coordinators: also plans that are over")
	addOutputFlag(cmd)
	return cmd
}

// stateOf is a plan's state in a word.
func stateOf(e agentapi.Plan) string {
	switch {
	case e.Plan.Steps == nil && e.Error != "":
		return "unreadable"
	case e.Pausing && e.Status.Phase == executor.Running:
		return "pausing"
	case e.Cancelling && e.Status.Phase == executor.Running:
		return "cancelling"
	default:
		return string(e.Status.Phase)
	}
}
