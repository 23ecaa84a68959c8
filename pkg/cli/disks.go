package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/smart"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func disksCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "disks", Short: "Look at this machine's disks: what they are, what is on them, which are free"}
	cmd.AddCommand(disksList(), disksWipe())
	return cmd
}

// disksOptions are the flags of `holdfast disks list`.
type disksOptions struct {
	root, minSize, match string
	all, health          bool
}

// diskReport is a disk with what is worked out of it.
type diskReport struct {
	storage.Disk
	Free   bool          `json:"free"`
	Health *smart.Health `json:"health,omitempty"` // with --health
}

// disksReport is what `-o json` prints.
type disksReport struct {
	Scanned   time.Time    `json:"scanned"`
	Took      float64      `json:"took_seconds"`
	Disks     []diskReport `json:"disks"`
	Selection *selection   `json:"selection,omitempty"`
}

// selection is what --match would take.
type selection struct {
	DryRun   bool             `json:"dry_run"` // always: nothing is taken here
	Selected []storage.DiskID `json:"selected"`
	Refused  []storage.DiskID `json:"refused"`
	Error    string           `json:"error,omitempty"` // why there are too few
}

func disksList() *cobra.Command {
	var o disksOptions
	cmd := &cobra.Command{
		Use: "list", Short: "List disks, the free ones first, with every reason why the others are not", Args: cobra.NoArgs,
		Long: "A disk is free only when every question about it had an answer and every answer says so: no partitions, mounts, swap, LVM, md, signatures " +
			"at its start or its end, no data of an unknown kind, an identity to tell it by. This command only reads.\n\n" +
			"--match selects by what disks are, never by device names, which move from boot to boot:\n\n" +
			"  size=4TB..10TB    a range, also open (4TB..); a size alone allows two percent more or less\n" +
			"  model= vendor= serial= wwn= id= by-id= bus=    a pattern with * and ?, in any case\n" +
			"  rotational=true|false\n" +
			"  count=N           exactly that many, the smallest first\n\n" +
			"What it selects is shown and not taken.",
		Example: "  holdfast disks list\n  holdfast disks list -o wide\n  holdfast disks list --match 'size=4TB..,rotational=true,model=WDC*,count=2'",
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&o.root, "root", "/", "root directory of the machine to look at; in a container, where the host's is mounted")
	f.StringVar(&o.minSize, "min-size", disk.DefaultMinSize.String(), "smaller disks are not free")
	f.StringVar(&o.match, "match", "", "show which disks this would select")
	f.BoolVar(&o.all, "all", false, "also list loop, md, device-mapper and other devices, which are never taken")
	f.BoolVar(&o.health, "health", false, "ask the disks for their health, too (needs smartctl; disks that sleep are not woken)")
	addOutputFlag(cmd)
	return cmd
}

func (o disksOptions) run(cmd *cobra.Command) error {
	minSize, err := storage.ParseBytes(o.minSize)
	if err != nil {
		return fmt.Errorf("--min-size: %w", err)
	}
	var match *disk.Match
	if cmd.Flags().Changed("match") {
		m, err := disk.ParseMatch(o.match)
		if err != nil {
			return fmt.Errorf("--match: %w", err)
		}
		match = &m
	}
	dir, _ := cmd.Flags().GetString("data-dir")
	begin := time.Now()
	inventory, err := disk.NewScanner(disk.Config{Root: o.root, MinSize: minSize, FSID: fsidIn(dir)}).Scan(cmd.Context())
	if err != nil {
		return fmt.Errorf("look at the disks: %w", err)
	}
	return o.report(cmd, inventory, match, time.Since(begin))
}

// report prints the inventory; a selection that cannot be had fails after that.
func (o disksOptions) report(cmd *cobra.Command, inventory disk.Inventory, match *disk.Match, took time.Duration) error {
	report := disksReport{Scanned: inventory.Scanned, Took: took.Seconds(), Disks: []diskReport{}}
	var disks []storage.Disk
	for _, d := range inventory.Disks {
		if o.all || !d.Because(storage.ReasonKind) {
			report.Disks, disks = append(report.Disks, diskReport{Disk: d, Free: d.Free()}), append(disks, d)
		}
	}
	var tooFew error
	if match != nil {
		report.Selection, tooFew = selectFrom(disks, *match)
	}
	if o.health {
		if err := report.askHealth(cmd.Context(), o.root); err != nil {
			return err
		}
	}
	format, _ := cmd.Flags().GetString("output")
	if err := emit(cmd, report, report.table(format == "wide"), nil); err != nil {
		return err
	}
	if format == "" || format == "wide" {
		report.summary(cmd.ErrOrStderr(), time.Now())
	}
	return tooFew
}

// askHealth asks some disks at a time: a failing one may take many seconds to answer.
func (r disksReport) askHealth(ctx context.Context, root string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range r.Disks {
		group.Go(func() error {
			h, err := smart.Read(ctx, command.System{}, filepath.Join(root, "dev", r.Disks[i].Name))
			r.Disks[i].Health = &h
			return err
		})
	}
	return group.Wait()
}

func selectFrom(disks []storage.Disk, match disk.Match) (*selection, error) {
	chosen, err := match.Select(disks)
	s := &selection{DryRun: true, Selected: []storage.DiskID{}, Refused: []storage.DiskID{}}
	for _, d := range chosen.Selected {
		s.Selected = append(s.Selected, d.ID)
	}
	for _, d := range chosen.Refused {
		s.Refused = append(s.Refused, d.ID)
	}
	if err != nil {
		s.Error = err.Error()
		return s, fmt.Errorf("--match: %w", err)
	}
	return s, nil
}

// table has the reasons last, because they are as long as they must be.
func (r disksReport) table(wide bool) *Table {
	table := &Table{Header: []string{"ID", "NAME", "SIZE", "TYPE", "MODEL"}}
	if wide {
		table.Header = append(table.Header, "SERIAL", "BUS", "SECTORS", "BY-ID", "ON IT")
	}
	health := slices.ContainsFunc(r.Disks, func(d diskReport) bool { return d.Health != nil })
	if health {
		table.Header = append(table.Header, "HEALTH")
	}
	if r.Selection != nil {
		table.Header = append(table.Header, "SELECTED")
	}
	table.Header = append(table.Header, "FREE", "WHY NOT")
	for _, d := range r.Disks {
		row := []string{orDash(string(d.ID)), d.Name, d.Size.Decimal(), media(d.Disk), orDash(strings.TrimSpace(d.Vendor + " " + d.Model))}
		if wide {
			row = append(row, orDash(d.Serial), orDash(d.Bus), fmt.Sprintf("%d/%d", d.LogicalSector, d.PhysicalSector), orDash(strings.Join(d.ByID, ",")), orDash(onIt(d.Disk)))
		}
		if health {
			row = append(row, strings.Join(append([]string{string(d.Health.State)}, d.Health.Concerns...), ", "))
		}
		if r.Selection != nil {
			row = append(row, yesNo(slices.Contains(r.Selection.Selected, d.ID)))
		}
		table.Rows = append(table.Rows, append(row, yesNo(d.Free), orDash(d.Why())))
	}
	return table
}

func yesNo(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

func media(d storage.Disk) string {
	switch {
	case d.Bus == "nvme":
		return "nvme"
	case d.Rotational:
		return "hdd"
	default:
		return "ssd"
	}
}

// onIt lists what was recognised.
func onIt(d storage.Disk) string {
	var kinds []string
	for _, c := range d.Contents {
		text := c.Kind
		if c.Label != "" {
			text += "=" + c.Label
		}
		kinds = append(kinds, text)
	}
	return strings.Join(kinds, ",")
}

// summary says how old the scan is, and what a selection would take.
func (r disksReport) summary(out io.Writer, now time.Time) {
	free := 0
	for _, d := range r.Disks {
		if d.Free {
			free++
		}
	}
	fmt.Fprintf(out, "\n%s, %d free; scanned %s ago in %s\n", plural(len(r.Disks), "disk"), free,
		now.Sub(r.Scanned).Round(time.Second), time.Duration(r.Took*float64(time.Second)).Round(time.Millisecond))
	if r.Selection != nil && r.Selection.Error == "" {
		fmt.Fprintf(out, "--match selects %s; not free, though they match: %d. This is a dry run, nothing was taken.\n",
			plural(len(r.Selection.Selected), "disk"), len(r.Selection.Refused))
	}
}

// fsidIn returns the id of the cluster of this machine, "" if there is none.
func fsidIn(dir string) string { return daemon.Paths{Dir: dir}.FSID() }
