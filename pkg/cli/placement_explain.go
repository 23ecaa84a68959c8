package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

func placementExplain() *cobra.Command {
	var files clusterFiles
	cmd := &cobra.Command{
		Use: "explain pg|osd|host|pool ID --osdmap DUMP --crush FILE", Short: "Say why data is where it is, what could be better, and what would lift the bound", Args: cobra.ExactArgs(2),
		Example:   "  holdfast placement explain pg 1.1f --osdmap osd.json --crush crush.bin\n  holdfast placement explain osd 3 --osdmap osd.json --crush crush.bin --pgs pg.json\n  holdfast placement explain host n4 --osdmap osd.json --crush crush.bin",
		ValidArgs: []string{"pg", "osd", "host", "pool"},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := files.read(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			e, err := explain(c, args[0], args[1])
			if err != nil {
				return err
			}
			return emit(cmd, e, nil, func(out io.Writer) { printExplanation(out, e) })
		},
	}
	files.add(cmd)
	addOutputFlag(cmd)
	return cmd
}

func explain(c placement.Cluster, what, id string) (*placement.Explanation, error) {
	switch what {
	case "pg":
		pg, err := osdmap.ParsePG(id)
		if err != nil {
			return nil, err
		}
		return placement.ExplainPG(c, pg)
	case "osd":
		n, err := strconv.ParseInt(strings.TrimPrefix(id, "osd."), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is no OSD: want a number", id)
		}
		return placement.ExplainOSD(c, crush.ItemID(n))
	case "host":
		return placement.ExplainHost(c, id)
	case "pool":
		for _, p := range c.OSDs.Pools {
			if p.Name == id || strconv.FormatInt(p.ID, 10) == id {
				return placement.ExplainPool(c, p.ID)
			}
		}
		return nil, fmt.Errorf("the map has no pool %s", id)
	default:
		return nil, fmt.Errorf("%q cannot be explained here: pg, osd, host and pool can", what)
	}
}

// printExplanation shows it to a person; OSDs that a PG could not be on are summed up by
// reason.
func printExplanation(out io.Writer, e *placement.Explanation) {
	fmt.Fprintln(out, e.Subject)
	for _, f := range e.Facts {
		fmt.Fprintf(out, "  %-16s %s\n", f.Name, f.Value)
	}
	for _, d := range e.Decisions {
		fmt.Fprintf(out, "  %-16s %s: %s\n", d.Decider, d.Decision, d.Reason)
	}
	printCandidates(out, e.Candidates)
	fmt.Fprintf(out, "  %-16s %s, the bound is %s, the gap %s\n", "usable", percent(e.Usable), percent(e.Bound), percent(e.Gap))
	fmt.Fprintf(out, "  %-16s %s\n", "limited by", e.LimitedBy)
	fmt.Fprintf(out, "  %-16s %s\n", "lifted by", e.Lift)
}

func printCandidates(out io.Writer, all []placement.Candidate) {
	var reasons []string
	osds := map[string][]string{}
	for _, c := range all {
		reason := "yes: the rule allows it"
		if !c.Allowed {
			reason = c.Decider + ", no: " + c.Reason
		}
		if osds[reason] == nil {
			reasons = append(reasons, reason)
		}
		osds[reason] = append(osds[reason], strconv.Itoa(int(c.OSD)))
	}
	for _, reason := range reasons {
		list := osds[reason]
		text := strings.Join(list[:min(len(list), 12)], " ")
		if len(list) > 12 {
			text += fmt.Sprintf(" and %d more", len(list)-12)
		}
		fmt.Fprintf(out, "  %-16s %s (osd %s)\n", "could be on", reason, text)
	}
}
