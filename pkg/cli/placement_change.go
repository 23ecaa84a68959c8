package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// changeFlags are the changes of a cluster that commands take.
type changeFlags struct {
	files                             clusterFiles
	addHost, addOSD, replace, rmHosts []string
	rmOSDs                            []int
	class, prefer                     string
	domains                           []string
}

func (f *changeFlags) add(cmd *cobra.Command) {
	f.files.add(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&f.addHost, "add-host", nil, "`NAME=SIZE,...`: a new host with disks of those sizes, such as n4=4TB,8TB; in the lightest rack, where there are racks")
	flags.StringArrayVar(&f.addOSD, "add-osd", nil, "`HOST=SIZE,...`: new OSDs in a host that there is")
	flags.StringArrayVar(&f.replace, "replace", nil, "`OSD=SIZE`: the OSD gets a disk of another size and keeps its id")
	flags.IntSliceVar(&f.rmOSDs, "remove-osd", nil, "`N`: the OSD goes for good")
	flags.StringArrayVar(&f.rmHosts, "remove-host", nil, "`HOST`: the host goes with its OSDs")
	flags.StringArrayVar(&f.domains, "failure-domain", nil, "`POOL=TYPE`: the pool's places go over buckets of that type, such as rbd=rack")
	flags.StringVar(&f.class, "class", "", "device class of new OSDs (default: the one that most OSDs have)")
	flags.StringVar(&f.prefer, "prefer", string(placement.PreferBytes), "what to spare: `bytes|pairs`; bytes moves the least data, pairs needs fewer upmaps")
	_ = cmd.RegisterFlagCompletionFunc("prefer", cobra.FixedCompletions([]string{"bytes", "pairs"}, cobra.ShellCompDirectiveNoFileComp))
	addPlanOutput(cmd)
}

// plan makes the changes and plans for them.
func (f *changeFlags) plan(warn io.Writer) (placement.Path, *placement.Change, error) {
	var path placement.Path
	if len(f.addHost)+len(f.addOSD)+len(f.replace)+len(f.rmOSDs)+len(f.rmHosts)+len(f.domains) == 0 {
		return path, nil, errors.New("say what changes: --add-host, --add-osd, --replace, --remove-osd, --remove-host or --failure-domain")
	}
	before, err := f.files.read(warn)
	if err != nil {
		return path, nil, err
	}
	edit := before.Edit(f.class)
	for _, step := range []func(*placement.Editor) error{f.replaceLarger, f.addAll, f.replaceSmaller, f.remove, f.spread} {
		if err := step(edit); err != nil {
			return path, nil, err
		}
	}
	if path, err = edit.Path(); err != nil {
		return path, nil, err
	}
	c, err := placement.PlanChange(path.Before, path.After, placement.Prefer(f.prefer))
	return path, c, err
}

func (f *changeFlags) spread(e *placement.Editor) error {
	for _, text := range f.domains {
		pool, domain, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--failure-domain %s: want POOL=TYPE, such as rbd=rack", text)
		}
		if err := e.SetFailureDomain(pool, domain); err != nil {
			return fmt.Errorf("--failure-domain %s: %w", text, err)
		}
	}
	return nil
}

func (f *changeFlags) remove(e *placement.Editor) error {
	for _, host := range f.rmHosts {
		if err := e.RemoveHost(host); err != nil {
			return fmt.Errorf("--remove-host %s: %w", host, err)
		}
	}
	for _, osd := range f.rmOSDs {
		if err := e.RemoveOSD(crush.ItemID(osd)); err != nil {
			return fmt.Errorf("--remove-osd %d: %w", osd, err)
		}
	}
	return nil
}

func (f *changeFlags) replaceLarger(e *placement.Editor) error {
	return f.replaceThose(e, func(osd crush.ItemID, size storage.Bytes) bool { return !e.Shrinks(osd, size) })
}

// replaceSmaller comes after all that adds space. What got larger is as large by then.
func (f *changeFlags) replaceSmaller(e *placement.Editor) error { return f.replaceThose(e, e.Shrinks) }

func (f *changeFlags) replaceThose(e *placement.Editor, which func(crush.ItemID, storage.Bytes) bool) error {
	for _, text := range f.replace {
		osd, sizes, err := nameAndSizes(text)
		if err != nil || len(sizes) != 1 {
			return fmt.Errorf("--replace %s: want OSD=SIZE, such as 3=8TB", text)
		}
		id, err := strconv.ParseInt(strings.TrimPrefix(osd, "osd."), 10, 32)
		if err != nil {
			return fmt.Errorf("--replace %s: want OSD=SIZE, such as 3=8TB", text)
		}
		if !which(crush.ItemID(id), sizes[0]) {
			continue
		}
		if err := e.Replace(crush.ItemID(id), sizes[0]); err != nil {
			return fmt.Errorf("--replace %s: %w", text, err)
		}
	}
	return nil
}

func (f *changeFlags) addAll(e *placement.Editor) error {
	for _, text := range f.addHost {
		name, sizes, err := nameAndSizes(text)
		if err != nil {
			return fmt.Errorf("--add-host %s: %w", text, err)
		}
		if err := e.AddHost(name, sizes); err != nil {
			return fmt.Errorf("--add-host %s: %w", text, err)
		}
	}
	for _, text := range f.addOSD {
		host, sizes, err := nameAndSizes(text)
		if err != nil {
			return fmt.Errorf("--add-osd %s: %w", text, err)
		}
		for _, size := range sizes {
			if err := e.AddOSD(host, size); err != nil {
				return fmt.Errorf("--add-osd %s: %w", text, err)
			}
		}
	}
	return nil
}

// nameAndSizes reads "n4=4TB,8TB".
func nameAndSizes(text string) (string, []storage.Bytes, error) {
	name, list, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return "", nil, errors.New("want NAME=SIZE,..., such as n4=4TB,8TB")
	}
	var sizes []storage.Bytes
	for part := range strings.SplitSeq(list, ",") {
		size, err := storage.ParseBytes(part)
		if err != nil {
			return "", nil, err
		}
		if size < storage.GiB {
			return "", nil, fmt.Errorf("%s is too small for an OSD: say 4TB", part)
		}
		sizes = append(sizes, size)
	}
	return name, sizes, nil
}

func placementSimulate() *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use: "simulate --osdmap DUMP --crush FILE CHANGE...", Short: "Say what adding, replacing or removing OSDs would do: space, data moved, upmaps", Args: cobra.NoArgs,
		Long:    "Changes may be combined; replacements and additions come first, then removals and failure domains. Nothing is changed.",
		Example: "  holdfast placement simulate --osdmap osd.json --crush crush.bin --pgs pg.json --add-host n4=4TB,8TB --remove-osd 3",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, c, err := f.plan(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return emitPlan(cmd, c, c.Upmaps, func(out io.Writer) { printChange(out, c) })
		},
	}
	f.add(cmd)
	return cmd
}

// printChange shows to a person what a change does.
func printChange(out io.Writer, c *placement.Change) {
	fmt.Fprintf(out, "raw      %s -> %s\n", storage.Bytes(c.RawBefore), storage.Bytes(c.RawAfter))
	fmt.Fprintf(out, "usable   %s of it, %s -> %s, %s (CRUSH alone: %s; the bound is %s)\n",
		percent(c.UsableBefore), scaled(c.RawBefore, c.UsableBefore), percent(c.UsableAfter), scaled(c.RawAfter, c.UsableAfter), percent(c.UsableCrush), percent(c.Bound))
	fmt.Fprintf(out, "to move  %s, %s of all (CRUSH alone: %d); at least %d would have to, to reach the bound\n",
		plural(int(c.Moves), "shard"), percent(part(c.Moves, c.ShardsTotal)), c.MovesCrush, c.MovesLowerBound)
	if c.Known {
		fmt.Fprintf(out, "bytes    %s, %s of the data (CRUSH alone: %s; at least %s)\n",
			storage.Bytes(c.BytesMoved), percent(part(c.BytesMoved, c.BytesTotal)), storage.Bytes(c.BytesCrush), storage.Bytes(c.BytesLowerBound))
	}
	fmt.Fprintf(out, "upmaps   %s; %s in the map then (--prefer %s)\n", plural(len(c.Upmaps), "change"), plural(c.UpmapPairs, "pair"), c.Prefer)
	fmt.Fprintf(out, "limit    %s\n", c.LimitedBy)
}

func scaled(raw int64, by float64) storage.Bytes { return storage.Bytes(float64(raw) * by) }
