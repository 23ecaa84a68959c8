package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// rebalanceFlags are those of the commands that plan changes of the OSDs.
type rebalanceFlags struct {
	prefer, bytes                               string
	backfills                                   uint32
	add, replace, drainHosts, rmHosts, drainOSD []string
	dryRun                                      bool
}

func coordinatorRebalanceCommand() *cobra.Command {
	var f rebalanceFlags
	cmd := &cobra.Command{
		Use: "rebalance [CHANGE...]", Short: "Plan to change the OSDs and balance the pools over them, in waves; nothing moves before it is approved", Args: cobra.NoArgs,
		Long: `Plan to balance the pools over the OSDs, in waves. With changes, that is planned too: what gives space comes first, with upmaps that keep all data where it
is; then data moves; what takes space away comes last, when data has left. OSDs that are added have to run; give them no weight before
(osd_crush_initial_weight = 0, or osd_crush_update_on_start = false), or Ceph moves data by itself.`,
		Example: "  holdfast coordinator rebalance --add-host n4=6,7\n  holdfast coordinator rebalance --replace 3=8TB --drain-host n1 --dry-run",
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.addPlanFlags(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&f.add, "add-host", nil, "`HOST=OSD[:SIZE],...`: OSDs that run come below a host, which is new or not; each weighs as much as its disk, or as SIZE")
	flags.StringArrayVar(&f.replace, "replace", nil, "`OSD[=SIZE]`: the OSD has another disk, and weighs as much as that, or as SIZE")
	flags.StringArrayVar(&f.drainHosts, "drain-host", nil, "`HOST`: all data leaves the host's OSDs")
	flags.StringArrayVar(&f.drainOSD, "drain-osd", nil, "`OSD`: all data leaves the OSD")
	flags.StringArrayVar(&f.rmHosts, "remove-host", nil, "`HOST`: all data leaves its OSDs, and the CRUSH map forgets them; stop and purge them then")
	return cmd
}

// addPlanFlags adds those that say how to plan, whatever changes.
func (f *rebalanceFlags) addPlanFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.prefer, "prefer", "bytes", "bytes: move as little as can be; pairs: leave few upmaps")
	flags.Uint32Var(&f.backfills, "wave-backfills", 0, "shards that move to or from one OSD in a wave (0: what the throttle says, or 8)")
	flags.StringVar(&f.bytes, "wave-bytes", "0", "how much moves to one OSD in a wave, such as 500GB (0: any amount)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show the plan, and propose nothing")
	_ = cmd.RegisterFlagCompletionFunc("prefer", cobra.FixedCompletions([]string{"bytes", "pairs"}, cobra.ShellCompDirectiveNoFileComp))
	addOutputFlag(cmd)
}

func (f *rebalanceFlags) run(cmd *cobra.Command) error {
	r, err := f.request()
	if err != nil {
		return err
	}
	return withCoordinators(cmd, func(ctx context.Context, c *coordinatorapi.Client) error {
		m, err := planned(ctx, c, func(ctx context.Context, api v1.CoordinatorClient, o ...coordinatorapi.CallOption) (*v1.Plan, error) {
			return api.PlanRebalance(ctx, r, o...)
		})
		if err != nil {
			return err
		}
		return showPlan(cmd, m)
	})
}

// planned asks the leader for a plan, again when another leads or the Ceph cluster does not answer: the same state gives the same plan.
func planned(ctx context.Context, c *coordinatorapi.Client, call func(context.Context, v1.CoordinatorClient, ...coordinatorapi.CallOption) (*v1.Plan, error)) (*v1.Plan, error) {
	for {
		m, err := coordinatorapi.Once(ctx, c, call)
		if !errors.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return m, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(watchAgain):
		}
	}
}

func (f *rebalanceFlags) request() (*v1.PlanRebalanceRequest, error) {
	if f.prefer != "bytes" && f.prefer != "pairs" {
		return nil, fault.New(fault.Invalid, "--prefer %s: bytes or pairs", f.prefer)
	}
	size, err := storage.ParseBytes(f.bytes)
	if err != nil {
		return nil, fmt.Errorf("--wave-bytes: %w", err)
	}
	r := &v1.PlanRebalanceRequest{PreferPairs: f.prefer == "pairs", WaveBackfills: f.backfills, WaveBytes: uint64(size), DryRun: f.dryRun}
	for _, text := range f.add {
		host, list, ok := strings.Cut(text, "=")
		if !ok || host == "" || list == "" {
			return nil, fault.New(fault.Invalid, "--add-host %s: want HOST=OSD[:SIZE],..., such as n4=6,7:8TB", text)
		}
		for part := range strings.SplitSeq(list, ",") {
			if err := place(r, host, part, ":"); err != nil {
				return nil, fmt.Errorf("--add-host %s: %w", text, err)
			}
		}
	}
	for _, text := range f.replace {
		if err := place(r, "", text, "="); err != nil {
			return nil, fmt.Errorf("--replace %s: %w", text, err)
		}
	}
	for _, text := range f.drainOSD {
		osd, err := osdNumber(text)
		if err != nil {
			return nil, fmt.Errorf("--drain-osd %s: %w", text, err)
		}
		r.Changes = append(r.Changes, &v1.OSDChange{Verb: v1.OSDChange_VERB_DRAIN, Osd: &osd})
	}
	for _, host := range f.drainHosts {
		r.Changes = append(r.Changes, &v1.OSDChange{Verb: v1.OSDChange_VERB_DRAIN, Host: host})
	}
	for _, host := range f.rmHosts {
		r.Changes = append(r.Changes, &v1.OSDChange{Verb: v1.OSDChange_VERB_REMOVE, Host: host})
	}
	return r, nil
}

// place asks for an OSD's place: "6", or with a size "6:8TB".
func place(r *v1.PlanRebalanceRequest, host, text, separator string) error {
	number, size, sized := strings.Cut(text, separator)
	osd, err := osdNumber(number)
	if err != nil {
		return err
	}
	change := &v1.OSDChange{Verb: v1.OSDChange_VERB_PLACE, Osd: &osd, Host: host}
	if sized {
		bytes, err := storage.ParseBytes(size)
		if err != nil {
			return err
		}
		change.Bytes = uint64(bytes)
	}
	r.Changes = append(r.Changes, change)
	return nil
}

// osdNumber reads "3" or "osd.3".
func osdNumber(text string) (int32, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(text, "osd."), 10, 32)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "%q is no OSD: want its number, such as 3", text)
	}
	return int32(n), nil
}
