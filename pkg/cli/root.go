// Package cli is the holdfast command: a file a group of verbs. It is pure Go and
// talks to the daemon over its sockets. Data goes to stdout; progress, prompts and
// hints go to stderr. A command that worked exits with 0.
package cli

import (
	"errors"
	"io"

	"github.com/spf13/cobra"
)

// Streams are the command's ends.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// ExitCode asks for an exit status other than 1.
type ExitCode struct {
	Code int
	Err  error
}

func (e *ExitCode) Error() string { return e.Err.Error() }
func (e *ExitCode) Unwrap() error { return e.Err }

// CodeOf returns the exit status for err.
func CodeOf(err error) int {
	var exit *ExitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	default:
		return 1
	}
}

// defaultDataDir is where the single-machine cluster lives unless --data-dir says otherwise.
const defaultDataDir = "/var/lib/holdfast"

// self is how a hint calls this program again for the same cluster.
func self(cmd *cobra.Command) string {
	if dir, _ := cmd.Flags().GetString("data-dir"); dir != defaultDataDir {
		return "holdfast --data-dir " + dir
	}
	return "holdfast"
}

// New builds the command tree.
func New(streams Streams, version string) *cobra.Command {
	root := &cobra.Command{
		Use:           "holdfast",
		Short:         "Ceph on the disks you have, for Kubernetes and for a single machine",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	root.PersistentFlags().String("data-dir", defaultDataDir, "directory of the single-machine cluster (see \"holdfast up\")")
	root.AddCommand(
		upCommand(),
		downCommand(),
		statusCommand(),
		explainCommand(),
		volumeCommand(),
		layoutCommand(),
		crushCommand(),
		imageCommand(),
		placementCommand(),
		disksCommand(),
		planCommand(),
		agentCommand(),
		osdCommand(),
		coordinatorCommand(),
		policyCommand(),
		poolCommand(),
		nodesCommand(),
	)
	return root
}
