package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func disksWipe() *cobra.Command {
	var root, token string
	cmd := &cobra.Command{
		Use: "wipe ID", Short: "Destroy what is on a disk that nobody uses, so that it becomes free", Args: cobra.ExactArgs(1),
		Long: "Without --token, this says what is on the disk and which token destroys it. With it, both ends of the disk and the places of spare copies are " +
			"overwritten with zeros; the rest of the data stays on the disk, unreachable for programs but not for a laboratory.\n\n" +
			"ID is as `holdfast disks list` shows it. A disk that is mounted, held, open or locked, and one of an OSD of this machine's own cluster, is refused.",
		Example: "  holdfast disks wipe naa.50014ee2b1c2d3e4\n  holdfast disks wipe naa.50014ee2b1c2d3e4 --token 'wipe WD-WCC4E1234567'",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, _ := cmd.Flags().GetString("data-dir")
			scanner := disk.NewScanner(disk.Config{Root: root, FSID: fsidIn(dir)})
			return wipeDisk(cmd.Context(), cmd, scanner, storage.DiskID(args[0]), fsidIn(dir), token)
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "root directory of the machine; in a container, where the host's is mounted")
	cmd.Flags().StringVar(&token, "token", "", "what the command said to say")
	return cmd
}

func wipeDisk(ctx context.Context, cmd *cobra.Command, scanner *disk.Scanner, id storage.DiskID, fsid, token string) error {
	d, err := scanner.Find(ctx, id)
	if err != nil {
		return err
	}
	for _, c := range d.Contents {
		if c.OSD != nil && c.OSD.FSID != "" && c.OSD.FSID == fsid {
			return fault.New(fault.Precondition, "disk %s carries an OSD of this machine's cluster: %s", id, d.Why())
		}
	}
	if token == "" {
		fmt.Fprintf(cmd.OutOrStdout(), "%s (%s, %s) holds: %s\n", d.ID, d.Name, d.Size.Decimal(), orDash(d.Why()))
		if len(d.Contents) > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "to destroy that: %s disks wipe %s --token '%s'\n", self(cmd), d.ID, disk.Token(d))
		}
		return nil
	}
	if err := scanner.Wipe(ctx, id, token); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s is blank\n", id)
	return nil
}
