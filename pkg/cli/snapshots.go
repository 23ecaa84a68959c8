package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func volumeSnapshot() *cobra.Command {
	cmd := &cobra.Command{
		Use: "snapshot", Aliases: []string{"snapshots", "snap"},
		Short: "Take, list and delete snapshots of volumes",
		Long: "A snapshot keeps a volume as it is at one moment, as after a power cut there: what programs have not written yet is not in it. " +
			"It outlives its volume. `holdfast volume clone` makes a volume from it.",
	}
	cmd.AddCommand(snapshotCreate(), snapshotList(), snapshotDelete())
	return cmd
}

// Snapshot is a snapshot as `holdfast volume snapshot` shows it.
type Snapshot struct {
	Name    string         `json:"name"`
	ID      string         `json:"id"`
	Driver  storage.Driver `json:"driver"`
	Volume  string         `json:"volume,omitempty"` // its name; "" when it is gone
	Bytes   storage.Bytes  `json:"bytes"`
	State   string         `json:"state"`
	Created time.Time      `json:"created"`
	Claim   string         `json:"claim,omitempty"` // NAMESPACE/NAME of the VolumeSnapshot
}

// snapshotsOf lists the snapshots of the drivers that --type names, of one volume unless it is "".
func snapshotsOf(ctx context.Context, c *csiclient.Client, driver storage.Driver, volumeID string) ([]Snapshot, error) {
	all, err := c.Admin().Records(ctx)
	if err != nil {
		return nil, err
	}
	list := []Snapshot{}
	for _, r := range all.Records {
		if r.Kind != "snapshot" || driver != "" && r.Driver != driver || volumeID != "" && (r.Origin == nil || r.Origin.ID != volumeID) {
			continue
		}
		s := Snapshot{Name: r.Name, ID: r.ID, Driver: r.Driver, Bytes: r.Bytes, State: r.State, Created: r.Created, Claim: r.Claim.String()}
		if r.Origin != nil {
			s.Volume = r.Origin.Name
		}
		list = append(list, s)
	}
	return list, nil
}

// findSnapshot returns the snapshot of a name or an id.
func findSnapshot(ctx context.Context, c *csiclient.Client, driver storage.Driver, name string) (Snapshot, error) {
	list, err := snapshotsOf(ctx, c, driver, "")
	if err != nil {
		return Snapshot{}, err
	}
	var found []Snapshot
	for _, s := range list {
		if s.Name == name || s.ID == name {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if s, err := c.FindSnapshot(ctx, name); err == nil || !errors.Is(err, fault.NotFound) { // ceph-csi's are not listed
			return Snapshot{Name: s.ID, ID: s.ID, Driver: s.Driver, Bytes: s.Bytes, State: "ready", Created: s.Created}, err
		}
		return Snapshot{}, fault.New(fault.NotFound, "there is no snapshot %q: `holdfast volume snapshot list` shows those there are", name)
	default:
		return Snapshot{}, fault.New(fault.Invalid, "both drivers have a snapshot %q: say --type rbd or --type cephfs", name)
	}
}

func snapshotTable(list []Snapshot) *Table {
	t := &Table{Header: []string{"NAME", "VOLUME", "TYPE", "SIZE", "CREATED", "STATE", "CLAIM", "ID"}, Wide: 2}
	for _, s := range list {
		t.Rows = append(t.Rows, []string{
			s.Name, orDash(s.Volume), kindOf(s.Driver), s.Bytes.String(), s.Created.UTC().Format(time.RFC3339), s.State, orDash(s.Claim), s.ID,
		})
	}
	return t
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func kindOf(driver storage.Driver) string {
	if driver == storage.CephFS {
		return "cephfs"
	}
	return "rbd"
}

func snapshotCreate() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "create VOLUME NAME", Short: "Take a snapshot of a volume", Example: "  holdfast volume snapshot create data before-upgrade",
		Args: cobra.ExactArgs(2), ValidArgsFunction: completeFirst(completeVolumes),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd, args[0], func(ctx context.Context, c *csiclient.Client, v csiclient.Volume) error {
				if dryRun {
					fmt.Fprintf(cmd.ErrOrStderr(), "+ snapshot %q of volume %s (dry run: nothing was made)\n", args[1], v.Name)
					return nil
				}
				taken, err := c.Snapshot(ctx, v, args[1])
				if err != nil {
					return err
				}
				s := Snapshot{Name: args[1], ID: taken.ID, Driver: v.Driver, Volume: v.Name, Bytes: taken.Bytes, State: "ready", Created: taken.Created}
				fmt.Fprintf(cmd.ErrOrStderr(), "next: %s volume clone --from-snapshot %s NEW-VOLUME\n", self(cmd), s.Name)
				return emit(cmd, s, snapshotTable([]Snapshot{s}), nil)
			})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be made, and make nothing")
	addOutputFlag(cmd)
	return cmd
}

func snapshotList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list [VOLUME]", Aliases: []string{"ls"}, Short: "List snapshots, of one volume or of all, of deleted ones too",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeFirst(completeVolumes),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *csiclient.Client, driver storage.Driver) error {
				volume := ""
				if len(args) == 1 {
					v, err := c.Find(ctx, args[0], driver)
					if err != nil {
						return err
					}
					volume = v.ID
				}
				list, err := snapshotsOf(ctx, c, driver, volume)
				if err != nil {
					return err
				}
				return emit(cmd, list, snapshotTable(list), nil)
			})
		},
	}
	addOutputFlag(cmd)
	return cmd
}

func snapshotDelete() *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete a snapshot; volumes made from it live on",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *csiclient.Client, driver storage.Driver) error {
				s, err := findSnapshot(ctx, c, driver, args[0])
				if err != nil {
					return err
				}
				if dryRun {
					fmt.Fprintf(cmd.ErrOrStderr(), "- snapshot %q of volume %s (dry run: nothing was deleted)\n", s.Name, orDash(s.Volume))
					return nil
				}
				if !yes {
					if err := confirm(cmd, s.Name); err != nil {
						return err
					}
				}
				deletion, cancel := context.WithTimeout(cmd.Context(), volumeTimeout) // a person may take their time
				defer cancel()
				return c.DeleteSnapshot(deletion, csiclient.Snapshot{ID: s.ID, Driver: s.Driver})
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	return cmd
}

// completeSnapshots completes a snapshot's name.
func completeSnapshots(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_ = withClient(cmd, func(ctx context.Context, c *csiclient.Client, driver storage.Driver) error {
		list, err := snapshotsOf(ctx, c, driver, "")
		for _, s := range list {
			names = append(names, s.Name)
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeFirst completes the first argument; the others are not files either.
func completeFirst(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, typed)
	}
}

func volumeClone() *cobra.Command {
	var size string
	var fromSnapshot, dryRun bool
	cmd := &cobra.Command{
		Use: "clone SOURCE NAME", Short: "Make a volume from another one or from a snapshot",
		Long: "The new volume holds what SOURCE held at that moment, and lives on without it. On rbd it shares data with its source until either " +
			"writes; on cephfs everything is copied, which takes as long as that takes: cut off, ask again with the same name.",
		Example: "  holdfast volume clone data data-copy --size 20GiB\n  holdfast volume clone --from-snapshot before-upgrade data-old",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var bytes storage.Bytes
			if size != "" {
				var err error
				if bytes, err = storage.ParseBytes(size); err != nil {
					return fmt.Errorf("--size: %w", err)
				}
			}
			return withClient(cmd, func(ctx context.Context, c *csiclient.Client, driver storage.Driver) error {
				request, has, err := cloneRequest(ctx, c, driver, args[0], fromSnapshot)
				if err != nil {
					return err
				}
				if bytes != 0 && bytes < has {
					return fault.New(fault.Invalid, "--size: %s has %s, and a copy is never smaller", args[0], has)
				}
				request.Name, request.Bytes = args[1], max(bytes, has)
				if dryRun {
					fmt.Fprintf(cmd.ErrOrStderr(), "+ %s volume %q of %s from %s (dry run: nothing was made)\n", request.Driver, request.Name, request.Bytes, args[0])
					return nil
				}
				v, err := c.Create(ctx, request)
				if err != nil {
					return fmt.Errorf("%w (`%s volume why-pending %s` says how far it is)", err, self(cmd), args[1])
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "next: %s volume mount %s /mnt/%s\n", self(cmd), v.Name, v.Name)
				return emit(cmd, v, volumeTable([]csiclient.Volume{v}), nil)
			})
		},
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if fromSnapshot {
			return completeSnapshots(cmd, args, typed)
		}
		return completeFirst(completeVolumes)(cmd, args, typed)
	}
	cmd.Flags().StringVar(&size, "size", "", "size, if it is to be larger than its source's")
	cmd.Flags().BoolVar(&fromSnapshot, "from-snapshot", false, "SOURCE is a snapshot")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be made, and make nothing")
	addOutputFlag(cmd)
	return cmd
}

// cloneRequest asks for a copy of a volume or snapshot, with the source's ways, and returns its size.
func cloneRequest(ctx context.Context, c *csiclient.Client, driver storage.Driver, source string, snapshot bool) (csiclient.Request, storage.Bytes, error) {
	var request csiclient.Request
	var id string
	var bytes storage.Bytes
	if snapshot {
		s, err := findSnapshot(ctx, c, driver, source)
		if err != nil {
			return request, 0, err
		}
		request.FromSnapshot, request.Driver, id, bytes = s.ID, s.Driver, s.ID, s.Bytes
	} else {
		v, err := c.Find(ctx, source, driver)
		if err != nil {
			return request, 0, err
		}
		request.FromVolume, request.Driver, id, bytes = v.ID, v.Driver, v.ID, v.Bytes
	}
	all, err := c.Admin().Records(ctx)
	if err != nil {
		return request, 0, err
	}
	for _, r := range all.Records {
		if r.ID != id {
			continue
		}
		request.Driver, request.Block = r.Driver, r.Block
		if r.Encryption != "" {
			request.Parameters = map[string]string{"encrypted": "true"}
		}
		return request, r.Bytes, nil
	}
	if _, err := volumeid.ParseForeign(id); err == nil {
		return request, bytes, nil // of ceph-csi's, and not used yet
	}
	return request, 0, fault.New(fault.NotFound, "%s is gone", source)
}

// recordsByID are the records of the API, for what CSI's answers do not tell.
func recordsByID(ctx context.Context, c *csiclient.Client) (map[string]volumeapi.Record, error) {
	all, err := c.Admin().Records(ctx)
	byID := map[string]volumeapi.Record{}
	for _, r := range all.Records {
		byID[r.ID] = r
	}
	return byID, err
}
