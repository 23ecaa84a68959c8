package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

func downCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the single-machine cluster; its data stays",
		Args:  cobra.NoArgs,
		RunE:  runDown,
	}
	cmd.Flags().Bool("force", false, "also while volumes are mounted: their users get I/O errors")
	cmd.Flags().Bool("wipe", false, "remove the cluster and all its data afterwards")
	cmd.Flags().Bool("yes", false, "with --wipe: do not ask")
	return cmd
}

func runDown(cmd *cobra.Command, _ []string) error {
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	force, _ := cmd.Flags().GetBool("force")
	if _, err := localapi.ReadIdentity(dir); err != nil {
		return err
	}
	show := newProgress(cmd.ErrOrStderr())
	err = localapi.NewClient(dir).Down(cmd.Context(), localapi.DownRequest{Force: force}, show.event)
	if errors.Is(err, fault.Unavailable) {
		args := []string{"standalone", "--data-dir", dir, "--stop"}
		if force {
			args = append(args, "--force")
		}
		err = startSupervisor(cmd.Context(), args, show.event)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "down: the data is in %s; `holdfast up` brings it back\n", dir)
	return nil
}
