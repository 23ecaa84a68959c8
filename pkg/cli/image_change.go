package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// conversion are the flags of `image convert`.
type conversion struct {
	imageOptions
	vdisk.Target
	growInside
	format, size string
	dryRun       bool
}

// conversionReport is what scripts read of a conversion. Sizes are bytes.
type conversionReport struct {
	Source    imageReport `json:"source"`
	Target    string      `json:"target"`
	Format    string      `json:"format"`
	Subformat string      `json:"subformat,omitempty"`
	Size      int64       `json:"size_bytes"`
	FileBytes int64       `json:"file_bytes,omitempty"`
	DryRun    bool        `json:"dry_run"`

	Inside *insideReport `json:"inside,omitempty"`
}

func imageConvert() *cobra.Command {
	var c conversion
	cmd := &cobra.Command{
		Use: "convert SOURCE TARGET", Short: "Write a disk to a new file in another format, larger if asked", Args: cobra.ExactArgs(2),
		Long: "The new file gets its name when it is whole and synced: cut off, nothing is left of it. The source is only read.",
		Example: "  holdfast image convert disk.vmdk disk.vdi\n" +
			"  holdfast image convert appliance.ova disk.vdi --size 64GiB --grow-partition last --grow-fs\n" +
			"  holdfast image convert disk.vdi disk.vmdk --subformat streamOptimized",
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd, args[0], args[1]) },
	}
	c.imageOptions.add(cmd)
	c.growInside.add(cmd)
	f := cmd.Flags()
	f.StringVar(&c.format, "format", "", "format of the new file: vdi, vmdk or raw (default: what its name ends with)")
	f.StringVar(&c.Subformat, "subformat", "", "of a VMDK: monolithicSparse (default) or streamOptimized")
	f.StringVar(&c.size, "size", "", "size of the new disk, such as 64GiB: at least the old one's (default: the same)")
	f.BoolVar(&c.Overwrite, "overwrite", false, "take the place of a file that is there")
	f.BoolVar(&c.dryRun, "dry-run", false, "say what would be done, and write nothing")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"vdi", "vmdk", "raw"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("subformat", cobra.FixedCompletions([]string{"monolithicSparse", "streamOptimized"}, cobra.ShellCompDirectiveNoFileComp))
	addOutputFlag(cmd)
	return cmd
}

func (c *conversion) run(cmd *cobra.Command, source, target string) (err error) {
	c.Path, c.Target.Format = target, vdisk.Format(c.format)
	if c.format == "" {
		if c.Target.Format, err = formatByName(target); err != nil {
			return err
		}
	}
	if c.Size, err = parseSize(c.size); err != nil {
		return err
	}
	return c.with(source, func(i *vdisk.Image) error {
		for _, part := range slices.Concat(i.Files, i.Parents) {
			if sameFile(part, target) {
				return fmt.Errorf("%s is a part of the disk that is read: the new disk needs a name of its own", target)
			}
		}
		if err := c.Makeable(i.Size()); err != nil {
			return err
		}
		disk, within, err := c.plan(i, c.Size)
		if err != nil {
			return err
		}
		report, err := c.report(i)
		if err != nil {
			return err
		}
		report.Inside = within
		if !c.dryRun {
			if err := c.do(cmd, disk, within); err != nil {
				return err
			}
			if info, err := os.Stat(target); err == nil {
				report.FileBytes = info.Size()
			}
		}
		return emit(cmd, report, nil, report.print)
	})
}

// do writes the new file.
func (c *conversion) do(cmd *cobra.Command, disk content.Disk, within *insideReport) error {
	bar := newBar(cmd.ErrOrStderr(), "converted")
	defer bar.close()
	if within != nil && within.Growth != nil && within.Growth.Way.Here() {
		return within.convert(cmd.Context(), disk, c.Target, bar.show)
	}
	return vdisk.Convert(cmd.Context(), disk, c.Target, bar.show)
}

func (c *conversion) report(i *vdisk.Image) (conversionReport, error) {
	source, err := reportImage(i)
	return conversionReport{Source: source, Target: c.Path, Format: string(c.Target.Format), Subformat: c.Target.Subformat, Size: c.Size, DryRun: c.dryRun}, err
}

func (r conversionReport) print(out io.Writer) {
	verb := "made"
	if r.DryRun {
		verb = "would make"
	}
	fmt.Fprintf(out, "%s %s: %s, a disk of %s", verb, r.Target, strings.TrimSpace(r.Format+" "+r.Subformat), storage.Bytes(r.Size))
	if r.Size > r.Source.Size {
		fmt.Fprintf(out, " (was %s)", storage.Bytes(r.Source.Size))
	}
	fmt.Fprintf(out, " with %s of data", storage.Bytes(r.Source.Allocated))
	if r.FileBytes > 0 {
		fmt.Fprintf(out, ", %s long", storage.Bytes(r.FileBytes))
	}
	fmt.Fprintln(out)
	if r.Inside != nil {
		r.Inside.print(out)
	}
}

// imageGrowth is what scripts read of a growth. Sizes are bytes.
type imageGrowth struct {
	Path   string `json:"path"`
	Before int64  `json:"before_bytes"`
	After  int64  `json:"after_bytes"`
	DryRun bool   `json:"dry_run"`
}

func imageGrow() *cobra.Command {
	var o imageOptions
	var sizeText string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "grow FILE --size SIZE", Short: "Make the disk in an image larger, in place", Args: cobra.ExactArgs(1),
		Long: "VDI (dynamic, fixed), VMDK (monolithicSparse, monolithicFlat, vmfs) and raw grow in place. Cut off, the image is the old one or the new one: give the command again. " +
			"No virtual machine may run on it. The partition and the file system in it are as large as before.",
		RunE: func(cmd *cobra.Command, args []string) error {
			size, err := parseSize(sizeText)
			if err != nil {
				return err
			}
			report := imageGrowth{Path: args[0], After: size, DryRun: dryRun}
			err = o.with(args[0], func(i *vdisk.Image) error {
				report.Before = i.Size()
				return i.CanGrow(size)
			})
			change := vdisk.Grow
			if dryRun {
				change = vdisk.Growable
			}
			if err == nil {
				err = change(args[0], o.Options, size)
			}
			if err != nil {
				return err
			}
			return emit(cmd, report, nil, report.print)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&sizeText, "size", "", "size of the disk, such as 64GiB")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done, and change nothing")
	_ = cmd.MarkFlagRequired("size")
	addOutputFlag(cmd)
	return cmd
}

func (r imageGrowth) print(out io.Writer) {
	switch {
	case r.Before == r.After:
		fmt.Fprintf(out, "%s has %s already\n", r.Path, storage.Bytes(r.Before))
	case r.DryRun:
		fmt.Fprintf(out, "%s would grow from %s to %s\n", r.Path, storage.Bytes(r.Before), storage.Bytes(r.After))
	default:
		fmt.Fprintf(out, "%s grew from %s to %s\n", r.Path, storage.Bytes(r.Before), storage.Bytes(r.After))
	}
}

// bar shows on a terminal how far something is, in place; elsewhere nothing.
type bar struct {
	out   io.Writer
	verb  string
	shown bool
	begun time.Time

	mu   sync.Mutex
	last time.Time
}

func newBar(out io.Writer, verb string) *bar {
	file, ok := out.(*os.File)
	return &bar{out: out, verb: verb, begun: time.Now(), shown: ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"}
}

// show is told bytes done, and of how many.
func (b *bar) show(done, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.shown || total == 0 || time.Since(b.last) < drawEvery && done < total {
		return
	}
	b.last = time.Now()
	took := time.Since(b.begun)
	text := fmt.Sprintf("  %s %3d %%  %s of %s", b.verb, done*100/total, storage.Bytes(done), storage.Bytes(total))
	if done > 0 && took > time.Second {
		left := time.Duration(float64(took) * float64(total-done) / float64(done))
		text += fmt.Sprintf("  ETA %s", left.Round(time.Second))
	}
	fmt.Fprintf(b.out, "\r%s", runewidth.FillRight(text, barWidth))
}

// barWidth covers what was drawn before, in cells.
const barWidth = 70

// close takes it off the terminal.
func (b *bar) close() {
	if b.shown {
		fmt.Fprintf(b.out, "\r%*s\r", barWidth, "")
	}
}
