package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/raftnode"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/pools"
	"github.com/holdfast-storage/holdfast/pkg/rebalance"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/unixhttp"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// certificateLook is how often a process looks for new certificates of its own.
const certificateLook = 10 * time.Second

type coordinatorFlags struct {
	name, dir, address, listen, certs string
	members                           map[string]string
	membersDNS                        string
	membersCount                      int
	heartbeat, stall                  time.Duration
	monitors                          []string
	cephUser, cephKeyFile             string
	metrics                           string
	recover                           bool
	ca, join                          string
}

func coordinatorCommand() *cobra.Command {
	var f coordinatorFlags
	cmd := &cobra.Command{
		Use:   "coordinator",
		Short: "Agree with the other coordinators on plans and on who works on them",
		Long: `Agree with the other coordinators on plans and on who works on them.

The certificates come from "holdfast coordinator init". --members makes a new cluster when --dir
holds nothing yet; a member that is added to a cluster later is started without it, and taken in by
"holdfast coordinator add". When its disk hangs the process cuts its connections, so that another
coordinator leads, and exits: let it be started again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "the member's name (default: the one in its certificate)")
	flags.StringVar(&f.dir, "dir", "/var/lib/holdfast/coordinator", "directory of its log and snapshots")
	flags.StringVar(&f.address, "address", "", "host:port that the others reach it at")
	flags.StringVar(&f.listen, "listen", "", "host:port to listen on (default: --address)")
	flags.StringVar(&f.certs, "certs", "/etc/holdfast/certs", "directory with ca.crt, tls.crt and tls.key; followed when they change")
	flags.StringVar(&f.ca, "ca", "", "directory of the CA's key, for join tokens (default: this member lets nobody join)")
	flags.StringVar(&f.join, "join", "", "file that holds a token of \"holdfast coordinator token create\", or the token: gets the certificate when --certs has none, or one that has expired")
	flags.StringToStringVar(&f.members, "members", nil, "NAME=HOST:PORT,... of all members of a new cluster")
	flags.StringVar(&f.membersDNS, "members-dns", "", "in place of --members: a name whose SRV records are the members, each with its target's first label as its name")
	flags.IntVar(&f.membersCount, "members-count", 3, "with --members-dns: how many a new cluster has; it is waited for until DNS names as many")
	flags.DurationVar(&f.heartbeat, "heartbeat", raftnode.DefaultHeartbeat, "how long a member waits for its leader before it stands itself")
	flags.DurationVar(&f.stall, "stall", 3*time.Second, "how long a write may take before the disk counts as hung")
	flags.BoolVar(&f.recover, "recover", false, "a majority is lost for ever: make this member alone the cluster, with what it has, and end; start it without this flag then")
	flags.StringVar(&f.metrics, "metrics-listen", "", "loopback address of /metrics and /healthz, such as 127.0.0.1:9285 (default: none)")
	flags.StringSliceVar(&f.monitors, "ceph-monitors", nil, "HOST:PORT,... of the Ceph cluster that plans are for (default: none)")
	flags.StringVar(&f.cephUser, "ceph-user", "hf-coordinator", "Ceph user, without \"client.\"")
	flags.StringVar(&f.cephKeyFile, "ceph-key-file", "/etc/holdfast/ceph.key", "file that holds the user's key and nothing else")
	_ = cmd.MarkFlagRequired("address")
	cmd.MarkFlagsMutuallyExclusive("members", "members-dns")
	return cmd
}

func (f *coordinatorFlags) run(cmd *cobra.Command) error {
	format, _ := cmd.Flags().GetString("log-format")
	level, _ := cmd.Flags().GetString("log-level")
	log, err := obs.NewLogger(os.Stderr, format, level)
	if err != nil {
		return err
	}
	store, err := identify(cmd.Context(), f.certs, f.join, certs.Identity{Role: certs.Coordinator, Name: f.name}, log)
	if err != nil {
		return err
	}
	f.name = store.Identity().Name
	if f.listen == "" {
		f.listen = f.address
	}
	if f.recover {
		return raftnode.Recover(raftnode.Config{Name: f.name, Dir: f.dir, Address: f.address, Certs: store, Log: log}, []raftnode.Member{{Name: f.name, Address: f.address}})
	}
	return f.serve(cmd.Context(), store, log.With(obs.KeyDaemon, "coordinator", "member", f.name))
}

func (f *coordinatorFlags) serve(ctx context.Context, store *certs.Store, log *slog.Logger) error {
	everybody := []certs.Role{certs.Coordinator, certs.Agent, certs.Admin, certs.Operator}
	port, err := store.Listen(ctx, f.listen, map[certs.Protocol][]certs.Role{certs.GRPC: everybody, certs.Raft: {certs.Coordinator}, certs.Join: nil})
	if err != nil {
		return err
	}
	defer func() { _ = port.Close() }()
	var metrics net.Listener
	if f.metrics != "" {
		if metrics, err = unixhttp.Loopback(ctx, f.metrics); err != nil {
			return err
		}
		log.Info("metrics", "address", metrics.Addr().String())
	}
	work, ctx := errgroup.WithContext(ctx)
	node, err := raftnode.Start(raftnode.Config{
		Name: f.name, Dir: f.dir, Address: f.address, Listener: port.For(certs.Raft), Certs: store, Members: f.first(), Discover: f.discover(ctx, log),
		Heartbeat: f.heartbeat, Stall: f.stall, Log: log,
		Stalled: func(err error) { // nothing that waits for the disk ends, so neither would a proper shutdown
			log.Error("exit", obs.KeyError, err)
			os.Exit(3)
		},
	})
	if err != nil {
		return err
	}
	var planner coordinator.Planner
	var keeper coordinator.Pools
	if len(f.monitors) > 0 {
		dialer := native.NewDialer()
		defer dialer.Close()
		later := &rebalance.Planner{}
		planner, keeper = later, &pools.Keeper{Connected: later.Cluster}
		work.Go(func() error { return f.work(ctx, node, dialer, later, log) })
		work.Go(func() error {
			later.Guard(ctx, func() bool { _, leads := node.Leads(); return leads })
			return nil
		})
	}
	server := coordinator.New(node, node, store, planner, keeper, log)
	if f.ca != "" {
		ca, err := certs.ReadCA(f.ca)
		if err != nil {
			return errors.Join(err, node.Close())
		}
		server.CA = &ca
	}
	if metrics != nil {
		work.Go(func() error { return unixhttp.Serve(ctx, metrics, server.MetricsHandler()) })
	}
	api, joining := server.GRPC(), server.Joining()
	work.Go(func() error {
		store.Follow(ctx, certificateLook, func(err error) { log.Warn("new certificate not taken", obs.KeyError, err) })
		return nil
	})
	work.Go(func() error { return api.Serve(port.For(certs.GRPC)) })
	work.Go(func() error {
		<-ctx.Done()
		api.Stop()
		return joining.Close()
	})
	work.Go(func() error {
		if err := joining.Serve(coordinator.Plain(port.For(certs.Join))); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve those who join: %w", err)
		}
		return nil
	})
	log.Info("coordinator serves", "address", f.address)
	return errors.Join(work.Wait(), node.Close())
}

// cephAgain is the pause before a Ceph cluster that did not answer is asked again.
const cephAgain = 5 * time.Second

// dnsAgain is the pause before DNS is asked again for the members.
const dnsAgain = 2 * time.Second

// work does the leader's work on the Ceph cluster, once that answers: after a power cut the coordinators may be first.
func (f *coordinatorFlags) work(ctx context.Context, node *raftnode.Node, dialer *native.Dialer, planner *rebalance.Planner, log *slog.Logger) error {
	var cluster ceph.Cluster
	err := poll.Until(ctx, cephAgain, func() (bool, error) {
		var err error
		if cluster, err = f.ceph(ctx, dialer); err != nil && ctx.Err() == nil {
			log.Warn("the cluster does not answer", obs.KeyError, err)
		}
		return err == nil, nil
	})
	if err != nil {
		return nil // asked to end
	}
	planner.Connected(cluster)
	bounds := func() (t rebalance.Throttle) {
		node.View(func(s *fsm.State) {
			t = rebalance.Throttle{Backfills: s.Throttle.Backfills, Bytes: s.Throttle.Bytes, Latency: s.Throttle.Latency, Degraded: s.Limits().Degraded}
		})
		return t
	}
	steps := rebalance.Steps(cluster, bounds)
	maps.Copy(steps, pools.Steps(cluster))
	worker := coordinator.Worker{
		Log: node, Registry: steps, Logger: log, Replanner: planner,
		Trouble: func(ctx context.Context) (string, error) { return rebalance.Trouble(ctx, cluster, bounds().Degraded) },
	}
	return worker.Run(ctx)
}

// ceph connects to the cluster.
func (f *coordinatorFlags) ceph(ctx context.Context, dialer *native.Dialer) (ceph.Cluster, error) {
	key, err := os.ReadFile(f.cephKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read key of client.%s: %w", f.cephUser, err)
	}
	return dialer.Dial(ctx, ceph.Endpoint{ID: "ceph", Monitors: f.monitors}, ceph.Credentials{User: f.cephUser, Key: storage.NewSecret(strings.TrimSpace(string(key)))})
}

// first are the members of a new cluster, by name.
// discover waits until DNS names all members of a new cluster; nil without --members-dns.
func (f *coordinatorFlags) discover(ctx context.Context, log *slog.Logger) func() ([]raftnode.Member, error) {
	if f.membersDNS == "" {
		return nil
	}
	return func() (list []raftnode.Member, err error) {
		return list, poll.Until(ctx, dnsAgain, func() (bool, error) {
			found, err := coordinatorapi.Lookup(ctx, net.DefaultResolver, f.membersDNS)
			if len(found) != f.membersCount {
				log.Info("wait until DNS names the members", "name", f.membersDNS, "named", len(found), "want", f.membersCount, obs.KeyError, err)
				return false, nil
			}
			for _, m := range found {
				list = append(list, raftnode.Member{Name: m.Name, Address: m.Address})
			}
			if !slices.ContainsFunc(list, func(m raftnode.Member) bool { return m.Name == f.name }) {
				return false, fault.New(fault.Invalid, "%s names %v, and this member is %s", f.membersDNS, list, f.name)
			}
			return true, nil
		})
	}
}

func (f *coordinatorFlags) first() []raftnode.Member {
	var list []raftnode.Member
	for name, address := range f.members {
		list = append(list, raftnode.Member{Name: name, Address: address})
	}
	slices.SortFunc(list, func(a, b raftnode.Member) int { return strings.Compare(a.Name, b.Name) })
	return list
}
