package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/standalone"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// standaloneFlags are the options that `holdfast up` passes on, plus how it is called.
type standaloneFlags struct {
	options    standalone.Options
	osdSize    string
	csi, agent bool
	progressFD int
	request    localapi.DownRequest
}

func standaloneCommand() *cobra.Command {
	var f standaloneFlags
	cmd := &cobra.Command{
		Use:   "standalone",
		Short: "Supervise a whole cluster on this machine (what `holdfast up` starts)",
		Long: "Brings the cluster in --data-dir up and supervises its daemons. SIGTERM ends the supervisor alone:\n" +
			"the daemons go on and are found again by the next one. `holdfast down` stops everything.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.options.DataDir, "data-dir", "/var/lib/holdfast", "directory of the cluster")
	flags.IntVar(&f.options.OSDs, "osds", 0, "number of OSDs of a new cluster")
	flags.StringVar(&f.osdSize, "osd-size", "", "size of each OSD's file")
	flags.StringArrayVar(&f.options.Disks, "disk", nil, "by-id or by-path name of a blank disk to use instead of files (repeatable)")
	flags.IntVar(&f.options.Mons, "mons", 0, "number of monitors of a new cluster")
	flags.IntVar(&f.options.Coordinators, "coordinators", 0, "number of coordinators of a new cluster")
	flags.StringVar(&f.options.Listen, "listen", "", "loopback address of metrics and health checks")
	flags.StringVar(&f.options.CephAddr, "ceph-addr", "", "IP address of Ceph's daemons")
	flags.IntVar(&f.options.PortBase, "port-base", 0, "first of the ports that a new cluster takes")
	flags.BoolVar(&f.csi, "csi", true, "run the CSI services")
	flags.BoolVar(&f.agent, "agent", false, "run the agent, which makes OSDs of disks and storage stacks")
	flags.IntVar(&f.progressFD, "progress-fd", 0, "file descriptor to report progress on, and log to the directory")
	flags.BoolVar(&f.options.Stop, "stop", false, "stop the daemons of a cluster that has no supervisor, and end")
	flags.BoolVar(&f.request.Force, "force", false, "with --stop: also under mounted volumes")
	flags.BoolVar(&f.request.Wipe, "wipe", false, "with --stop: remove the cluster with all its data")
	return cmd
}

func (f *standaloneFlags) run(cmd *cobra.Command) error {
	report := func(localapi.Event) error { return nil }
	if f.progressFD > 0 {
		unix.CloseOnExec(f.progressFD)
		pipe := os.NewFile(uintptr(f.progressFD), "progress")
		defer pipe.Close()
		encoder := json.NewEncoder(pipe)
		report = func(e localapi.Event) error { return encoder.Encode(e) }
	}
	err := f.supervise(cmd, report)
	if err != nil {
		_ = report(localapi.Event{State: localapi.EventFail, Text: err.Error()})
	}
	return err
}

func (f *standaloneFlags) supervise(cmd *cobra.Command, report func(localapi.Event) error) error {
	ctx := cmd.Context()
	tools, closeTools, err := f.tools(cmd)
	if err != nil {
		return err
	}
	defer closeTools()
	s, err := standalone.Open(ctx, f.options, tools)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if f.progressFD > 0 {
		if err := logTo(f.options.DataDir); err != nil {
			return err
		}
	}
	if f.options.Stop {
		return s.Stop(ctx, f.request, report)
	}
	return s.Run(ctx, report)
}

func (f *standaloneFlags) tools(cmd *cobra.Command) (standalone.Tools, func(), error) {
	if f.osdSize != "" {
		size, err := storage.ParseBytes(f.osdSize)
		if err != nil {
			return standalone.Tools{}, nil, fmt.Errorf("--osd-size: %w", err)
		}
		f.options.OSDSize = size
	}
	if cmd.Flags().Changed("csi") {
		f.options.CSI = &f.csi
	}
	if cmd.Flags().Changed("agent") {
		f.options.Agent = &f.agent
	}
	executable, err := os.Executable()
	if err != nil {
		return standalone.Tools{}, nil, fmt.Errorf("find this program: %w", err)
	}
	format, _ := cmd.Flags().GetString("log-format")
	level, _ := cmd.Flags().GetString("log-level")
	log, err := obs.NewLogger(os.Stderr, format, level)
	if err != nil {
		return standalone.Tools{}, nil, err
	}
	dialer := native.NewDialer()
	tools := standalone.Tools{Dialer: dialer, Runner: command.System{}, Log: log, Executable: executable}
	return tools, dialer.Close, nil
}

// logTo makes the directory's log the standard output and error of this process, a
// crash's stack trace included.
func logTo(dir string) error {
	path := filepath.Join(daemon.Paths{Dir: dir}.Log(), "holdfastd.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(log.Fd()), fd, 0); err != nil {
			return fmt.Errorf("redirect output to %s: %w", path, err)
		}
	}
	return nil
}
