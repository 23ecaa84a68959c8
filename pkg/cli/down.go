package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

func downCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the single-machine cluster; its data stays, unless --wipe",
		Args:  cobra.NoArgs,
		RunE:  runDown,
	}
	cmd.Flags().Bool("force", false, "also while volumes are mounted: their users get I/O errors")
	cmd.Flags().Bool("wipe", false, "remove the cluster with all its data afterwards")
	cmd.Flags().Bool("yes", false, "with --wipe: do not ask")
	return cmd
}

func runDown(cmd *cobra.Command, _ []string) error {
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	var request localapi.DownRequest
	request.Force, _ = cmd.Flags().GetBool("force")
	request.Wipe, _ = cmd.Flags().GetBool("wipe")
	id, err := localapi.ReadIdentity(dir)
	if err != nil {
		return err
	}
	if yes, _ := cmd.Flags().GetBool("yes"); request.Wipe && !yes {
		if err := confirmWipe(cmd, dir, id); err != nil {
			return err
		}
	}
	show := newProgress(cmd.ErrOrStderr())
	err = localapi.NewClient(dir).Down(cmd.Context(), request, show.event)
	if errors.Is(err, fault.Unavailable) {
		if err = startSupervisor(cmd.Context(), stopArgs(dir, request), show.event); err == nil {
			err = localapi.AwaitEnd(cmd.Context(), dir)
		}
	}
	show.close()
	if err != nil {
		return err
	}
	if request.Wipe {
		fmt.Fprintf(cmd.ErrOrStderr(), "down: the cluster in %s and its data are gone\n", dir)
	} else {
		fmt.Fprintf(cmd.ErrOrStderr(), "down: the data stays in %s\nnext: holdfast up --data-dir %s brings it back\n", dir, dir)
	}
	return nil
}

func stopArgs(dir string, request localapi.DownRequest) []string {
	args := []string{"standalone", "--data-dir", dir, "--stop"}
	if request.Force {
		args = append(args, "--force")
	}
	if request.Wipe {
		args = append(args, "--wipe")
	}
	return args
}

// confirmWipe says what dies and asks to type its name.
func confirmWipe(cmd *cobra.Command, dir string, id localapi.Identity) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return fault.New(fault.Invalid, "--wipe removes the cluster %s with all its volumes: add --yes to do that without being asked", id.FSID)
	}
	w := cmd.ErrOrStderr()
	fmt.Fprintf(w, "This removes the cluster %s in %s with everything in it", id.FSID, dir)
	if status, err := localapi.NewClient(dir).Status(cmd.Context()); err == nil {
		fmt.Fprintf(w, ": %s RBD and %s CephFS volumes", count(status.Volumes.RBD), count(status.Volumes.CephFS))
	}
	fmt.Fprintf(w, ".\nType the directory's name to go on: ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != dir {
		return fault.New(fault.Invalid, "that is not %s: nothing was removed", dir)
	}
	return nil
}
