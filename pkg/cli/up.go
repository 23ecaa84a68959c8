package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// upFlags are passed on to the supervisor where the user gave them: their defaults are
// the supervisor's (or what the cluster was made with), told here for the reader alone.
var upFlags = [...]struct{ name, value, usage string }{
	{"osds", "N", "number of OSDs, each on a sparse file (default 3)"},
	{"osd-size", "SIZE", "size of each OSD's file (default 4GiB)"},
	{"mons", "N", "number of monitors: 1, 3 or 5 (default 1)"},
	{"coordinators", "N", "number of coordinators, which decide on plans: 1, 3 or 5 (default 1)"},
	{"listen", "HOST:PORT", "loopback address of metrics and health checks (default: a free port of 127.0.0.1)"},
	{"ceph-addr", "IP", "address that Ceph's daemons listen on (default 127.0.0.1)"},
	{"port-base", "PORT", "first of the ports that the cluster takes (default: found by itself)"},
}

func upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the single-machine cluster, making it the first time",
		Long: `Starts a whole cluster on this machine: Ceph's monitor, manager, OSDs and MDS, the CSI
services for volumes and the coordinator of plans, all below --data-dir. The first time it is made; later the same data comes back,
also after a crash. Options of the cluster are fixed by the first "up" and can be left out afterwards.`,
		Example: `  holdfast up
  holdfast up --data-dir /srv/hf --osds 3 --osd-size 20GiB
  holdfast up --data-dir /srv/hf --disk /dev/disk/by-id/wwn-0x5000c500a1b2c3d4`,
		Args: cobra.NoArgs,
		RunE: runUp,
	}
	for _, f := range upFlags {
		cmd.Flags().String(f.name, "", f.usage)
		cmd.Flags().Lookup(f.name).DefValue = ""
	}
	cmd.Flags().StringArray("disk", nil, "use this blank disk (a /dev/disk/by-id or by-path name) instead of a file; repeatable")
	cmd.Flags().Bool("no-csi", false, "run Ceph alone, without the CSI services")
	cmd.Flags().Bool("agent", false, "run the agent beside it, for holdfast osd and holdfast plan; it starts the OSDs that it made")
	return cmd
}

func runUp(cmd *cobra.Command, _ []string) error {
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	show := newProgress(cmd.ErrOrStderr())
	status, err := localapi.NewClient(dir).Status(cmd.Context())
	switch {
	case err == nil && status.State == localapi.StateUp:
		fmt.Fprintf(cmd.ErrOrStderr(), "already up: %s in %s\n", status.Health, dir)
		if len(upArgs(cmd, dir)) > len(baseArgs(dir)) {
			fmt.Fprintln(cmd.ErrOrStderr(), "note: options have no effect on a running cluster; `holdfast down` first")
		}
	case err == nil && status.State == localapi.StateStopping:
		if err = localapi.AwaitEnd(cmd.Context(), dir); err == nil {
			err = startSupervisor(cmd.Context(), upArgs(cmd, dir), show.event)
		}
	case err == nil:
		err = localapi.NewClient(dir).Follow(cmd.Context(), show.event)
	case errors.Is(err, fault.Unavailable):
		err = startSupervisor(cmd.Context(), upArgs(cmd, dir), show.event)
	}
	show.close()
	if err != nil {
		return err
	}
	return finishUp(cmd, dir)
}

// finishUp says what there is now and what to do with it.
func finishUp(cmd *cobra.Command, dir string) error {
	status, err := localapi.NewClient(dir).Status(cmd.Context())
	if err != nil {
		return fmt.Errorf("ask for the status: %w", err)
	}
	w := cmd.ErrOrStderr()
	fmt.Fprintf(w, "%s  %d of %d OSDs up, %s\n", status.Health, status.OSDs.Up, status.OSDs.Total, dir)
	fmt.Fprintf(w, "ceph:    export CEPH_CONF=%s\n", status.CephConf)
	fmt.Fprintf(w, "metrics: %s\n", status.MetricsURL)
	fmt.Fprintf(w, "next:    %[1]s volume create --help; %[1]s status; %[1]s down\n", self(cmd))
	return nil
}

func baseArgs(dir string) []string { return []string{"standalone", "--data-dir", dir} }

// upArgs are the supervisor's arguments.
func upArgs(cmd *cobra.Command, dir string) []string {
	args := baseArgs(dir)
	for _, f := range upFlags {
		if value, _ := cmd.Flags().GetString(f.name); cmd.Flags().Changed(f.name) {
			args = append(args, "--"+f.name, value)
		}
	}
	disks, _ := cmd.Flags().GetStringArray("disk")
	for _, disk := range disks {
		args = append(args, "--disk", disk)
	}
	if no, _ := cmd.Flags().GetBool("no-csi"); cmd.Flags().Changed("no-csi") {
		args = append(args, "--csi="+strconv.FormatBool(!no))
	}
	if agent, _ := cmd.Flags().GetBool("agent"); cmd.Flags().Changed("agent") {
		args = append(args, "--agent="+strconv.FormatBool(agent))
	}
	return args
}

// startSupervisor starts holdfastd in a session of its own and passes on its progress
// until it says that it is done or why not.
func startSupervisor(ctx context.Context, args []string, progress func(localapi.Event)) error {
	program, err := findDaemon()
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer read.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	process, err := command.Start(command.Cmd{Name: program, Args: append(args, "--progress-fd", "3")}, null, write)
	write.Close()
	if err != nil {
		return err
	}
	defer func() { _ = process.Release() }()
	// an interrupt ends the watching, not the work: `up` again goes on to watch it
	stop := context.AfterFunc(ctx, func() { read.Close() })
	defer stop()
	err = localapi.ReadEvents(read, progress)
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: the cluster goes on starting; `holdfast up` watches it, `holdfast down` stops it: %w", ctx.Err())
	}
	return err
}

// findDaemon looks for holdfastd beside this program, then in PATH.
func findDaemon() (string, error) {
	if self, err := os.Executable(); err == nil {
		if resolved, err := filepath.EvalSymlinks(self); err == nil {
			self = resolved
		}
		beside := filepath.Join(filepath.Dir(self), "holdfastd")
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	path, err := exec.LookPath("holdfastd")
	if err != nil {
		return "", fault.New(fault.NotFound, "holdfastd is neither beside this program nor in PATH: build it with `make build`, or install it")
	}
	return filepath.Abs(path)
}

func dataDir(cmd *cobra.Command) (string, error) {
	dir, err := cmd.Flags().GetString("data-dir")
	if err != nil {
		return "", fmt.Errorf("read --data-dir: %w", err)
	}
	if strings.TrimSpace(dir) == "" {
		return "", fault.New(fault.Invalid, "--data-dir is empty")
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve --data-dir: %w", err)
	}
	return dir, nil
}
