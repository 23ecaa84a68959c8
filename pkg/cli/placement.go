package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func placementCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "placement", Short: "Work out where data should be: balance, changes of the cluster, and why",
		Long: "These commands only calculate, from dumps of a cluster: they ask no cluster and change nothing.",
	}
	cmd.AddCommand(placementBalance(), placementSimulate(), placementPlan(), placementExplain(), placementAdvise())
	return cmd
}

// clusterFiles are the flags that name a cluster's dumps.
type clusterFiles struct {
	osdmap, crush, pgs string
	markUpIn           bool
}

func (f *clusterFiles) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.osdmap, "osdmap", "", "the OSD map in JSON: `DUMP` of ceph osd dump -f json, or of osdmaptool --dump json")
	flags.StringVar(&f.crush, "crush", "", "the CRUSH map `FILE`: binary (the one to plan with), text or JSON")
	flags.StringVar(&f.pgs, "pgs", "", "what the PGs hold: `PGDUMP` of ceph pg dump -f json; without it all shards count the same")
	flags.BoolVar(&f.markUpIn, "mark-up-in", false, "take all OSDs as up and in, as osdmaptool does with this flag")
	for _, name := range []string{"osdmap", "crush"} {
		_ = cmd.MarkFlagRequired(name)
	}
}

// read reads the dumps. A map without a single OSD, as osdmaptool --createsimple makes it,
// is taken as if all were up and in, and one whose OSDs are all down as if they were up.
func (f *clusterFiles) read(warn io.Writer) (placement.Cluster, error) {
	var c placement.Cluster
	data, err := os.ReadFile(f.osdmap)
	if err != nil {
		return c, fmt.Errorf("--osdmap: %w", err)
	}
	if c.OSDs, err = osdmap.Parse(data); err != nil {
		return c, fmt.Errorf("--osdmap %s: %w", f.osdmap, err)
	}
	if f.markUpIn || c.OSDs.Existing() == 0 {
		if !f.markUpIn {
			fmt.Fprintln(warn, "note: no OSD exists in this map; all are taken as up and in (--mark-up-in)")
		}
		c.OSDs.MarkUpIn()
	}
	if c.OSDs.AllDown() {
		fmt.Fprintln(warn, "note: no OSD is up in this map; those that exist are taken as up")
		c.OSDs.MarkUp()
	}
	if data, err = os.ReadFile(f.crush); err != nil {
		return c, fmt.Errorf("--crush: %w", err)
	}
	if c.Crush, err = crush.Parse(data); err != nil {
		return c, fmt.Errorf("--crush %s: %w", f.crush, err)
	}
	if f.pgs == "" {
		return c, nil
	}
	if data, err = os.ReadFile(f.pgs); err != nil {
		return c, fmt.Errorf("--pgs: %w", err)
	}
	if c.PGs, c.Disks, err = placement.ParsePGDump(data); err != nil {
		return c, fmt.Errorf("--pgs %s: %w", f.pgs, err)
	}
	return c, nil
}

// addPlanOutput adds -o with the formats of a plan of upmaps.
func addPlanOutput(cmd *cobra.Command) {
	cmd.Flags().StringP("output", "o", "", "output format: json, yaml or commands (default: a summary)")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml", "commands"}, cobra.ShellCompDirectiveNoFileComp))
}

// emitPlan prints a plan as -o asks.
func emitPlan(cmd *cobra.Command, value any, upmaps []placement.Upmap, human func(io.Writer)) error {
	if format, _ := cmd.Flags().GetString("output"); format != "commands" {
		return emit(cmd, value, nil, human)
	}
	w := bufio.NewWriter(cmd.OutOrStdout())
	for _, u := range upmaps {
		fmt.Fprintln(w, u.Command())
	}
	return w.Flush()
}

func placementBalance() *cobra.Command {
	var files clusterFiles
	var o placement.BalanceOptions
	cmd := &cobra.Command{
		Use: "balance --osdmap DUMP --crush FILE", Short: "Plan upmaps that even out how full OSDs are, with the least data moved", Args: cobra.NoArgs,
		Long: "Plans pg_upmap_items so that the fullest OSD is as little full as the pools' rules allow, and says how far that is (the bound), how much has to move at least, and what stands in the way of more.\n\n" +
			"`-o commands` prints what to run. Upmaps need clients of luminous or newer: `ceph osd set-require-min-compat-client luminous`.",
		Example: "  ceph osd dump -f json > osd.json; ceph osd getcrushmap -o crush.bin; ceph pg dump -f json > pg.json\n" +
			"  holdfast placement balance --osdmap osd.json --crush crush.bin --pgs pg.json\n" +
			"  holdfast placement balance --osdmap osd.json --crush crush.bin --pgs pg.json --max-moves 50 -o commands",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.MaxMoves < 0 {
				return fmt.Errorf("--max-moves %d: 0 (as many as it takes) or more", o.MaxMoves)
			}
			c, err := files.read(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			plan, err := placement.PlanBalance(c, o)
			if err != nil {
				return err
			}
			return emitPlan(cmd, plan, plan.Upmaps, func(out io.Writer) { printBalance(out, plan) })
		},
	}
	files.add(cmd)
	addPlanOutput(cmd)
	cmd.Flags().IntVar(&o.MaxMoves, "max-moves", 0, "move at most `N` shards (0: as many as it takes)")
	return cmd
}

// printBalance shows a plan to a person.
func printBalance(out io.Writer, b *placement.Balance) {
	fmt.Fprintf(out, "usable   %s of the raw capacity -> %s; the bound is %s\n",
		percent(b.UsableBefore), percent(b.UsableAfter), percent(b.Bound))
	fmt.Fprintf(out, "to move  %s", plural(int(b.Moves), "shard"))
	if b.Known {
		fmt.Fprintf(out, ", %s (%s of the data)", storage.Bytes(b.BytesMoved), percent(part(b.BytesMoved, b.BytesTotal)))
	}
	fmt.Fprintf(out, "; at least %d would have to, to reach the bound\n", b.MovesLowerBound)
	fmt.Fprintf(out, "upmaps   %s; %s in the map then\n", plural(len(b.Upmaps), "change"), plural(b.UpmapPairs, "pair"))
	fmt.Fprintf(out, "limit    %s\n", b.LimitedBy)
	if !b.Known {
		fmt.Fprintf(out, "note     what PGs hold is not known (--pgs): all shards count the same\n")
	}
	if len(b.Upmaps) > 0 {
		fmt.Fprintf(out, "next: the same with `-o commands` prints what to run\n")
	}
}

func part(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// percent prints a part with two decimals.
func percent(p float64) string { return fmt.Sprintf("%.2f %%", p*100) }
