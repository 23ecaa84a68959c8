package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// searchTimeout bounds a search through all images, and a deletion of what it found.
const searchTimeout = 30 * time.Minute

// withAdmin runs fn with a client of the admin API alone, wherever that is: nothing else of a
// single-machine cluster need be there.
func withAdmin(cmd *cobra.Command, fn func(context.Context, *volumeapi.Client, storage.Driver) error) error {
	socket, _ := cmd.Flags().GetString("admin-socket")
	if socket == "" {
		dir, err := dataDir(cmd)
		if err != nil {
			return err
		}
		socket = volumeapi.Socket(dir)
	}
	name, _ := cmd.Flags().GetString("type")
	driver, ok := driverNames[name]
	if !ok {
		return fmt.Errorf("--type %q is neither rbd nor cephfs", name)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), searchTimeout)
	defer cancel()
	return fn(ctx, volumeapi.NewClient(socket), driver)
}

func addAdminFlag(cmd *cobra.Command) {
	cmd.Flags().String("admin-socket", "", "socket of the controller (`holdfastd csi --admin-socket`), if it is not that of the cluster in --data-dir")
}

func volumeOrphans() *cobra.Command {
	var remove, yes, dryRun bool
	cmd := &cobra.Command{
		Use: "orphans", Short: "List what no volume or snapshot has a use for, and with --delete remove it",
		Long: "Orphans are images, subvolumes, snapshots and trash entries with Holdfast's names that no record knows; names that are listed and cannot be " +
			"opened; records of what is gone; and records that nobody has worked on for ten minutes and more, though they are not finished. What a " +
			"client has open, or a record knows, is never deleted, which is looked at again at that moment.",
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, func(ctx context.Context, c *volumeapi.Client, driver storage.Driver) error {
				found, err := c.Orphans(ctx)
				if err != nil {
					return err
				}
				for _, p := range found.Problems {
					fmt.Fprintln(cmd.ErrOrStderr(), "not looked at:", p)
				}
				list := []volumeapi.Orphan{}
				for _, o := range found.Orphans {
					if driver == "" || o.Driver == driver {
						list = append(list, o)
					}
				}
				if !remove {
					return emit(cmd, list, orphanTable(list), nil)
				}
				return deleteOrphans(cmd, c, list, yes, dryRun)
			})
		},
	}
	cmd.Flags().BoolVar(&remove, "delete", false, "delete them, after showing them and asking")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "with --delete: say what would be deleted, and delete nothing")
	addAdminFlag(cmd)
	addOutputFlag(cmd)
	return cmd
}

func orphanTable(list []volumeapi.Orphan) *Table {
	t := &Table{Header: []string{"NAME", "KIND", "WHERE", "SIZE", "WHY", "KEPT BECAUSE", "DELETING IT", "ID"}, Wide: 2}
	for _, o := range list {
		size := "-"
		if o.Bytes > 0 {
			size = o.Bytes.String()
		}
		t.Rows = append(t.Rows, []string{o.Name, kindOf(o.Driver) + " " + o.Kind, o.Where, size, o.Why, orDash(o.Kept), o.Effect, o.ID})
	}
	return t
}

func deleteOrphans(cmd *cobra.Command, c *volumeapi.Client, list []volumeapi.Orphan, yes, dryRun bool) error {
	out := cmd.ErrOrStderr()
	var ids []string
	for _, o := range list {
		if o.Kept != "" {
			fmt.Fprintf(out, "  %s %s %s stays: %s\n", kindOf(o.Driver), o.Kind, o.Name, o.Kept)
			continue
		}
		fmt.Fprintf(out, "- %s %s %s (%s): %s\n", kindOf(o.Driver), o.Kind, o.Name, o.Why, o.Effect)
		ids = append(ids, o.ID)
	}
	if len(ids) == 0 {
		fmt.Fprintln(out, "there is nothing to delete")
		return emit(cmd, []volumeapi.Deletion{}, &Table{Header: []string{"ORPHAN", "OUTCOME"}}, nil)
	}
	if dryRun {
		fmt.Fprintf(out, "%d to delete (dry run: nothing was deleted)\n", len(ids))
		return nil
	}
	if !yes {
		if err := confirmNumber(cmd, len(ids)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), searchTimeout)
	defer cancel()
	done, err := c.DeleteOrphans(ctx, ids)
	if err != nil {
		return err
	}
	table := &Table{Header: []string{"ORPHAN", "OUTCOME"}}
	failed := 0
	for _, d := range done {
		outcome := "deleted"
		if d.Error != "" {
			failed++
			outcome = "! stays: " + d.Error
		}
		table.Rows = append(table.Rows, []string{d.ID, outcome})
	}
	if err := emit(cmd, done, table, nil); err != nil || failed == 0 {
		return err
	}
	return fmt.Errorf("%d of %d stay", failed, len(done))
}

// confirmNumber asks a person to type how many die.
func confirmNumber(cmd *cobra.Command, n int) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return errors.New("this destroys data and nobody is there to ask: say --yes")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "this destroys what is listed above. Type how many they are to go on: ")
	var typed int
	if _, err := fmt.Fscanln(in, &typed); err != nil || typed != n {
		return errors.New("the number does not match: nothing was deleted")
	}
	return nil
}

func volumeWhyPending() *cobra.Command {
	cmd := &cobra.Command{
		Use: "why-pending NAME", Short: "Say why a volume or snapshot is not there, or cannot be used",
		Long: "NAME is what CSI calls the volume (in Kubernetes that of the PersistentVolume), its id, the claim's NAME or NAMESPACE/NAME, or the claim's UID. " +
			"It need not be there.",
		Example: "  holdfast volume why-pending default/data\n  holdfast volume why-pending pvc-0f3a…",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: completeFirst(completePending),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withAdmin(cmd, func(ctx context.Context, c *volumeapi.Client, driver storage.Driver) error {
				list, err := c.Pending(ctx, args[0])
				if err != nil {
					return err
				}
				shown := []volumeapi.Pending{}
				for _, p := range list {
					if driver == "" || p.Driver == "" || p.Driver == driver {
						shown = append(shown, p)
					}
				}
				return emit(cmd, shown, nil, func(out io.Writer) { describePending(out, shown) })
			})
		},
	}
	addAdminFlag(cmd)
	addOutputFlag(cmd)
	return cmd
}

func describePending(out io.Writer, list []volumeapi.Pending) {
	for i, p := range list {
		if i > 0 {
			fmt.Fprintln(out)
		}
		words := []string{p.Name}
		if p.Driver != "" {
			words = append(words, strings.TrimSpace(kindOf(p.Driver)+" "+p.Kind))
		}
		if claim := p.Claim.String(); claim != "" {
			words = append(words, "claim "+claim)
		}
		fmt.Fprintf(out, "%s: %s\n", strings.Join(words, ", "), p.State)
		for _, r := range p.Reasons {
			fmt.Fprintf(out, "  %s\n", r.What)
			if r.Next != "" {
				fmt.Fprintf(out, "    next: %s\n", r.Next)
			}
		}
	}
}

// completePending completes the names of all records, those included that are not ready.
func completePending(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	_ = withAdmin(cmd, func(ctx context.Context, c *volumeapi.Client, _ storage.Driver) error {
		all, err := c.Records(ctx)
		for _, r := range all.Records {
			names = append(names, r.Name)
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}
