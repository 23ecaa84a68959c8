package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/machine"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// What the parts promise each other.
var (
	_ agent.Worker = (*machine.Machine)(nil)
	_ agent.OSDs   = (*machine.OSDs)(nil)
	_ disk.Events  = (*disk.Uevents)(nil)
)

type agentFlags struct {
	dataDir, node, limit, hours, minSize string
	latency, rescan                      time.Duration
	disks                                disk.Config
}

func agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Look after a node's disks: keep their inventory, run the plans that were approved",
		Long: "Keeps the inventory of the node's disks up to date, takes plans over a unix socket in --data-dir (`holdfast plan` finds it), runs those that somebody approved, one at a time, " +
			"and after a kill, a crash or an upgrade goes on with what was begun. It does nothing to a disk of its own accord.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dataDir, "data-dir", "/var/lib/holdfast", "directory of plans, journals and the socket; and of the single-machine cluster, where there is one")
	flags.StringVar(&f.node, "node-id", "", "the node's name (default: the host name)")
	flags.StringVar(&f.limit, "limit", "", "how fast md may copy, such as 20MB/s (default: as fast as it can)")
	flags.StringVar(&f.hours, "full-speed", "", "hours of the day without --limit, such as 22-6")
	flags.DurationVar(&f.latency, "latency", 0, "give way to clients while their requests take longer than this, such as 30ms (default: never)")
	flags.DurationVar(&f.rescan, "rescan", 5*time.Minute, "between full scans of the disks; the kernel's events are followed at once")
	flags.StringVar(&f.minSize, "min-size", disk.DefaultMinSize.String(), "smaller disks are not free")
	flags.StringVar(&f.disks.Root, "root", "/", "root directory of the machine; in a container, where the host's is mounted")
	flags.StringArrayVar(&f.disks.Asked, "device", nil, "a loop or UML device that counts as a disk, for tests")
	_ = flags.MarkHidden("device")
	return cmd
}

func (f *agentFlags) run(cmd *cobra.Command) error {
	log, err := loggerOf(cmd)
	if err != nil {
		return err
	}
	log = log.With(obs.KeyDaemon, "agent")
	throttle, err := executor.ParseThrottle(f.limit, f.hours)
	if err != nil {
		return err
	}
	if f.disks.MinSize, err = storage.ParseBytes(f.minSize); err != nil {
		return fmt.Errorf("--min-size: %w", err)
	}
	if f.node == "" {
		if f.node, err = os.Hostname(); err != nil {
			return fmt.Errorf("find the host name: %w", err)
		}
	}
	dialer := native.NewDialer()
	defer dialer.Close()
	osds := f.osds(dialer)
	book := ledger.Of(f.dataDir)
	book.Fresh = func(p plan.Plan) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), askWithin)
		defer cancel()
		return osds.Fresh(ctx, p)
	}
	f.disks.FSID = osds.Paths.FSID()
	watcher := disk.NewWatcher(disk.NewScanner(f.disks), disk.WatcherConfig{Every: f.rescan, Changed: func(i disk.Inventory) {
		log.Info("disks have changed", "inventory", i.String())
	}})
	a := agent.New(agent.Config{
		Version: version, Node: f.node, DataDir: f.dataDir, Ledger: book, Inventory: watcher.Inventory, Log: log, OSDs: osds,
		Worker: &machine.Machine{Ledger: book, Devices: machine.NewDisks(f.disks), Limits: machine.Limits{Throttle: throttle, Latency: f.latency}, More: osds.Registry()},
	})
	listener, err := server.ListenUnix(cmd.Context(), agentapi.Socket(f.dataDir))
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(cmd.Context())
	group.Go(func() error { return a.Serve(ctx, listener) })
	group.Go(func() error { return a.Run(ctx) })
	group.Go(func() error { return a.KeepOSDs(ctx) })
	group.Go(func() error { return watchDisks(ctx, watcher, log) })
	return group.Wait()
}

// askWithin is how long the cluster may take to say what a plan is compared with.
const askWithin = 30 * time.Second

// osds are those of the cluster in the data directory, if there is one when it is asked for.
func (f *agentFlags) osds(dialer ceph.Dialer) *machine.OSDs {
	paths := daemon.Paths{Dir: f.dataDir}
	return &machine.OSDs{Paths: paths, Disks: f.disks, Dial: machine.Administrator(dialer, paths)}
}

// watchDisks keeps the inventory. A kernel that tells no events leaves the full scans.
func watchDisks(ctx context.Context, watcher *disk.Watcher, log *slog.Logger) error {
	uevents, err := disk.OpenUevents()
	if err != nil {
		log.Warn("no events of the kernel: changes show at the next full scan", obs.KeyError, err)
		return watcher.Run(ctx, silence{})
	}
	return errors.Join(watcher.Run(ctx, uevents), uevents.Close())
}

// silence are the events of a kernel that tells none.
type silence struct{}

var _ disk.Events = silence{}

// Next implements disk.Events.
func (silence) Next(ctx context.Context) (disk.Event, error) {
	<-ctx.Done()
	return disk.Event{}, ctx.Err()
}
