package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/csi/attach/keeper"
	"github.com/holdfast-storage/holdfast/pkg/obs"
)

func attachCommand() *cobra.Command {
	var cfg keeper.Config
	cmd := &cobra.Command{
		Use:   "attach",
		Short: "Keep user-space attachers (qemu-storage-daemon, ceph-fuse) alive beside the node plugin",
		Long: `Keep user-space attachers alive beside the node plugin.

The helpers that it starts outlive it: after a restart they are found again, and no
mount is lost. The node plugin (holdfastd csi --attach-socket) asks it over a unix
socket that only root can open.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			format, _ := cmd.Flags().GetString("log-format")
			level, _ := cmd.Flags().GetString("log-level")
			log, err := obs.NewLogger(os.Stderr, format, level)
			if err != nil {
				return err
			}
			cfg.Log = log.With(obs.KeyDaemon, "attach")
			return keeper.Run(cmd.Context(), cfg)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.Socket, "socket", "/run/holdfast/attach.sock", "unix socket to serve on")
	flags.StringVar(&cfg.StateDir, "state-dir", "/run/holdfast/attach", "directory of the attachments; at most 80 bytes long")
	flags.DurationVar(&cfg.OpTimeout, "op-timeout", 2*time.Minute, "a Ceph operation that takes longer fails with EIO instead of hanging")
	return cmd
}
