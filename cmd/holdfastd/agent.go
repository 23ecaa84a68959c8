package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/agent"
	"github.com/holdfast-storage/holdfast/pkg/agent/uplink"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/machine"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/smart"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// What the parts promise each other.
var (
	_ agent.Worker = (*machine.Machine)(nil)
	_ agent.OSDs   = (*machine.OSDs)(nil)
	_ disk.Events  = (*disk.Uevents)(nil)
)

type agentFlags struct {
	dataDir, node, limit, hours, minSize, metricsListen string
	latency, rescan                                     time.Duration
	healthEvery, scrubEvery                             time.Duration
	disks                                               disk.Config
	certs, join                                         string
	coordinators                                        []string
}

func agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Look after a node's disks: keep their inventory, run the plans that were approved",
		Long: "Keeps the inventory of the node's disks up to date, takes plans over a unix socket in --data-dir (`holdfast plan` finds it), runs those that somebody approved, one at a time, " +
			"and after a kill, a crash or an upgrade goes on with what was begun. Of its own accord it writes to no disk but for this: it starts the stacks and the OSDs that were made or adopted here, and begins scrubs.",
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
	flags.StringVar(&f.metricsListen, "metrics-listen", "127.0.0.1:9284", "loopback address of /metrics and /healthz; port 0: any that is free")
	flags.DurationVar(&f.healthEvery, "health-every", time.Hour, "how often disks are asked for their health by smartctl (a disk that sleeps is not woken); 0: never")
	flags.DurationVar(&f.scrubEvery, "scrub-every", 30*24*time.Hour, "how often each array of a stack compares its copies or parity; 0: never")
	flags.StringVar(&f.minSize, "min-size", disk.DefaultMinSize.String(), "smaller disks are not free")
	flags.StringSliceVar(&f.coordinators, "coordinators", nil, "HOST:PORT,... of the coordinators, or srv:NAME whose SRV records they are, which give the orders then (default: none: orders come over the socket)")
	flags.StringVar(&f.join, "join", "", "file that holds a token of \"holdfast coordinator token create\", or the token: gets the certificate when --certs has none, or one that has expired; and the default of --coordinators")
	flags.StringVar(&f.certs, "certs", "/etc/holdfast/certs", "with --coordinators: directory with ca.crt, tls.crt and tls.key of agent/NODE; followed when they change")
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
	limits, err := f.read()
	if err != nil {
		return err
	}
	store, err := f.identity(cmd.Context(), log)
	if err != nil {
		return err
	}
	listener, err := server.ListenUnix(cmd.Context(), agentapi.Socket(f.dataDir))
	if err != nil {
		return err
	}
	metrics, err := agent.ListenMetrics(cmd.Context(), f.metricsListen)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	dialer := native.NewDialer()
	defer dialer.Close()
	paths := daemon.Paths{Dir: f.dataDir}
	f.disks.FSID = paths.FSID()
	osds := &machine.OSDs{Paths: paths, Disks: f.disks, Dial: machine.Administrator(dialer, paths)}
	book := f.ledger(cmd.Context(), osds)
	osds.Volumes = func() ([]string, error) { return machine.VolumesOf(book) }
	var expires func() time.Time
	if store != nil {
		expires = store.Expires
	}
	var a *agent.Agent
	watcher := disk.NewWatcher(disk.NewScanner(f.disks), disk.WatcherConfig{Every: f.rescan, Changed: func(i disk.Inventory) {
		log.Info("disks have changed", "inventory", i.String())
		a.DisksChanged()
	}})
	monitor := f.monitor(book, watcher, log)
	a = agent.New(agent.Config{
		Version: version, Node: f.node, DataDir: f.dataDir, MetricsURL: "http://" + metrics.Addr().String() + "/metrics",
		Coordinated: store != nil, Expires: expires, Ledger: book, OSDs: osds, Inventory: watcher.Inventory, Log: log, Problems: func() []agentapi.Check { return monitor.Sight().Checks() },
		Worker: &machine.Machine{Ledger: book, Devices: machine.NewDisks(f.disks), Limits: limits, More: osds.Registry()},
	})
	monitor.Looked = a.Propose
	group, ctx := errgroup.WithContext(cmd.Context())
	group.Go(func() error { return a.Serve(ctx, listener) })
	group.Go(func() error { return a.Run(ctx) })
	group.Go(func() error { return a.KeepOSDs(ctx) })
	group.Go(func() error { return monitor.Run(ctx) })
	group.Go(func() error { return a.ServeMetrics(ctx, metrics, monitor.Sight) })
	group.Go(func() error { return watchDisks(ctx, watcher, log) })
	if store != nil {
		client := coordinatorapi.New(store, f.coordinators)
		defer client.Close()
		up := uplink.New(uplink.Config{
			Node: f.node, Client: client, Agent: a, Records: recordsOf(book), Withdraw: func(id plan.ID) error { return journal.Withdraw(book.Dir, id) },
			State: stateOf(book, osds), Inventory: watcher.Inventory, Log: log,
		})
		group.Go(func() error { return up.Run(ctx) })
		group.Go(func() error {
			store.Follow(ctx, certificateLook, func(err error) { log.Warn("new certificate not taken", obs.KeyError, err) })
			return nil
		})
	}
	return group.Wait()
}

// identity opens the certificate by which coordinators know this node; nil without --coordinators and --join.
func (f *agentFlags) identity(ctx context.Context, log *slog.Logger) (*certs.Store, error) {
	if len(f.coordinators) == 0 && f.join == "" {
		return nil, nil
	}
	store, err := identify(ctx, f.certs, f.join, certs.Identity{Role: certs.Agent, Name: f.node}, log)
	if err == nil && len(f.coordinators) == 0 {
		f.coordinators, err = coordinatorapi.Endpoints(f.certs)
	}
	return store, err
}

// recordsOf reads journals.
func recordsOf(book ledger.Ledger) func(plan.ID) ([]executor.Record, error) {
	return func(id plan.ID) ([]executor.Record, error) {
		e, err := journal.Read(book.Dir, id)
		if errors.Is(err, fault.NotFound) {
			return nil, nil
		}
		return e.Records, err
	}
}

// stateOf looks at what plans are for.
func stateOf(book ledger.Ledger, osds *machine.OSDs) func(context.Context, plan.Plan) (json.RawMessage, error) {
	return func(ctx context.Context, p plan.Plan) (json.RawMessage, error) {
		var now any
		var err error
		if kind, _ := ledger.Subject(p); kind == ledger.Stacks {
			now, err = book.Now(p)
		} else {
			ctx, cancel := context.WithTimeout(ctx, askWithin)
			defer cancel()
			now, err = osds.Now(ctx, p)
		}
		if err != nil {
			return nil, err
		}
		return json.Marshal(now)
	}
}

// read checks what the flags say.
func (f *agentFlags) read() (limits machine.Limits, err error) {
	if limits.Throttle, err = executor.ParseThrottle(f.limit, f.hours); err != nil {
		return limits, err
	}
	limits.Latency = f.latency
	if f.disks.MinSize, err = storage.ParseBytes(f.minSize); err != nil {
		return limits, fmt.Errorf("--min-size: %w", err)
	}
	if f.node == "" {
		if f.node, err = os.Hostname(); err != nil {
			return limits, fmt.Errorf("find the host name: %w", err)
		}
	}
	return limits, nil
}

// askWithin is how long the cluster may take to say what a plan is compared with.
const askWithin = 30 * time.Second

// ledger is that of the data directory, with the cluster's word on plans for OSDs.
func (f *agentFlags) ledger(ctx context.Context, osds *machine.OSDs) ledger.Ledger {
	book := ledger.Of(f.dataDir)
	book.Fresh = func(p plan.Plan) error {
		ctx, cancel := context.WithTimeout(ctx, askWithin)
		defer cancel()
		return osds.Fresh(ctx, p)
	}
	return book
}

// healthWithin is how long a disk may take to tell its health.
const healthWithin = 30 * time.Second

// lookEvery is how often arrays are looked at.
const lookEvery = 5 * time.Second

// monitor looks at the node's disks and arrays with its own tools.
func (f *agentFlags) monitor(book ledger.Ledger, watcher *disk.Watcher, log *slog.Logger) *agent.Monitor {
	tool := md.Tool{Run: command.System{}, Sys: "/sys"}
	return &agent.Monitor{
		Ledger: book, Inventory: watcher.Inventory, Arrays: tool.Arrays, Scrub: tool.Scrub, Every: lookEvery, HealthEvery: f.healthEvery, ScrubEvery: f.scrubEvery, Log: log, Now: time.Now,
		Health: func(ctx context.Context, name string) (smart.Health, error) {
			ctx, cancel := context.WithTimeout(ctx, healthWithin)
			defer cancel()
			return smart.Read(ctx, command.System{}, filepath.Join(f.disks.Root, "dev", name))
		},
	}
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
