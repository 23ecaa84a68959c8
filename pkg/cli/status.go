package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how the single-machine cluster is: is the data safe, do writes work, what to do",
		Long: `Says how the cluster is. The exit status is 0 when the question could be answered, whatever the answer.
With --exit-code it tells the health: 0 HEALTH_OK, 2 HEALTH_WARN, 3 HEALTH_ERR, 4 unknown or down.`,
		Args: cobra.NoArgs,
		RunE: runStatus,
	}
	addOutputFlag(cmd)
	cmd.Flags().BoolP("watch", "w", false, "show it again every two seconds until interrupted")
	cmd.Flags().Bool("exit-code", false, "tell the health by the exit status")
	return cmd
}

const watchEvery = 2 * time.Second

func runStatus(cmd *cobra.Command, _ []string) error {
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	watch, _ := cmd.Flags().GetBool("watch")
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		status, err := currentStatus(cmd.Context(), dir)
		if err != nil {
			return err
		}
		addAgent(cmd.Context(), dir, status)
		format, _ := cmd.Flags().GetString("output")
		if err := emit(cmd, status, nil, func(w io.Writer) { printStatus(w, status, format == "wide") }); err != nil {
			return err
		}
		if !watch {
			return exitByHealth(cmd, status)
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-ticker.C:
			if format == "" || format == "wide" {
				fmt.Fprintln(cmd.OutOrStdout())
			}
		}
	}
}

func exitByHealth(cmd *cobra.Command, status *localapi.Status) error {
	if wanted, _ := cmd.Flags().GetBool("exit-code"); !wanted || status.Health == localapi.HealthOK {
		return nil
	}
	code := map[string]int{localapi.HealthWarn: 2, localapi.HealthErr: 3}[status.Health]
	if code == 0 {
		code = 4
	}
	return &ExitCode{Code: code, Err: fmt.Errorf("the cluster is %s", status.Health)}
}

// currentStatus asks the supervisor, or says from the directory alone how things are
// when none runs.
func currentStatus(ctx context.Context, dir string) (*localapi.Status, error) {
	status, err := localapi.NewClient(dir).Status(ctx)
	if !errors.Is(err, fault.Unavailable) {
		return status, err
	}
	return localapi.Offline(dir)
}

// addAgent adds what the agent of the same directory finds wrong with disks, stacks and plans, where one runs.
func addAgent(ctx context.Context, dir string, status *localapi.Status) {
	agent, err := agentapi.NewClient(dir).Status(ctx)
	if err != nil {
		return // a cluster needs no agent
	}
	for _, c := range agent.Checks {
		status.Checks = append(status.Checks, localapi.Check{Code: c.Code, Severity: c.Severity, Message: c.Message, Action: c.Action})
		if severity[c.Severity] > severity[status.Health] {
			status.Health = c.Severity
		}
	}
}

// severity is how bad a health is. What is unknown stays unknown.
var severity = map[string]int{localapi.HealthOK: 0, localapi.HealthWarn: 1, localapi.HealthErr: 2, localapi.HealthUnknown: 3}

// printStatus answers the four questions first; details follow, troubles before them.
func printStatus(w io.Writer, s *localapi.Status, wide bool) {
	fmt.Fprintf(w, "%s  (%s)  %s\n", s.Health, s.State, s.DataDir)
	fmt.Fprintf(w, "  data:    %s\n  writes:  %s\n  spare:   %s\n", s.Verdict.Data, s.Verdict.Writes, s.Verdict.Spare)
	if s.Verdict.Next != "" {
		fmt.Fprintf(w, "  do now:  %s\n", s.Verdict.Next)
	}
	for _, c := range s.Checks {
		if c.Severity == localapi.SeverityInfo {
			fmt.Fprintf(w, "\nnote: %s (%s)\n", c.Message, c.Code)
			continue
		}
		fmt.Fprintf(w, "\n%s  %s\n", c.Severity, c.Code)
		if c.Ceph != "" && c.Code == string(codes.CephOther) {
			fmt.Fprintf(w, "  status: %s: %s\n", c.Ceph, c.Message)
		} else {
			fmt.Fprintf(w, "  status: %s\n", c.Message)
		}
		if c.Action != "" {
			fmt.Fprintf(w, "  action: %s\n", c.Action)
		}
		fmt.Fprintf(w, "  see:    holdfast explain %s\n", c.Code)
	}
	if s.State == localapi.StateDown || s.State == localapi.StateUnsupervised {
		return
	}
	printResources(w, s, wide)
	printDaemons(w, s, wide)
}
