package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
)

func osdCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "osd", Short: "Make OSDs of this machine's disks, and grow, replace and remove them",
		Long: "Each of these is a plan, which is shown first and run by the agent (`holdfastd agent`) when --yes is given: it is journalled, and goes on after a kill or a boot. What lies on a disk " +
			"is destroyed only with the token that `osd remove` says, as of `disks wipe`.",
	}
	addCoordinatorFlags(cmd)
	cmd.AddCommand(osdList(), osdActivate())
	for _, v := range osdVerbs {
		cmd.AddCommand(osdChange(v))
	}
	return cmd
}

// agentOf connects to the agent, which must run: OSDs need it, since it has the library that talks to Ceph and starts them again.
func agentOf(cmd *cobra.Command) (*agentapi.Client, error) {
	dir, err := dataDir(cmd)
	if err != nil {
		return nil, err
	}
	client := agentapi.NewClient(dir)
	_, err = client.Status(cmd.Context())
	if errors.Is(err, fault.Unavailable) {
		return nil, fault.New(fault.Unavailable, "%w; OSDs are looked after by the agent: start it by `%s up --agent`, or `holdfastd agent --data-dir %s`", err, self(cmd), dir)
	}
	return client, err
}

func osdList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the OSDs on this machine's disks, those of other clusters too", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := agentOf(cmd)
			if err != nil {
				return err
			}
			list, err := client.OSDs(cmd.Context())
			if err != nil {
				return err
			}
			table := &Table{Header: []string{"OSD", "STATE", "IN", "CLASS", "SIZE", "DISK", "NAME", "STARTED BY", "CLUSTER", "UUID"}, Wide: 2}
			for _, o := range list {
				id := "?"
				if o.ID >= 0 {
					id = strconv.Itoa(o.ID)
				}
				table.Rows = append(table.Rows, []string{
					id, o.State, yesNo(o.In), orDash(o.Class), o.Size.Decimal(), string(o.Disk), o.Device, orDash(o.Keeper), orDash(o.FSID), orDash(o.UUID),
				})
			}
			return emit(cmd, list, table, nil)
		},
	}
	addOutputFlag(cmd)
	return cmd
}

func osdActivate() *cobra.Command {
	return &cobra.Command{
		Use: "activate", Short: "Start the OSDs on this machine's disks that do not run, at once; the agent does so by itself every few seconds", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := agentOf(cmd)
			if err != nil {
				return err
			}
			started, err := client.Activate(cmd.Context())
			if err != nil {
				return err
			}
			for _, id := range started {
				fmt.Fprintf(cmd.OutOrStdout(), "osd.%d was started\n", id)
			}
			if len(started) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "all run already")
			}
			return nil
		},
	}
}

// osdVerb is something that is done to an OSD.
type osdVerb struct {
	use, short, long string
	args             int
	fill             func(r *agentapi.OSDRequest, args []string) error
	class, wipe      bool
}

func withID(r *agentapi.OSDRequest, text string) (err error) {
	r.ID, err = strconv.Atoi(strings.TrimPrefix(text, "osd."))
	if err != nil || r.ID < 0 {
		return fault.New(fault.Invalid, "%q is no OSD: want a number", text)
	}
	return nil
}

var osdVerbs = []osdVerb{
	{use: "prepare DISK", short: "Make an OSD of a free disk", args: 1, class: true,
		long: "DISK is an ID of `holdfast disks list`, a WWN or a serial number. A disk that is not free is refused with all reasons.",
		fill: func(r *agentapi.OSDRequest, args []string) error { r.Disk = args[0]; return nil }},
	{use: "adopt DISK", short: "Start an OSD of this cluster that was found on a disk", args: 1,
		long: "For a disk that came from another machine of this cluster. An OSD of another cluster, and one that this cluster has gone on without, is refused.",
		fill: func(r *agentapi.OSDRequest, args []string) error { r.Disk = args[0]; return nil }},
	{use: "grow ID", short: "Let an OSD use all of a device that has grown", args: 1,
		fill: func(r *agentapi.OSDRequest, args []string) error { return withID(r, args[0]) }},
	{use: "replace ID DISK", short: "Move an OSD to another disk, under its number", args: 2, class: true, wipe: true,
		long: "Its data moves off first, so that no copy is missing at any time.",
		fill: func(r *agentapi.OSDRequest, args []string) error { r.Disk = args[1]; return withID(r, args[0]) }},
	{use: "remove ID", short: "Move an OSD's data off and remove it", args: 1, wipe: true,
		fill: func(r *agentapi.OSDRequest, args []string) error { return withID(r, args[0]) }},
}

func osdChange(v osdVerb) *cobra.Command {
	var r agentapi.OSDRequest
	var yes bool
	cmd := &cobra.Command{
		Use: v.use, Short: v.short, Long: v.long, Args: cobra.ExactArgs(v.args),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Do, _, _ = strings.Cut(v.use, " ")
			if err := v.fill(&r, args); err != nil {
				return err
			}
			client, err := agentOf(cmd)
			if err != nil {
				return err
			}
			r.DryRun = !yes
			made, err := client.PlanOSD(cmd.Context(), r)
			if err != nil {
				return err
			}
			if err := emit(cmd, made.Plan, nil, func(out io.Writer) { printPlan(out, made.Plan) }); err != nil {
				return err
			}
			if !yes {
				fmt.Fprintln(cmd.ErrOrStderr(), "\nnothing was done; the same with --yes does it")
				return nil
			}
			return runOSDPlan(cmd.Context(), cmd, client, made)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it, and follow it to its end")
	if v.class {
		cmd.Flags().StringVar(&r.Class, "class", "", "device class (default: Ceph's choice)")
		cmd.Flags().BoolVar(&r.Encrypt, "encrypt", false, "encrypt the disk (LUKS2); the key lies with the monitors")
	}
	if v.wipe {
		cmd.Flags().StringVar(&r.Wipe, "wipe", "", "wipe the disk that leaves, for the token that the dry run says")
	}
	addOutputFlag(cmd)
	return cmd
}

// runOSDPlan approves a plan that was shown and follows it.
func runOSDPlan(ctx context.Context, cmd *cobra.Command, client *agentapi.Client, made agentapi.Plan) error {
	agent, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if agent.Coordinated {
		return runByCoordinators(cmd, made.Plan, made.Plan.Token())
	}
	if _, err := client.Do(ctx, made.Plan.ID, agentapi.Approve, made.Plan.Token()); err != nil {
		return err
	}
	last, err := client.Watch(ctx, made.Plan.ID, teller(cmd))
	if err != nil {
		return fmt.Errorf("%w; the plan goes on with the next agent: %s plan watch %s", err, self(cmd), made.Plan.ID)
	}
	return concluded(cmd, made.Plan, last)
}
