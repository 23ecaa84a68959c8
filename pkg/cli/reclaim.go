package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func volumeReclaim() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reclaim NAME", Short: "Give the space that a volume does not use back to the cluster",
		Long: "Where the volume is mounted here, its file system tells the cluster which blocks it does not use (fstrim). Where no node has it, blocks that " +
			"hold only zeros are freed (rbd sparsify), which reads all of it. `holdfastd csi --trim-every` does the first by itself, every week.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeFirst(completeVolumes),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *csiclient.Client, driver storage.Driver) error {
				v, err := c.Find(ctx, args[0], driver)
				if err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(cmd.Context(), searchTimeout)
				defer cancel()
				done, err := c.Reclaim(ctx, v)
				if err != nil {
					return fmt.Errorf("reclaim space of volume %s: %w", v.Name, err)
				}
				table := &Table{
					Header: []string{"NAME", "BY", "TRIMMED", "ALLOCATED BEFORE", "AFTER"},
					Rows:   [][]string{{v.Name, done.How, done.Trimmed.String(), done.Before.String(), done.After.String()}},
				}
				return emit(cmd, done, table, nil)
			})
		},
	}
	addOutputFlag(cmd)
	return cmd
}

func volumeRewrap() *cobra.Command {
	var all, dryRun bool
	var secretsFile string
	cmd := &cobra.Command{
		Use: "rewrap NAME|--all", Short: "Wrap the keys of encrypted volumes by a new passphrase",
		Long: "An encrypted volume has a key of its own, of which only a form wrapped by a passphrase is kept. After the passphrase was changed, rewrap puts the " +
			"new one in force: for the volume and its snapshots, or for all of them.\n\n" +
			"Rewrapping is not re-encryption: data and key stay as they are. Who has read the key itself, or has a copy of the old wrapped key and the old " +
			"passphrase, can still read the data; against that helps only copying it to a new volume.\n\n" +
			"The new passphrase is encryptionPassphrase and the old one encryptionPassphraseOld, from --secrets-file, on top of what DIR/csi/secrets.yaml has " +
			"(CreateVolumeSecret). A KMS with a file takes its passphrase from there. Give the nodes' Secret the new passphrase too, with the old one as " +
			"encryptionPassphraseOld until everything is rewrapped: a node with the old one alone cannot stage the volume any more.",
		Example: "  holdfast volume rewrap data --secrets-file /root/new-passphrase.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if all == (len(args) == 1) || len(args) > 1 {
				return errors.New("say either the NAME of one volume or --all")
			}
			return nil
		},
		ValidArgsFunction: completeFirst(completeVolumes),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(_ context.Context, c *csiclient.Client, driver storage.Driver) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), searchTimeout)
				defer cancel()
				secrets, err := c.Secrets(secretsFile)
				if err != nil {
					return err
				}
				name := ""
				if !all {
					name = args[0]
				}
				wanted, err := encryptedRecords(ctx, c, driver, name)
				if err != nil {
					return err
				}
				if dryRun {
					for _, r := range wanted {
						fmt.Fprintf(cmd.ErrOrStderr(), "~ %s %q: key wrapped anew by KMS %q (dry run: nothing was changed)\n", r.Kind, r.Name, r.Encryption)
					}
					return nil
				}
				return rewrap(ctx, cmd, c, wanted, secrets)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every encrypted volume and snapshot")
	cmd.Flags().StringVar(&secretsFile, "secrets-file", "", "YAML or JSON file with encryptionPassphrase and encryptionPassphraseOld")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be wrapped anew, and change nothing")
	addOutputFlag(cmd)
	return cmd
}

// encryptedRecords are all encrypted volumes and snapshots, or the volume of a name with its snapshots.
func encryptedRecords(ctx context.Context, c *csiclient.Client, driver storage.Driver, name string) ([]volumeapi.Record, error) {
	id := ""
	if name != "" {
		v, err := c.Find(ctx, name, driver)
		if err != nil {
			return nil, err
		}
		id = v.ID
	}
	inventory, err := c.Admin().Records(ctx)
	if err != nil {
		return nil, err
	}
	wanted := slices.DeleteFunc(inventory.Records, func(r volumeapi.Record) bool {
		mine := id == "" || r.ID == id || r.Kind == "snapshot" && r.Origin != nil && r.Origin.ID == id
		return r.Encryption == "" || r.State != "ready" || !mine
	})
	if id != "" && len(wanted) == 0 {
		return nil, fault.New(fault.Precondition, "volume %s is not encrypted: there is no key to wrap", name)
	}
	return wanted, nil
}

// rewrapOutcome is what became of one of them.
type rewrapOutcome struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	KMS   string `json:"kms"`
	Error string `json:"error,omitempty"`
}

func rewrap(ctx context.Context, cmd *cobra.Command, c *csiclient.Client, wanted []volumeapi.Record, secrets map[string]string) error {
	table := &Table{Header: []string{"NAME", "KIND", "KMS", "OUTCOME"}}
	list := []rewrapOutcome{}
	var failed error
	for _, r := range wanted {
		o := rewrapOutcome{Name: r.Name, Kind: r.Kind, KMS: r.Encryption}
		outcome := "wrapped anew"
		if _, err := c.Admin().Rewrap(ctx, volumeapi.RewrapRequest{ID: r.ID, Secrets: secrets}); err != nil {
			o.Error, outcome = err.Error(), "! as it was: "+err.Error()
			failed = fmt.Errorf("rewrap %s %s: %w", r.Kind, r.Name, err)
		}
		list = append(list, o)
		table.Rows = append(table.Rows, []string{o.Name, o.Kind, o.KMS, outcome})
	}
	return errors.Join(emit(cmd, list, table, nil), failed)
}
