package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// volumeTimeout bounds one verb on a volume.
const volumeTimeout = 2 * time.Minute

var driverNames = map[string]storage.Driver{"": "", "rbd": storage.RBD, "cephfs": storage.CephFS}

func volumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "volume", Aliases: []string{"volumes", "vol"},
		Short: "Create, mount, grow and delete volumes of the single-machine cluster",
		Long:  "Volumes are made by the same CSI services that Kubernetes uses, through their sockets below --data-dir.",
	}
	cmd.PersistentFlags().String("type", "", "rbd (a block device of one node) or cephfs (a file system shared by many)")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"rbd", "cephfs"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(volumeCreate(), volumeList(), volumeShow(), volumeMount(), volumeUnmount(), volumeExpand(), volumeDelete(), volumeAdopt(),
		volumeSnapshot(), volumeClone(), volumeOrphans(), volumeWhyPending(), volumeRewrap(), volumeReclaim())
	return cmd
}

// withClient runs fn with a client of the cluster and the driver that --type names.
func withClient(cmd *cobra.Command, fn func(context.Context, *csiclient.Client, storage.Driver) error) error {
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	name, _ := cmd.Flags().GetString("type")
	driver, ok := driverNames[name]
	if !ok {
		return fmt.Errorf("--type %q is neither rbd nor cephfs", name)
	}
	client, err := csiclient.Open(dir)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), volumeTimeout)
	defer cancel()
	return fn(ctx, client, driver)
}

// withVolume is withClient for verbs on one volume, named by the first argument.
func withVolume(cmd *cobra.Command, name string, fn func(context.Context, *csiclient.Client, csiclient.Volume) error) error {
	return withClient(cmd, func(ctx context.Context, c *csiclient.Client, driver storage.Driver) error {
		v, err := c.Find(ctx, name, driver)
		if err != nil {
			return err
		}
		return fn(ctx, c, v)
	})
}

// completeVolumes completes a volume's name.
func completeVolumes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	_ = withClient(cmd, func(ctx context.Context, c *csiclient.Client, _ storage.Driver) error {
		list, err := c.List(ctx)
		for _, v := range list {
			names = append(names, v.Name)
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

func volumeCreate() *cobra.Command {
	var size, filesystem, image string
	var block, dryRun bool
	var parameters map[string]string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a volume",
		Example: "  holdfast volume create data --size 10GiB\n  holdfast volume create shared --type cephfs --size 50GiB\n  holdfast volume create vm --from-image disk.vmdk",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			bytes, err := storage.ParseBytes(size)
			if err != nil {
				return fmt.Errorf("--size: %w", err)
			}
			return withClient(cmd, func(ctx context.Context, c *csiclient.Client, driver storage.Driver) error {
				if driver == "" {
					driver = storage.RBD
				}
				request := csiclient.Request{Name: args[0], Driver: driver, Bytes: bytes, Block: block, Filesystem: filesystem, Parameters: parameters}
				if image != "" {
					return createFromImage(cmd, c, request, image, dryRun)
				}
				if dryRun {
					fmt.Fprintf(cmd.ErrOrStderr(), "+ %s volume %q of %s (dry run: nothing was made)\n", driver, args[0], bytes)
					return nil
				}
				v, err := c.Create(ctx, request)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "next: %s volume mount %s /mnt/%s\n", self(cmd), args[0], args[0])
				return emit(cmd, v, volumeTable([]csiclient.Volume{v}), nil)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&size, "size", "1GiB", "size, such as 10GiB")
	flags.StringVar(&filesystem, "fs", "", "file system of an rbd volume: xfs or ext4 (default: xfs, ext4 below 300 MiB)")
	flags.BoolVar(&block, "block", false, "an rbd volume for use as a raw block device")
	flags.StringVar(&image, "from-image", "", "fill a new raw block volume with the disk in this image (see `holdfast image`); --size may ask for more than it has")
	flags.StringToStringVar(&parameters, "parameter", nil, "StorageClass parameter NAME=VALUE (repeatable)")
	flags.BoolVar(&dryRun, "dry-run", false, "say what would be made, and make nothing")
	addOutputFlag(cmd)
	return cmd
}

func volumeTable(list []csiclient.Volume) *Table {
	t := &Table{Header: []string{"NAME", "TYPE", "SIZE", "MOUNTED AT", "CLAIM", "CONDITION", "NODES", "MADE FROM", "ID"}, Wide: 3}
	for _, v := range list {
		condition := v.Condition
		if v.Abnormal {
			condition = "! " + condition
		}
		t.Rows = append(t.Rows, []string{v.Name, typeOf(v), v.Bytes.String(), dash(v.Mounts), orDash(v.Claim), condition, dash(v.Nodes), madeFrom(v.Origin), v.ID})
	}
	return t
}

// typeOf is a volume's driver, with a mark on what ceph-csi made.
func typeOf(v csiclient.Volume) string {
	if _, err := volumeid.ParseForeign(v.ID); err == nil {
		return kindOf(v.Driver) + " (ceph-csi)"
	}
	return kindOf(v.Driver)
}

func madeFrom(o *csiclient.Origin) string {
	switch {
	case o == nil:
		return "-"
	case o.Name == "":
		return o.Kind + " that is gone"
	}
	return o.Kind + " " + o.Name
}

// nameOrigins completes what volumes were made from by the names of what there is.
func nameOrigins(ctx context.Context, c *csiclient.Client, list []csiclient.Volume) error {
	if !slices.ContainsFunc(list, func(v csiclient.Volume) bool { return v.Origin != nil }) {
		return nil
	}
	byID, err := recordsByID(ctx, c)
	for _, v := range list {
		if v.Origin != nil {
			v.Origin.Name = byID[v.Origin.ID].Name
		}
	}
	return err
}

func dash(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ",")
}

func volumeList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List volumes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd, func(ctx context.Context, c *csiclient.Client, driver storage.Driver) error {
				list, err := c.List(ctx)
				if err != nil {
					return err
				}
				shown := []csiclient.Volume{}
				for _, v := range list {
					if driver == "" || v.Driver == driver {
						shown = append(shown, v)
					}
				}
				if err := nameOrigins(ctx, c, shown); err != nil {
					return err
				}
				return emit(cmd, shown, volumeTable(shown), nil)
			})
		},
	}
	addOutputFlag(cmd)
	return cmd
}

func volumeShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show one volume", Args: cobra.ExactArgs(1), ValidArgsFunction: completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd, args[0], func(ctx context.Context, c *csiclient.Client, v csiclient.Volume) error {
				if err := nameOrigins(ctx, c, []csiclient.Volume{v}); err != nil {
					return err
				}
				usage, mounted, err := c.Stats(ctx, v)
				if err != nil {
					return err
				}
				shown := struct {
					csiclient.Volume
					Usage *csiclient.Usage `json:"usage,omitempty"`
				}{Volume: v}
				if mounted {
					shown.Usage = &usage
				}
				return emit(cmd, shown, nil, func(out io.Writer) { describeVolume(out, v, shown.Usage) })
			})
		},
	}
	addOutputFlag(cmd)
	return cmd
}

func describeVolume(out io.Writer, v csiclient.Volume, usage *csiclient.Usage) {
	fmt.Fprintf(out, "name        %s\nid          %s\ndriver      %s\nsize        %s (%d bytes)\n", v.Name, v.ID, v.Driver, v.Bytes, int64(v.Bytes))
	fmt.Fprintf(out, "condition   %s\nnodes       %s\nmounted at  %s\n", v.Condition, dash(v.Nodes), dash(v.Mounts))
	fmt.Fprintf(out, "claim       %s\nmade from   %s\n", orDash(v.Claim), madeFrom(v.Origin))
	if usage != nil && usage.Used > 0 {
		fmt.Fprintf(out, "used        %s of %s\n", usage.Used, usage.Total)
	}
	if usage != nil && usage.Abnormal {
		fmt.Fprintf(out, "on node     ! %s\n", usage.Condition)
	}
}

func volumeMount() *cobra.Command {
	var o csiclient.MountOptions
	cmd := &cobra.Command{
		Use: "mount NAME PATH", Short: "Mount a volume on this machine", Args: cobra.ExactArgs(2), ValidArgsFunction: completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd, args[0], func(ctx context.Context, c *csiclient.Client, v csiclient.Volume) error {
				target, err := filepath.Abs(args[1])
				if err != nil {
					return fmt.Errorf("find %s: %w", args[1], err)
				}
				o.Target = target
				if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
					return fmt.Errorf("make the directory above %s: %w", target, err)
				}
				if err := c.Mount(ctx, v, o); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "volume %s is mounted at %s\n", v.Name, target)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&o.ReadOnly, "read-only", false, "mount it read-only")
	cmd.Flags().BoolVar(&o.Block, "block", false, "PATH becomes the raw block device")
	cmd.Flags().StringVar(&o.Filesystem, "fs", "", "file system to make if the volume is new: xfs or ext4")
	return cmd
}

func volumeUnmount() *cobra.Command {
	return &cobra.Command{
		Use: "umount NAME [PATH]", Aliases: []string{"unmount"}, Short: "Unmount a volume from PATH, or everywhere on this machine",
		Args: cobra.RangeArgs(1, 2), ValidArgsFunction: completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd, args[0], func(ctx context.Context, c *csiclient.Client, v csiclient.Volume) error {
				target := ""
				if len(args) == 2 {
					var err error
					if target, err = filepath.Abs(args[1]); err != nil {
						return fmt.Errorf("find %s: %w", args[1], err)
					}
				}
				return c.Unmount(ctx, v, target)
			})
		},
	}
}

func volumeExpand() *cobra.Command {
	return &cobra.Command{
		Use: "expand NAME SIZE", Short: "Grow a volume to SIZE, also while it is mounted", Example: "  holdfast volume expand data 20GiB",
		Args: cobra.ExactArgs(2), ValidArgsFunction: completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			size, err := storage.ParseBytes(args[1])
			if err != nil {
				return err
			}
			return withVolume(cmd, args[0], func(ctx context.Context, c *csiclient.Client, v csiclient.Volume) error {
				if size < v.Bytes {
					return fmt.Errorf("volume %s has %s: volumes never shrink", v.Name, v.Bytes)
				}
				now, err := c.Expand(ctx, v, size)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "volume %s: %s, was %s\n", v.Name, now, v.Bytes)
				return nil
			})
		},
	}
}

func volumeDelete() *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete a volume and all that is on it",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd, args[0], func(ctx context.Context, c *csiclient.Client, v csiclient.Volume) error {
				if len(v.Mounts) > 0 {
					return fmt.Errorf("volume %s is mounted at %s: run `%s volume umount %s` first", v.Name, dash(v.Mounts), self(cmd), v.Name)
				}
				if len(v.Nodes) > 0 {
					return fmt.Errorf("volume %s is in use on %s: unmount it there first (on this machine: `%s volume umount %s`)", v.Name, dash(v.Nodes), self(cmd), v.Name)
				}
				if dryRun {
					fmt.Fprintf(cmd.ErrOrStderr(), "- %s volume %q of %s (dry run: nothing was deleted)\n", v.Driver, v.Name, v.Bytes)
					return nil
				}
				if !yes {
					if err := confirm(cmd, v.Name); err != nil {
						return err
					}
				}
				deletion, cancel := context.WithTimeout(cmd.Context(), volumeTimeout) // a person may take their time
				defer cancel()
				return c.Delete(deletion, v)
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	return cmd
}

// confirm asks a person to type the name of what dies; without a terminal --yes is needed.
func confirm(cmd *cobra.Command, name string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return errors.New("this destroys data and nobody is there to ask: say --yes")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "this destroys %q and all that is on it. Type its name to go on: ", name)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != name {
		return errors.New("the name does not match: nothing was deleted")
	}
	return nil
}
