package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
)

func agentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "agent", Short: "See what the agent of this node does, and what it finds wrong"}
	status := &cobra.Command{
		Use: "status", Short: "Show what the agent does, and what it finds wrong", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := dataDir(cmd)
			if err != nil {
				return err
			}
			s, err := agentapi.NewClient(dir).Status(cmd.Context())
			if err != nil {
				return fmt.Errorf("%w; `holdfastd agent --data-dir %s` starts one", err, dir)
			}
			return emit(cmd, s, nil, func(out io.Writer) { printAgent(out, s, time.Now()) })
		},
	}
	addOutputFlag(status)
	cmd.AddCommand(status)
	return cmd
}

// printAgent shows a person what the agent does.
func printAgent(out io.Writer, s agentapi.Status, now time.Time) {
	fmt.Fprintf(out, "agent %s on %s\n", s.Version, s.Node)
	if s.Generation == 0 {
		fmt.Fprintln(out, "disks:   being looked at for the first time")
	} else {
		fmt.Fprintf(out, "disks:   %d, %d free (looked at %s ago, generation %d)\n", s.Disks, s.Free, now.Sub(s.Scanned).Round(time.Second), s.Generation)
	}
	switch {
	case s.Running != "":
		fmt.Fprintf(out, "plan:    %s runs\n", s.Running)
	case s.Waiting != "":
		fmt.Fprintf(out, "plan:    none runs: %s\n", s.Waiting)
	default:
		fmt.Fprintln(out, "plan:    none runs")
	}
	switch {
	case s.Coordinated && s.Term > 0:
		fmt.Fprintf(out, "orders:  of the coordinators, the newest of term %d\n", s.Term)
	case s.Coordinated:
		fmt.Fprintln(out, "orders:  of the coordinators")
	}
	if s.MetricsURL != "" {
		fmt.Fprintf(out, "metrics: %s\n", s.MetricsURL)
	}
	for _, p := range s.Proposed {
		fmt.Fprintf(out, "proposed: %s of %s: %s\n", p.ID, p.Subject, p.What)
	}
	if len(s.Proposed) > 0 {
		fmt.Fprintln(out, "  see: holdfast plan show ID, then plan approve ID, or plan cancel ID")
	}
	for _, c := range s.Checks {
		fmt.Fprintf(out, "\n%s (%s): %s\n", c.Code, c.Severity, c.Message)
		if c.Action != "" {
			fmt.Fprintf(out, "  do:  %s\n", c.Action)
		}
		fmt.Fprintf(out, "  see: holdfast explain %s\n", c.Code)
	}
}
