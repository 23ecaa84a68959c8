package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/inside"
)

// growInside are the flags that say what in a disk grows with it.
type growInside struct {
	partition  string
	fileSystem bool
	volume     string // of LVM, in that partition
}

func (g *growInside) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&g.partition, "grow-partition", "", "partition that takes up the new space: its number, or last")
	cmd.Flags().BoolVar(&g.fileSystem, "grow-fs", false, "make the file system in that partition as large as it: ext4 in the file, xfs and btrfs if this machine can mount them, and of LVM the volume with it")
	cmd.Flags().StringVar(&g.volume, "grow-volume", "", "logical volume that grows, if there are several in the partition: VOLUME or GROUP/VOLUME")
	_ = cmd.RegisterFlagCompletionFunc("grow-partition", cobra.FixedCompletions([]string{"last"}, cobra.ShellCompDirectiveNoFileComp))
}

// number is the partition's, 0 the last; false if none is to grow.
func (g *growInside) number() (int, bool, error) {
	switch {
	case g.partition == "" && g.fileSystem:
		return 0, false, fmt.Errorf("--grow-fs needs --grow-partition: last, or a number")
	case g.partition == "":
		return 0, false, nil
	case g.partition == "last":
		return 0, true, nil
	}
	n, err := strconv.Atoi(g.partition)
	if err != nil || n < 1 {
		return 0, false, fmt.Errorf("--grow-partition %q is neither a number from 1 on nor last", g.partition)
	}
	return n, true, nil
}

// insideReport is what became of what is in the disk.
type insideReport struct {
	Before *inside.Layout `json:"before"`
	After  *inside.Layout `json:"after"`
	Growth *inside.Growth `json:"file_system,omitempty"`

	part   inside.Part
	volume string // the logical one that is to grow; "": the only one that can
}

// plan lays the grown partition table over the disk of the new size.
func (g *growInside) plan(disk content.Disk, size int64) (content.Disk, *insideReport, error) {
	number, wanted, err := g.number()
	if err != nil || !wanted {
		return disk, nil, err
	}
	r := &insideReport{}
	if r.Before, err = inside.Look(disk); err != nil {
		return nil, nil, err
	}
	overlay := content.NewOverlay(content.Resized(disk, size))
	if r.After, err = inside.GrowPartition(overlay, disk.Size(), number); err != nil {
		return nil, nil, err
	}
	if r.part, err = r.After.Find(number); err != nil {
		return nil, nil, err
	}
	if g.fileSystem {
		way, atBoot := inside.WayOf(r.part.Content, fmt.Sprintf("/dev/sdX%d", r.part.Number))
		if way == inside.Never {
			return nil, nil, fmt.Errorf("--grow-fs: partition %d holds %s, which does not grow", r.part.Number, r.part.Content)
		}
		r.Growth, r.volume = &inside.Growth{Kind: r.part.Content, Way: way, AtBoot: atBoot}, g.volume
		if err := r.growGroup(); err != nil {
			return nil, nil, err
		}
	}
	return overlay, r, nil
}

// growGroup shows the volume that grows as it will be.
func (r *insideReport) growGroup() error {
	group := r.part.Group
	if group == nil {
		return nil
	}
	v, err := group.Pick(r.volume)
	if errors.Is(err, fault.Unsupported) {
		r.Growth.Way, r.Growth.Why = inside.AtBoot, err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	r.Growth.Kind = v.Content + " in lvm2"
	group.Extend(v.Name, r.part.Size)
	return nil
}

// convert makes a raw file of the partition first, in which the file system is grown, and puts it in the place of the
// partition.
func (r *insideReport) convert(ctx context.Context, disk content.Disk, target vdisk.Target, progress vdisk.Progress) (err error) {
	folder, done, err := vdisk.WorkFolder(target.Path)
	if err != nil {
		return err
	}
	defer done()
	work := vdisk.Target{Path: filepath.Join(folder, "partition.img"), Format: vdisk.Raw}
	if err := vdisk.Convert(ctx, content.Section(disk, r.part.Start, r.part.Size), work, progress); err != nil {
		return err
	}
	growth, err := inside.Tool{Run: command.System{}, Volume: r.volume}.GrowFileSystem(ctx, work.Path, r.part)
	if err != nil {
		return err
	}
	r.Growth = &growth
	grown, err := vdisk.Open(work.Path, vdisk.Options{Format: vdisk.Raw})
	if err != nil {
		return err
	}
	defer func() { _ = grown.Close() }()
	return vdisk.Convert(ctx, content.Spliced(disk, r.part.Start, grown), target, progress)
}

func (r *insideReport) print(out io.Writer) {
	size := max(r.Before.Table.DiskSize, r.After.Table.DiskSize)
	fmt.Fprintf(out, "before\n%safter\n%s", r.Before.Picture(size), r.After.Picture(size))
	for _, text := range r.Before.Table.Trouble {
		fmt.Fprintf(out, "mended: %s\n", text)
	}
	g := r.Growth
	switch {
	case g == nil:
	case g.Done:
		fmt.Fprintf(out, "%s in partition %d is as large as the partition\n", g.Kind, r.part.Number)
	case g.Why == "" && g.Way == inside.Mounted:
		fmt.Fprintf(out, "%s in partition %d would grow on a loop device of this machine; where that cannot be, in the machine: %s\n", g.Kind, r.part.Number, g.AtBoot)
	case g.AtBoot != "" && (g.Way != inside.InFile || g.Why != ""):
		if g.Why != "" {
			fmt.Fprintf(out, "not grown here: %s\n", g.Why)
		}
		fmt.Fprintf(out, "next: in the machine, run: %s\n", g.AtBoot)
	}
}
