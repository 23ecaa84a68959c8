package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Say how the single-machine cluster is", Args: cobra.NoArgs, RunE: runStatus}
	addOutputFlag(cmd)
	return cmd
}

func runStatus(cmd *cobra.Command, _ []string) error {
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	status, err := localapi.NewClient(dir).Status(cmd.Context())
	if err != nil {
		return err
	}
	return emit(cmd, status, nil, func(w io.Writer) { fmt.Fprintln(w, status.Health) })
}
