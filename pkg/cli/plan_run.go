package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func planRun() *cobra.Command {
	var approve, limit, hours string
	var latency time.Duration
	cmd := &cobra.Command{
		Use: "run FILE|ID", Short: "Run a plan, or go on with one; without --approve only show it", Args: cobra.ExactArgs(1),
		Long: "A plan from a file is shown, and nothing is done, unless --approve repeats the serials of the disks whose content is at stake (or the plan's ID where " +
			"there are none). A plan that was begun needs no second approval. --limit bounds how fast md copies, --full-speed says in which hours it need not, --latency lets it give way to clients.",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, begun, err := findPlan(cmd, args[0])
			if err != nil {
				return err
			}
			throttle, err := executor.ParseThrottle(limit, hours)
			if err != nil {
				return err
			}
			if !begun && approve == "" {
				printPlan(cmd.OutOrStdout(), p)
				fmt.Fprintf(cmd.ErrOrStderr(), "\nnothing was done; to run it: %s plan run %s --approve %s\n", self(cmd), args[0], p.Token())
				return nil
			}
			dir, err := journals(cmd)
			if err != nil {
				return err
			}
			unlock, err := journal.Lock(dir)
			if err != nil {
				return err
			}
			defer unlock()
			j, err := open(dir, p, begun, approve)
			if err != nil {
				return err
			}
			defer func() { _ = j.Close() }() // every record is on disk already
			return run(cmd, dir, j, bound(j.Plan(), throttle, latency))
		},
	}
	cmd.Flags().StringVar(&approve, "approve", "", "serials of the disks whose content is at stake, comma separated, or the plan's ID if there are none")
	cmd.Flags().StringVar(&limit, "limit", "", "how fast md may copy, such as 20MB/s (default: as fast as it can)")
	cmd.Flags().StringVar(&hours, "full-speed", "", "hours of the day without --limit, such as 22-6")
	cmd.Flags().DurationVar(&latency, "latency", 0, "give way to clients while their requests take longer than this, such as 30ms (default: never)")
	return cmd
}

// Ends of the bound while copying gives way to clients: what no disk exceeds, and what still brings a plan to its end.
const (
	mostCopied  = storage.GiB
	leastCopied = 4 * storage.MiB
)

// bound is how fast md may copy at the moment: by the limit, its hours and how long clients wait.
func bound(p plan.Plan, throttle executor.Throttle, latency time.Duration) func() storage.Bytes {
	s, err := stack.Parse(p.State)
	if latency == 0 || err != nil {
		return func() storage.Bytes { return throttle.At(time.Now()) }
	}
	clients, yield := live.LatencyOf(s.Volume), &executor.Yield{Target: latency, Most: mostCopied, Least: leastCopied}
	return func() storage.Bytes { return executor.Tighter(throttle.At(time.Now()), yield.Next(clients.Measure())) }
}

// open takes the journal of an approved plan. One of the same subject that is on its way, or a state other than
// the one that it was made for, is refused.
func open(dir string, p plan.Plan, begun bool, approve string) (*journal.Journal, error) {
	if begun {
		return goOn(dir, p)
	}
	if !approved(p, approve) {
		return nil, fault.New(fault.Denied, "--approve %s does not name what is at stake: it must be %s", approve, p.Token())
	}
	if j, err := goOn(dir, p); err == nil || !errors.Is(err, fault.NotFound) {
		return j, err // it was begun, and is given as a file again
	}
	if err := fresh(dir, p); err != nil {
		return nil, err
	}
	return journal.Create(dir, p)
}

// goOn opens the journal of a plan that was begun. One that changed nothing yet must still be of the state that there is.
func goOn(dir string, p plan.Plan) (*journal.Journal, error) {
	j, err := journal.Open(dir, p.ID)
	if err != nil {
		return nil, err
	}
	if !executor.Touched(j.Records()) {
		err = fresh(dir, j.Plan())
	}
	if err == nil {
		err = journal.Resume(dir, p.ID)
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// approved compares serials in any order.
func approved(p plan.Plan, approve string) bool {
	list := strings.Split(approve, ",")
	slices.Sort(list)
	return strings.Join(list, ",") == p.Token()
}

// fresh refuses a plan that was made from another state than the one that there is.
func fresh(dir string, p plan.Plan) error {
	after, err := stack.Parse(p.State)
	if err != nil {
		return err
	}
	now, there, err := current(dir, after.Name)
	if err != nil {
		return err
	}
	if !there {
		now = stack.Stack{Name: after.Name, UUID: after.UUID, Volume: after.Volume}
	}
	parent, err := plan.Hash(now)
	if err != nil {
		return err
	}
	if parent != p.Parent {
		return fault.New(fault.Precondition, "plan %s is stale: stack %s has changed since (%d disks, %s now): plan again", p.ID, after.Name, len(now.Disks), now.Capacity())
	}
	return nil
}

// run brings up what is there and runs what is left.
func run(cmd *cobra.Command, dir string, j *journal.Journal, limit func() storage.Bytes) error {
	p := j.Plan()
	machine := machineOf(cmd, dir, limit)
	if err := bringUp(cmd.Context(), machine, p, len(j.Records()) > 0); err != nil {
		return err
	}
	last := ""
	e := &executor.Executor{
		Registry: machine.Registry(), Now: time.Now, Cancelled: func() bool { return journal.Cancelled(dir, p.ID) },
		Watch: func(s executor.Status) {
			if text := s.String(); text != last {
				fmt.Fprintln(cmd.ErrOrStderr(), text)
				last = text
			}
		},
	}
	if err := e.Run(cmd.Context(), p, j); err != nil {
		return fmt.Errorf("plan %s: %w", p.ID, err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "plan %s is done: %s, capacity %s\n", p.ID, p.Subject, p.After)
	return nil
}

// machineOf is this machine, which remembers beside the journals in dir how far its arrays had come.
func machineOf(cmd *cobra.Command, dir string, limit func() storage.Bytes) *live.Machine {
	machine := live.New(devices(cmd), command.Steady{}, limit)
	machine.Events = filepath.Join(dir, "events")
	return machine
}

// bringUp starts arrays, volume and mount: after a boot nobody else may have done it. A new stack has none before its
// plan was begun.
func bringUp(ctx context.Context, m *live.Machine, p plan.Plan, begun bool) error {
	if !begun && p.Before == 0 {
		return nil
	}
	s, err := stack.During(p)
	if err != nil {
		return err
	}
	return m.Activate(ctx, s)
}

func planActivate() *cobra.Command {
	return &cobra.Command{
		Use: "activate NAME", Short: "Bring a stack up after a boot: arrays, volume, mount", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := journals(cmd)
			if err != nil {
				return err
			}
			list, err := journal.List(dir)
			if err != nil {
				return err
			}
			last, _, there, err := newest(list, args[0])
			if err != nil {
				return err
			}
			if there {
				return bringUp(cmd.Context(), machineOf(cmd, dir, nil), last.Plan, true)
			}
			return fault.New(fault.NotFound, "no plan in %s has made a stack %s", dir, args[0])
		},
	}
}
