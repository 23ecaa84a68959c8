package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func layoutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "layout", Short: "Work out what disks of mixed sizes yield, and how a pool of them grows",
		Long: "Disks of mixed sizes are cut into slices of equal height, and each slice becomes an md array: a mirror of two disks, RAID5 of three or more, " +
			"RAID6 when two losses are to be survived. These commands only calculate: they look at no disk and change nothing.\n\n" +
			"Sizes are as disks are sold (4TB = 4,000,000,000,000 bytes) or binary (4TiB).",
	}
	cmd.AddCommand(layoutPlan(), layoutGrow(), layoutAdvise())
	return cmd
}

// layoutOptions are the flags that all layout commands have.
type layoutOptions struct {
	disks             []string
	reserve, rate     string
	policy            layout.Policy
	zeroed            bool
	disksFlag, forWho string
}

func (o *layoutOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&o.disks, o.disksFlag, nil, o.forWho+", comma separated: 4TB,8TB,8TB; they are called disk1, disk2, ... in that order")
	f.IntVar(&o.policy.Tolerance, "tolerance", 1, "how many disks may be lost: 1 or 2")
	f.BoolVar(&o.policy.ThreeWayMirror, "three-way-mirror", false, "with --tolerance 2: three disks mirror each other where there is no fourth")
	f.StringVar(&o.reserve, "reserve", layout.DefaultReserve.String(), "left out of each disk for partition table, metadata and the difference between two disks of one size; 0 for exact figures")
	f.IntVar(&o.policy.Bays, "bays", 0, "how many disks the machine takes (0: enough)")
	f.BoolVar(&o.zeroed, "zeroed", false, "the disks read as zeros from end to end, so that new arrays need no first sync")
	_ = cmd.MarkFlagRequired(o.disksFlag)
	_ = cmd.RegisterFlagCompletionFunc("tolerance", cobra.FixedCompletions([]string{"1", "2"}, cobra.ShellCompDirectiveNoFileComp))
	addOutputFlag(cmd)
}

// addRate adds the flags of what is done to a pool.
func (o *layoutOptions) addRate(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.rate, "rate", "150MB/s", "what md gets through, for the forecast: what the slowest disk reads or writes in a second")
	cmd.Flags().BoolVar(&o.policy.AllowDegraded, "allow-degraded", false, "replace a disk although no bay is free: fewer losses are survived until the new one is in sync")
}

// layout is the fresh layout of the disks named.
func (o *layoutOptions) layout() (layout.Layout, error) {
	reserve, err := storage.ParseBytes(o.reserve)
	if err != nil {
		return layout.Layout{}, fmt.Errorf("--reserve: %w", err)
	}
	o.policy.Reserve = reserve
	var disks []layout.Disk
	for i, text := range o.disks {
		size, err := storage.ParseBytes(text)
		if err != nil {
			return layout.Layout{}, fmt.Errorf("--%s: %w", o.disksFlag, err)
		}
		disks = append(disks, layout.Disk{ID: diskName(i + 1), Size: size, Zeroed: o.zeroed})
	}
	return layout.Fresh(disks, o.policy)
}

// layoutAndRate is the fresh layout, and what md gets through, in bytes a second.
func (o *layoutOptions) layoutAndRate() (layout.Layout, storage.Bytes, error) {
	l, err := o.layout()
	if err != nil {
		return l, 0, err
	}
	rate, err := parseRate(o.rate)
	if err != nil {
		return l, 0, fmt.Errorf("--rate: %w", err)
	}
	return l, rate, nil
}

func diskName(n int) string { return fmt.Sprintf("disk%d", n) }

// layoutReport is a layout with its sums.
type layoutReport struct {
	Capacity    storage.Bytes  `json:"capacity_bytes"`
	Unprotected storage.Bytes  `json:"unprotected_bytes"`
	Raw         storage.Bytes  `json:"raw_bytes"`
	Unused      storage.Bytes  `json:"unused_bytes"`
	Survives    int            `json:"survives_losses"`
	Shortfall   string         `json:"shortfall,omitempty"`
	Policy      layout.Policy  `json:"policy"`
	Disks       []layoutDisk   `json:"disks"`
	Slices      []layout.Slice `json:"slices"`
}

type layoutDisk struct {
	layout.Disk
	Unused storage.Bytes `json:"unused_bytes"`
}

func reportOf(l layout.Layout) layoutReport {
	r := layoutReport{
		Capacity: l.Capacity(), Unprotected: l.Unprotected(), Raw: l.Raw(), Unused: l.Unused(), Survives: l.Survives(),
		Shortfall: l.Shortfall(), Policy: l.Policy, Slices: l.Slices,
	}
	for _, d := range l.Disks {
		r.Disks = append(r.Disks, layoutDisk{d, l.Free(d)})
	}
	return r
}

// print shows a layout to a person.
func (r layoutReport) print(out io.Writer, l layout.Layout) {
	fmt.Fprintf(out, "%s\ncapacity %s of %s raw", l.Picture(), r.Capacity.Decimal(), r.Raw.Decimal())
	if r.Unused > 0 {
		fmt.Fprintf(out, ", %s unused", r.Unused.Decimal())
	}
	fmt.Fprintf(out, "; survives the loss of %s\n", plural(r.Survives, "disk"))
	if r.Shortfall != "" {
		fmt.Fprintf(out, "not protected as asked: %s\n", r.Shortfall)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "s") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func layoutPlan() *cobra.Command {
	o := layoutOptions{disksFlag: "disks", forWho: "sizes of the disks"}
	cmd := &cobra.Command{
		Use: "plan --disks SIZE,...", Short: "Lay out disks that hold nothing", Args: cobra.NoArgs,
		Example: "  holdfast layout plan --disks 4TB,8TB,8TB\n  holdfast layout plan --disks 4TB,4TB,4TB,8TB --tolerance 2 -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := o.layout()
			if err != nil {
				return err
			}
			report := reportOf(l)
			return emit(cmd, report, nil, func(out io.Writer) { report.print(out, l) })
		},
	}
	o.add(cmd)
	return cmd
}

// growthReport is what a pool's way through several steps takes.
type growthReport struct {
	Steps    []layout.Step `json:"steps"`
	Passes   int           `json:"passes"`
	Sync     storage.Bytes `json:"sync_bytes"`
	Forecast int64         `json:"forecast_seconds"`
	Rate     storage.Bytes `json:"rate_bytes_per_second"`
	Capacity storage.Bytes `json:"capacity_bytes"`
	Layout   layoutReport  `json:"layout"`
}

func layoutGrow() *cobra.Command {
	o := layoutOptions{disksFlag: "disks", forWho: "sizes of the disks that the pool was made of"}
	var steps []string
	cmd := &cobra.Command{
		Use: "grow --disks SIZE,... --step STEP...", Short: "Plan how a pool grows: capacity, syncs, redundancy and time of each step", Args: cobra.NoArgs,
		Long: "The pool is laid out fresh from --disks and then goes through each --step:\n\n" +
			"  add:SIZE,...           disks are added; several at once take one reshape a slice\n" +
			"  replace:DISK=SIZE,...  a disk, by its name or size, is replaced by one as large or larger\n" +
			"  grow:DISK=SIZE,...     a partition or virtual disk has grown\n\n" +
			"A disk that replaces another takes the next free name. By size, the first disk of that size is meant. " +
			"A pass is one initial sync, recovery or reshape of one array; sync_bytes counts the array's component size once a pass.",
		Example: "  holdfast layout grow --disks 4TB --step add:8TB --step replace:4TB=8TB --step add:8TB,8TB",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, rate, err := o.layoutAndRate()
			if err != nil {
				return err
			}
			if len(steps) == 0 {
				return errors.New("say at least one --step, such as --step add:8TB")
			}
			return grow(cmd, l, steps, rate, o.zeroed)
		},
	}
	o.add(cmd)
	o.addRate(cmd)
	cmd.Flags().StringArrayVar(&steps, "step", nil, "a change, as above; may be given again")
	return cmd
}

func grow(cmd *cobra.Command, l layout.Layout, steps []string, rate storage.Bytes, zeroed bool) error {
	report := growthReport{Rate: rate, Steps: []layout.Step{}}
	names := &diskNames{last: len(l.Disks), zeroed: zeroed}
	pictures := []layout.Layout{l}
	for i, text := range steps {
		change, err := names.change(l, text)
		if err != nil {
			return fmt.Errorf("step %d, %q: %w", i+1, text, err)
		}
		after, step, err := l.Grow(change, rate)
		if err != nil {
			return fmt.Errorf("step %d, %q: %w", i+1, text, err)
		}
		report.Steps = append(report.Steps, step)
		report.Passes, report.Sync, report.Forecast = report.Passes+step.Passes, report.Sync+step.Sync, report.Forecast+step.Forecast
		pictures = append(pictures, after)
		l = after
	}
	report.Capacity, report.Layout = l.Capacity(), reportOf(l)
	return emit(cmd, report, nil, func(out io.Writer) { report.print(out, pictures) })
}

// print shows the layout before, and each step with the layout after it.
func (r growthReport) print(out io.Writer, pictures []layout.Layout) {
	fmt.Fprintf(out, "%s\n", pictures[0].Picture())
	for i, s := range r.Steps {
		fmt.Fprintf(out, "step %d: %s\n", i+1, s.What)
		for _, op := range s.Operations {
			fmt.Fprintf(out, "  ~ %s\n", op)
		}
		fmt.Fprintf(out, "  capacity %s -> %s; %s over %s, about %s at %s/s; survives the loss of %s meanwhile\n",
			s.Before.Decimal(), s.After.Decimal(), plural(s.Passes, "pass"), s.Sync.Decimal(), forecast(s.Forecast), r.Rate.Decimal(), plural(s.Redundancy, "disk"))
		for _, note := range s.Notes {
			fmt.Fprintf(out, "  ! %s\n", note)
		}
		fmt.Fprintf(out, "\n%s\n", pictures[i+1].Picture())
	}
	fmt.Fprintf(out, "in all: capacity %s, %s over %s, about %s\n", r.Capacity.Decimal(), plural(r.Passes, "pass"), r.Sync.Decimal(), forecast(r.Forecast))
}

// forecast prints seconds, rounded up to a minute: "7h25m", "90h0m".
func forecast(seconds int64) string {
	minutes := (seconds + 59) / 60
	if minutes < 60 {
		return fmt.Sprintf("%dm", minutes)
	}
	return fmt.Sprintf("%dh%dm", minutes/60, minutes%60)
}

func layoutAdvise() *cobra.Command {
	o := layoutOptions{disksFlag: "have", forWho: "sizes of the disks that there are"}
	var buy int
	var sizes []string
	cmd := &cobra.Command{
		Use: "advise --have SIZE,... --buy N", Short: "Say which disks to buy next: what each size yields and what would stay unused", Args: cobra.NoArgs,
		Long: "For each size: what N disks of it would add to the pool, how much of each byte bought becomes capacity (YIELD), how much of all disks no slice could use afterwards, and how long it takes. " +
			"With --bays, disks that find no free bay replace the smallest ones.",
		Example: "  holdfast layout advise --have 4TB,4TB,8TB --buy 2\n  holdfast layout advise --have 4TB,4TB,4TB,4TB --buy 2 --bays 4 --sizes 8TB,16TB",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, rate, err := o.layoutAndRate()
			if err != nil {
				return err
			}
			candidates := layout.Sold()
			if len(sizes) > 0 {
				candidates = nil
			}
			for _, text := range sizes {
				size, err := storage.ParseBytes(text)
				if err != nil {
					return fmt.Errorf("--sizes: %w", err)
				}
				candidates = append(candidates, size)
			}
			advice, err := layout.Advise(l, buy, candidates, rate)
			if err != nil {
				return err
			}
			return emit(cmd, advice, adviceTable(advice, buy), nil)
		},
	}
	o.add(cmd)
	o.addRate(cmd)
	cmd.Flags().IntVar(&buy, "buy", 1, "how many disks of one size to buy")
	cmd.Flags().StringSliceVar(&sizes, "sizes", nil, "sizes to look at (default: those that are sold)")
	return cmd
}

func adviceTable(advice []layout.Advice, buy int) *Table {
	table := &Table{Header: []string{"SIZE", "CAPACITY", "GAIN", "YIELD", "UNUSED", "TIME", "HOW"}}
	for _, a := range advice {
		row := []string{a.Size.Decimal(), a.Capacity.Decimal(), "+" + a.Gain.Decimal(), fmt.Sprintf("%.0f %%", 100*a.Yield(buy)), a.Unused.Decimal(), forecast(a.Forecast), a.Change}
		if a.Why != "" {
			row = []string{a.Size.Decimal(), "-", "-", "-", "-", "-", a.Why}
		}
		table.Rows = append(table.Rows, row)
	}
	return table
}
