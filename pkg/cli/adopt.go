package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func volumeAdopt() *cobra.Command {
	cmd := &cobra.Command{
		Use: "adopt", Short: "Move volumes over from ceph-csi, without copying them",
		Long: "Holdfast takes the handles of ceph-csi as they are: what a volume is called, and where it is, it reads from ceph-csi's journal on " +
			"the cluster. `list` shows what there is, and `manifest` rewrites PersistentVolumes for Holdfast's drivers. Neither changes " +
			"anything; deploy/moving-from-ceph-csi.md says how to go about it, and back.",
	}
	cmd.AddCommand(adoptList(), adoptManifest())
	return cmd
}

func adoptList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the volumes that ceph-csi made, by its journal", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, func(ctx context.Context, c *volumeapi.Client, driver storage.Driver) error {
				found, err := c.Adoptable(ctx)
				if err != nil {
					return err
				}
				for _, problem := range found.Problems {
					fmt.Fprintf(cmd.ErrOrStderr(), "! %s\n", problem)
				}
				list := []volumeapi.Adoptable{}
				for _, a := range found.Volumes {
					if driver == "" || a.Driver == driver {
						list = append(list, a)
					}
				}
				return emit(cmd, list, adoptTable(list), nil)
			})
		},
	}
	addOutputFlag(cmd)
	addAdminFlag(cmd)
	return cmd
}

func adoptTable(list []volumeapi.Adoptable) *Table {
	t := &Table{Header: []string{"NAME", "TYPE", "SIZE", "WHERE", "STATE", "ID", "CEPH NAME"}, Wide: 1}
	for _, a := range list {
		state := "can be adopted"
		switch {
		case a.Refused != "":
			state = "! " + a.Refused
		case a.Adopted:
			state = "adopted"
		}
		t.Rows = append(t.Rows, []string{orDash(a.Name), kindOf(a.Driver), a.Bytes.String(), orDash(a.Where), state, a.ID, orDash(a.Backend)})
	}
	return t
}

func adoptManifest() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use: "manifest [FILE]", Short: "Rewrite PersistentVolumes of ceph-csi for Holdfast",
		Long: "Reads PersistentVolumes (`kubectl get pv -o json`, or YAML) from FILE or the standard input, and prints those of ceph-csi as they are to " +
			"be for Holdfast: the same name, handle, size, claim and class, with Holdfast's driver and secrets, and reclaim policy Retain. " +
			"It talks to no cluster.",
		Example: "  kubectl get pv -o json > old.json\n  holdfast volume adopt manifest old.json > new.yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readInput(cmd, args)
			if err != nil {
				return err
			}
			converted, passed, err := adoptManifests(data, namespace)
			if err != nil {
				return err
			}
			for _, why := range passed {
				fmt.Fprintf(cmd.ErrOrStderr(), "! %s\n", why)
			}
			for _, pv := range converted {
				text, err := yaml.Marshal(pv)
				if err != nil {
					return fmt.Errorf("encode PersistentVolume: %w", err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "---\n%s", text)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d PersistentVolumes rewritten, %d of ceph-csi's left alone\n", len(converted), len(passed))
			return nil
		},
	}
	cmd.Flags().StringVar(&namespace, "namespace", "holdfast-system", "where the Secrets of Holdfast's drivers are")
	return cmd
}

// readInput reads the file that is named, or the standard input.
func readInput(cmd *cobra.Command, args []string) ([]byte, error) {
	if len(args) == 0 || args[0] == "-" {
		data, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("read the standard input: %w", err)
		}
		return data, nil
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return nil, fmt.Errorf("read PersistentVolumes: %w", err)
	}
	return data, nil
}

// adoptManifests rewrites the PersistentVolumes in data, a list of them or one. passed are words about those of ceph-csi
// that cannot be rewritten; others are left out.
func adoptManifests(data []byte, namespace string) (converted []*persistentVolume, passed []string, err error) {
	var all struct {
		Kind  string             `json:"kind"`
		Items []persistentVolume `json:"items"`
	}
	if err := yaml.Unmarshal(data, &all); err != nil {
		return nil, nil, fault.New(fault.Invalid, "the input is neither JSON nor one YAML document of PersistentVolumes: %v", err)
	}
	if all.Kind == "PersistentVolume" {
		all.Items = make([]persistentVolume, 1)
		if err := yaml.Unmarshal(data, &all.Items[0]); err != nil {
			return nil, nil, fault.New(fault.Invalid, "the input is no PersistentVolume: %v", err)
		}
	}
	if all.Kind != "PersistentVolume" && len(all.Items) == 0 {
		return nil, nil, fault.New(fault.Invalid, "there is no PersistentVolume in the input: give it what `kubectl get pv -o json` prints")
	}
	for _, pv := range all.Items {
		driver, ours := cephCSIDriver(pv.Spec.CSI)
		if !ours {
			continue
		}
		if why := unadoptable(&pv); why != "" {
			passed = append(passed, pv.Metadata.Name+": "+why)
			continue
		}
		converted = append(converted, pv.adopted(driver, namespace))
	}
	sort.Slice(converted, func(i, j int) bool { return converted[i].Metadata.Name < converted[j].Metadata.Name })
	return converted, passed, nil
}
