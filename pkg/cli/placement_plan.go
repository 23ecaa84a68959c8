package cli

import (
	"bufio"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// planFlags are those of `holdfast placement plan`.
type planFlags struct {
	changeFlags
	waves placement.WaveOptions
	bytes string
	step  int
}

func placementPlan() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use: "plan --osdmap DUMP --crush FILE CHANGE...", Short: "Plan a change of the cluster in steps, so that little data moves at a time", Args: cobra.NoArgs,
		Long: "First what gives space is done, and upmaps keep all data where it is. Then data moves in waves: at most so much to or from an OSD in each, no OSD above the nearfull ratio " +
			"(backfillfull, where nothing moves else) while it is under way. What takes space away, or changes a rule, comes last, when data has left; where it cannot leave, that change is in no step, and is shown as left out. " +
			"After each step wait until all PGs are active+clean; each leaves the cluster as the rules want it, so that the rest may as well be planned anew. " +
			"What `-o commands` prints ends the shell that reads it wherever something has to be done by hand or waited for; run the lines after that when it is done.",
		Example: "  holdfast placement plan --osdmap osd.json --crush crush.bin --pgs pg.json --add-host n4=4TB,8TB --prefer pairs\n" +
			"  holdfast placement plan --osdmap osd.json --crush crush.bin --pgs pg.json --remove-host n1 --wave-backfills 2 --step 1 -o commands",
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.IntVar(&f.waves.Backfills, "wave-backfills", 8, "shards that move to or from one OSD in a wave")
	flags.StringVar(&f.bytes, "wave-bytes", "0", "how much moves to one OSD in a wave, such as 500GB (0: any amount)")
	flags.IntVar(&f.step, "step", 0, "show or print this step alone (0: all)")
	return cmd
}

// plannedChange is a change and its steps, for scripts.
type plannedChange struct {
	*placement.Change
	Steps    []plannedStep `json:"steps"`
	HeldBack int           `json:"held_back"`
	LeftOut  []string      `json:"left_out,omitempty"`
	Why      []string      `json:"why_left_out,omitempty"`
}

type plannedStep struct {
	Number int `json:"step"`
	placement.Step
	Commands []string `json:"commands"`
}

func (f *planFlags) run(cmd *cobra.Command) error {
	size, err := storage.ParseBytes(f.bytes)
	if err != nil {
		return fmt.Errorf("--wave-bytes: %w", err)
	}
	f.waves.Bytes = int64(size)
	path, c, err := f.plan(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	waves, err := placement.PlanWaves(path, c, f.waves)
	if err != nil {
		return err
	}
	all := plannedChange{Change: c, HeldBack: waves.HeldBack, LeftOut: waves.LeftOut, Why: waves.Why}
	for i, s := range waves.Steps {
		if f.step == 0 || f.step == i+1 {
			all.Steps = append(all.Steps, plannedStep{i + 1, s, s.Commands()})
		}
	}
	if f.step > 0 && len(waves.Steps) == 0 {
		return fmt.Errorf("--step %d: the plan has no steps; without --step it says what is in the way", f.step)
	}
	if f.step < 0 || f.step > len(waves.Steps) {
		return fmt.Errorf("--step %d: the plan has steps 1 to %d", f.step, len(waves.Steps))
	}
	if format, _ := cmd.Flags().GetString("output"); format == "commands" {
		return printStepCommands(cmd.OutOrStdout(), all)
	}
	return emit(cmd, all, nil, func(out io.Writer) { printChangePlan(out, all) })
}

// printStepCommands prints what to run, with a line of comment before each step, what is left out
// as comments, and an end of the shell wherever people have to do something or wait.
func printStepCommands(out io.Writer, c plannedChange) error {
	w := bufio.NewWriter(out)
	for i, s := range c.Steps {
		fmt.Fprintf(w, "# step %d, %s\n", s.Number, s)
		for _, line := range s.Commands {
			fmt.Fprintln(w, line)
		}
		if i+1 < len(c.Steps) {
			fmt.Fprintln(w, placement.StopShell(fmt.Sprintf("wait until all PGs are active+clean, then go on with --step %d", c.Steps[i+1].Number)))
			continue
		}
		fmt.Fprintln(w, "# wait until all PGs are active+clean")
	}
	for _, line := range slices.Concat(c.LeftOut, c.Why) {
		fmt.Fprintf(w, "# left out: %s\n", line)
	}
	return w.Flush()
}

// printChangePlan shows the steps of a change.
func printChangePlan(out io.Writer, c plannedChange) {
	printChange(out, c.Change)
	fmt.Fprintln(out)
	for _, s := range c.Steps {
		fmt.Fprintf(out, "%d %s; %s\n", s.Number, s, plural(len(s.Upmaps), "upmap"))
		for _, line := range s.Change {
			fmt.Fprintf(out, "    %s\n", line)
		}
		if s.Crowded {
			fmt.Fprintf(out, "    above the nearfull ratio meanwhile: nothing moves else\n")
		}
	}
	printHeldBack(out, c)
	if len(c.Steps) == 0 {
		return
	}
	fmt.Fprintln(out, "next: `--step 1 -o commands` prints what to run first")
}

// printHeldBack says what the steps leave undone, and why.
func printHeldBack(out io.Writer, c plannedChange) {
	if c.HeldBack > 0 {
		fmt.Fprintf(out, "held back: %s: no order of moves keeps the OSDs below the backfillfull ratio, or no upmap puts them there; add space, raise the ratio, or try the other --prefer\n", plural(c.HeldBack, "PG"))
	}
	if len(c.LeftOut) == 0 {
		return
	}
	fmt.Fprintln(out, "left out, as data is in the way:")
	for _, line := range c.LeftOut {
		fmt.Fprintf(out, "    %s\n", line)
	}
	for _, line := range c.Why {
		fmt.Fprintf(out, "  %s\n", line)
	}
}
