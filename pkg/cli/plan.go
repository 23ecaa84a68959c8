package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
)

func planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "plan", Short: "Make and grow storage stacks on this machine's disks, by plans that are read first",
		Long: "A plan says step by step what is to be done to which disks, by their serial numbers or WWNs. `new` and `grow` only calculate; `run` " +
			"shows the plan and does nothing unless --approve repeats the serials of the disks whose content is at stake. What was done is in a journal under " +
			"--data-dir: after a crash or a kill, `run ID` goes on where it was.",
	}
	cmd.PersistentFlags().String("sysfs", "/sys", "where disks are looked for")
	_ = cmd.PersistentFlags().MarkHidden("sysfs")
	cmd.AddCommand(planNew(), planGrow(), planShow(), planRun(), planList(), planCancel(), planWatch(), planActivate())
	return cmd
}

// journals is the directory of what plans have done.
func journals(cmd *cobra.Command) (string, error) {
	dir, err := dataDir(cmd)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "plans"), nil
}

func devices(cmd *cobra.Command) live.SysDevices {
	sys, _ := cmd.Flags().GetString("sysfs")
	return live.SysDevices{Sys: sys}
}

// findPlan reads a plan from a file, or by its ID from the journals; begun tells which.
func findPlan(cmd *cobra.Command, name string) (p plan.Plan, begun bool, err error) {
	data, err := os.ReadFile(name)
	if err == nil {
		p, err = plan.Parse(data)
		return p, false, err
	}
	if !errors.Is(err, os.ErrNotExist) {
		return p, false, fmt.Errorf("read plan: %w", err)
	}
	dir, err := journals(cmd)
	if err != nil {
		return p, false, err
	}
	e, err := journal.Read(dir, plan.ID(filepath.Base(name)))
	if errors.Is(err, fault.NotFound) {
		return p, false, fault.New(fault.NotFound, "%s is neither a file nor a plan in %s: see `holdfast plan list`", name, dir)
	}
	return e.Plan, true, err
}

// current finds the stack of a name as the last plan left it; false if there is none. fault.Busy while a plan is
// between its steps.
func current(dir, name string) (stack.Stack, bool, error) {
	list, err := journal.List(dir)
	if err != nil {
		return stack.Stack{}, false, err
	}
	for _, e := range list {
		if e.Err != nil {
			return stack.Stack{}, false, e.Err
		}
		if e.Plan.Subject != "stack "+name || !executor.Touched(e.Records) {
			continue
		}
		if s := executor.StatusOf(e.Plan, e.Records); s.Phase != executor.Succeeded {
			return stack.Stack{}, false, fault.New(fault.Busy, "plan %s of stack %s has not come to its end (%s): `holdfast plan run %s` goes on with it", e.Plan.ID, name, s, e.Plan.ID)
		}
	}
	_, found, there, err := newest(list, name)
	return found, there, err
}

// newest is the last plan that changed a stack, and the state that it leads to; false if there is none. Plans are
// told apart by the generation of their state: clocks may have been wrong.
func newest(list []journal.Entry, name string) (last journal.Entry, state stack.Stack, there bool, err error) {
	for _, e := range list {
		if e.Err != nil || e.Plan.Subject != "stack "+name || !executor.Touched(e.Records) {
			continue
		}
		s, err := stack.Parse(e.Plan.State)
		if err != nil {
			return e, s, false, err
		}
		if !there || s.Generation > state.Generation {
			last, state, there = e, s, true
		}
	}
	return last, state, there, nil
}

func planShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show FILE|ID", Short: "Show a plan, with the disks before and after", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, _, err := findPlan(cmd, args[0])
			if err != nil {
				return err
			}
			return emit(cmd, p, nil, func(out io.Writer) { printPlan(out, p) })
		},
	}
	addOutputFlag(cmd)
	return cmd
}

// printPlan shows a plan with the layout that it ends with.
func printPlan(out io.Writer, p plan.Plan) {
	fmt.Fprint(out, p.Text())
	if s, err := stack.Parse(p.State); err == nil {
		fmt.Fprintf(out, "\nafterwards:\n%s", s.Layout.Picture())
	}
}

// planRow is a plan in a list.
type planRow struct {
	ID      plan.ID         `json:"id"`
	Subject string          `json:"subject"`
	What    string          `json:"what"`
	Status  executor.Status `json:"status"`
	Error   string          `json:"error,omitempty"`
}

func planList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the plans that were begun on this machine, the oldest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := journals(cmd)
			if err != nil {
				return err
			}
			list, err := journal.List(dir)
			if err != nil {
				return err
			}
			rows := []planRow{}
			table := &Table{Header: []string{"ID", "SUBJECT", "STATE", "STEP", "CAPACITY", "WHAT"}}
			for _, e := range list {
				row := planRow{ID: e.Plan.ID, Subject: e.Plan.Subject, What: e.Plan.What, Status: executor.StatusOf(e.Plan, e.Records)}
				state := string(row.Status.Phase)
				if e.Err != nil {
					row.ID, row.Error, state = plan.ID(filepath.Base(e.Path)), e.Err.Error(), "unreadable"
				}
				rows = append(rows, row)
				table.Rows = append(table.Rows, []string{
					string(row.ID), row.Subject, state, fmt.Sprintf("%d/%d", row.Status.Step, row.Status.Steps), e.Plan.After.String(), row.What + row.Error,
				})
			}
			return emit(cmd, rows, table, nil)
		},
	}
	addOutputFlag(cmd)
	return cmd
}

func planCancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID", Short: "End a running plan before its next step; `run` goes on with it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := journals(cmd)
			if err != nil {
				return err
			}
			e, err := journal.Read(dir, plan.ID(args[0]))
			if err != nil {
				return err
			}
			if s := executor.StatusOf(e.Plan, e.Records); s.Phase == executor.Succeeded {
				return fault.New(fault.Precondition, "plan %s has come to its end", e.Plan.ID)
			}
			return journal.Cancel(dir, e.Plan.ID)
		},
	}
}

// planWatchEvery is how often a journal is looked at.
const planWatchEvery = time.Second

func planWatch() *cobra.Command {
	return &cobra.Command{
		Use: "watch ID", Short: "Follow a plan until it ends, stops or is cancelled", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := journals(cmd)
			if err != nil {
				return err
			}
			ticker := time.NewTicker(planWatchEvery)
			defer ticker.Stop()
			for last := ""; ; {
				e, err := journal.Read(dir, plan.ID(args[0]))
				if err != nil {
					return err
				}
				s := executor.StatusOf(e.Plan, e.Records)
				if text := s.String(); text != last {
					fmt.Fprintln(cmd.OutOrStdout(), text)
					last = text
				}
				if s.Phase == executor.Succeeded || s.Phase == executor.Failed || s.Phase == executor.Ended {
					return nil
				}
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-ticker.C:
				}
			}
		},
	}
}
