package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/machine"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// save writes a plan to --out, or has the agent keep it, and shows it.
func save(cmd *cobra.Command, p plan.Plan, out string) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encode plan: %w", err)
	}
	next := "plan run " + out
	if out != "" {
		err = os.WriteFile(out, append(data, '\n'), 0o600)
	} else {
		next, err = proposeToAgent(cmd, p)
	}
	if err != nil {
		return fmt.Errorf("keep the plan: %w", err)
	}
	err = emit(cmd, p, nil, func(w io.Writer) { printPlan(w, p) })
	if err == nil && next != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "\nnext: %s %s\n", self(cmd), next)
	}
	return err
}

// proposeToAgent hands a plan to the agent, if one runs, and returns what is done next.
func proposeToAgent(cmd *cobra.Command, p plan.Plan) (next string, err error) {
	k, err := keeperOf(cmd)
	if err != nil || !k.agent {
		return "", err
	}
	if _, err := k.Propose(cmd.Context(), p); err != nil {
		return "", err
	}
	return "plan approve " + string(p.ID), nil
}

// found looks disks up on this machine.
func found(cmd *cobra.Command, disks *machine.Disks, names []string) ([]layout.Disk, error) {
	var list []layout.Disk
	for _, name := range names {
		d, err := disks.Named(cmd.Context(), name)
		if errors.Is(err, fault.NotFound) {
			return nil, fault.New(fault.NotFound, "disk %s is not there; there are %s", name, known(cmd, disks))
		}
		if err != nil {
			return nil, err
		}
		list = append(list, layout.Disk{ID: string(d.ID), Size: d.Size})
	}
	return list, nil
}

// known lists what disks are called.
func known(cmd *cobra.Command, disks *machine.Disks) string {
	list, err := disks.List(cmd.Context())
	var names []string
	for _, d := range list {
		if d.ID != "" {
			names = append(names, fmt.Sprintf("%s (/dev/%s, %s)", d.ID, d.Name, d.Size.Decimal()))
		}
	}
	if err != nil || len(names) == 0 {
		return "none with a serial number or WWN"
	}
	return strings.Join(names, ", ")
}

func planNew() *cobra.Command {
	var disks []string
	var reserve, rate, out string
	var p layout.Policy
	var v stack.Volume
	var o stack.OSD
	var withOSD bool
	cmd := &cobra.Command{
		Use: "new NAME --disk SERIAL,...", Short: "Plan a storage stack on blank disks", Args: cobra.ExactArgs(1),
		Long: "The stack's volume carries a file system, or with --osd an OSD of the cluster in --data-dir, which then takes data, is started by the agent after a boot, and grows with the stack.",
		Example: "  holdfast plan new media --disk WD-1234,WD-5678 --mount /srv/media --out media.json\n" +
			"  holdfast plan new bulk --disk WD-1234,WD-5678 --osd",
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := machineOf(cmd)
			if err != nil {
				return err
			}
			if _, there, err := m.Ledger.Stack(args[0]); err != nil || there {
				return errors.Join(err, exists(there, args[0]))
			}
			if p.Reserve, err = storage.ParseBytes(reserve); err != nil {
				return fmt.Errorf("--reserve: %w", err)
			}
			perSecond, err := parseRate(rate)
			if err != nil {
				return fmt.Errorf("--rate: %w", err)
			}
			list, err := found(cmd, machine.NewDisks(diskConfig(cmd)), disks)
			if err != nil {
				return err
			}
			_, made, err := stack.New(args[0], machine.FreshUUID(), list, p, v, perSecond)
			if err != nil {
				return err
			}
			return save(cmd, made, out)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&disks, "disk", nil, "serial numbers or WWNs of the disks, comma separated")
	f.IntVar(&p.Tolerance, "tolerance", 1, "how many disks may be lost: 1 or 2")
	f.BoolVar(&p.ThreeWayMirror, "three-way-mirror", false, "with --tolerance 2: three disks mirror each other where there is no fourth")
	f.IntVar(&p.Bays, "bays", 0, "how many disks the machine takes (0: enough)")
	f.StringVar(&reserve, "reserve", layout.DefaultReserve.String(), "left out of each disk for partition table, metadata and the difference between two disks of one size")
	f.StringVar(&v.FileSystem, "fs", "ext4", "file system: ext4 or xfs; none leaves the logical volume as it is")
	f.StringVar(&v.MountPoint, "mount", "", "where it is mounted")
	f.BoolVar(&withOSD, "osd", false, "in place of a file system: an OSD, which the agent makes, starts and grows")
	f.StringVar(&o.Class, "class", "", "with --osd: its device class (default: Ceph's choice)")
	cmd.MarkFlagsMutuallyExclusive("osd", "fs")
	cmd.MarkFlagsMutuallyExclusive("osd", "mount")
	addPlanFlags(cmd, &rate, &out)
	_ = cmd.MarkFlagRequired("disk")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case withOSD:
			v.FileSystem, v.OSD = "", &o
			return clusterHere(cmd)
		case o.Class != "":
			return errors.New("--class is of an OSD: say --osd")
		case v.FileSystem == "none":
			v.FileSystem = ""
		}
		if v.FileSystem != "" && v.MountPoint == "" {
			return errors.New("say with --mount where the file system is to be mounted: it grows while it is; or --fs none")
		}
		return nil
	}
	return cmd
}

// clusterHere refuses an OSD without a cluster that it would be of.
func clusterHere(cmd *cobra.Command) error {
	dir, err := dataDir(cmd)
	if err == nil && fsidIn(dir) == "" {
		err = fault.New(fault.NotFound, "there is no cluster in %s that the OSD would be of: `holdfast up` makes one", dir)
	}
	return err
}

func exists(there bool, name string) error {
	if !there {
		return nil
	}
	return fault.New(fault.Exists, "stack %s is there: `holdfast plan grow %s` grows it", name, name)
}

func addPlanFlags(cmd *cobra.Command, rate, out *string) {
	cmd.Flags().StringVar(rate, "rate", "150MB/s", "what md gets through, for the forecast")
	cmd.Flags().StringVar(out, "out", "", "write the plan to this file, for `plan run`")
	addOutputFlag(cmd)
}

func planGrow() *cobra.Command {
	var step, rate, out string
	cmd := &cobra.Command{
		Use: "grow NAME --step STEP", Short: "Plan how a stack takes disks in, replaces them or uses what they have grown by", Args: cobra.ExactArgs(1),
		Long: "STEP is one of\n\n  add:SERIAL,...           disks are added; several at once take one reshape a slice\n" +
			"  replace:SERIAL=SERIAL    a disk is replaced by one as large or larger\n  grow:SERIAL              a virtual disk has grown",
		Example: "  holdfast plan grow media --step add:WD-1111,WD-2222 --out grow.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := machineOf(cmd)
			if err != nil {
				return err
			}
			s, there, err := m.Ledger.Stack(args[0])
			if err != nil {
				return err
			}
			if !there {
				return fault.New(fault.NotFound, "no plan in %s has made a stack %s", m.Ledger.Dir, args[0])
			}
			perSecond, err := parseRate(rate)
			if err != nil {
				return fmt.Errorf("--rate: %w", err)
			}
			change, err := changeOf(cmd, step)
			if err != nil {
				return fmt.Errorf("--step %q: %w", step, err)
			}
			_, made, err := s.Grow(change, perSecond)
			if err != nil {
				return err
			}
			return save(cmd, made, out)
		},
	}
	cmd.Flags().StringVar(&step, "step", "", "the change, as above")
	_ = cmd.MarkFlagRequired("step")
	addPlanFlags(cmd, &rate, &out)
	return cmd
}

// changeOf reads a step whose disks are real ones.
func changeOf(cmd *cobra.Command, text string) (layout.Change, error) {
	var c layout.Change
	kind, list, ok := strings.Cut(text, ":")
	if !ok || list == "" {
		return c, errors.New("want add:SERIAL,..., replace:SERIAL=SERIAL or grow:SERIAL")
	}
	known := machine.NewDisks(diskConfig(cmd))
	for _, item := range strings.Split(list, ",") {
		old, fresh, pair := strings.Cut(item, "=")
		if pair != (kind == layout.StepReplace) {
			return c, fmt.Errorf("%q: SERIAL=SERIAL is for replace", item)
		}
		if !pair {
			fresh = item
		}
		disks, err := found(cmd, known, []string{fresh})
		if err != nil {
			return c, err
		}
		switch kind {
		case layout.StepAdd:
			c.Add = append(c.Add, disks[0])
		case layout.StepReplace:
			c.Replace = append(c.Replace, layout.Replacement{Old: old, New: disks[0]})
		case layout.StepGrow:
			c.Grown = append(c.Grown, disks[0])
		default:
			return c, fmt.Errorf("%q is none of add, replace, grow", kind)
		}
	}
	return c, nil
}
