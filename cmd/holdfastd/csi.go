package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/csi/admin"
	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/cephfs"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/controller"
	"github.com/holdfast-storage/holdfast/csi/identity"
	"github.com/holdfast-storage/holdfast/csi/imageio"
	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/csi/node"
	"github.com/holdfast-storage/holdfast/csi/nodelabels"
	"github.com/holdfast-storage/holdfast/csi/rbd"
	"github.com/holdfast-storage/holdfast/csi/registration"
	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// What the parts promise each other.
var (
	_ controller.Backend  = (*rbd.Backend)(nil)
	_ controller.Backend  = (*cephfs.Backend)(nil)
	_ controller.Clusters = (*clustermap.Map)(nil)
	_ node.Clusters       = (*clustermap.Map)(nil)
	_ node.Devices        = (*attach.Devices)(nil)
	_ node.Directories    = (*attach.Directories)(nil)
	_ node.Observer       = (*server.Metrics)(nil)

	_ controller.FenceObserver   = (*server.Metrics)(nil)
	_ controller.ReclaimObserver = (*server.Metrics)(nil)
	_ controller.OrphanObserver  = (*server.Metrics)(nil)

	_ admin.Controller = (*controller.Server)(nil)
	_ admin.Node       = (*node.Server)(nil)
	_ admin.Images     = (*imageio.Server)(nil)
)

type csiFlags struct {
	services, drivers []string
	endpoints         map[storage.Driver]*string
	nodeID            string
	config            string
	credentialsDir    string
	stateDir          string
	attachSocket      string
	metricsListen     string
	pluginRegistry    string
	kubeletSocketDir  string
	maxVolumes        int64
	topology          map[string]string
	topologyLabels    []string
	kmsConfig         string
	alpha             bool
	adminSocket       string
	trimEvery         time.Duration
	sparsifyEvery     time.Duration
}

func csiCommand() *cobra.Command {
	var rbdEndpoint, cephfsEndpoint string
	f := csiFlags{endpoints: map[storage.Driver]*string{storage.RBD: &rbdEndpoint, storage.CephFS: &cephfsEndpoint}}
	cmd := &cobra.Command{
		Use:   "csi",
		Short: "Serve CSI for RBD and CephFS volumes",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.services, "services", []string{"controller", "node"}, "services to serve: controller, node")
	flags.StringSliceVar(&f.drivers, "drivers", []string{"rbd", "cephfs"}, "drivers to serve: rbd, cephfs")
	flags.StringVar(&rbdEndpoint, "rbd-endpoint", "unix:///run/holdfast/rbd.sock", "socket of the RBD driver")
	flags.StringVar(&cephfsEndpoint, "cephfs-endpoint", "unix:///run/holdfast/cephfs.sock", "socket of the CephFS driver")
	flags.StringVar(&f.nodeID, "node-id", "", "the node's name (default: the host name)")
	flags.StringVar(&f.config, "config", "/etc/holdfast/config.json", "cluster map, in the form of ceph-csi's config.json; followed when it changes")
	flags.StringVar(&f.credentialsDir, "credentials-dir", "", "directory with <clusterID>/userID and userKey, for calls that carry no secrets")
	flags.StringVar(&f.stateDir, "state-dir", "/var/lib/holdfast/node", "directory of the node service's state")
	flags.StringVar(&f.attachSocket, "attach-socket", "/run/holdfast/attach.sock", "socket of `holdfastd attach`, home of user-space attachers")
	flags.StringVar(&f.metricsListen, "metrics-listen", "", "loopback host:port or unix:///path for /metrics and /healthz (default: none)")
	flags.StringVar(&f.pluginRegistry, "kubelet-plugin-registry", "", "kubelet's plugins_registry directory; registers the drivers there (default: no registration)")
	flags.StringVar(&f.kubeletSocketDir, "kubelet-socket-dir", "", "directory of the endpoints as kubelet sees it (default: as this process does)")
	flags.StringToStringVar(&f.topology, "topology", nil, "segments that the node is in, KEY=VALUE,...; all nodes must tell the same keys")
	flags.StringSliceVar(&f.topologyLabels, "topology-labels", nil, "labels of the Kubernetes Node that are segments, such as topology.kubernetes.io/zone")
	flags.StringVar(&f.kmsConfig, "kms-config", "", "JSON file of the KMS beside the passphrase in the calls' secrets: {\"ID\": {\"type\": \"file\", \"path\": ...}}")
	flags.Int64Var(&f.maxVolumes, "max-volumes", 0, "volumes of a driver that the node takes (0: no limit)")
	flags.StringVar(&f.adminSocket, "admin-socket", "", "private socket of the API behind `holdfast volume`: records, orphans, why-pending, rewrap, reclaim (default: none)")
	flags.DurationVar(&f.trimEvery, "trim-every", 168*time.Hour, "how often the node has the file systems of its volumes give back what they do not use (fstrim); 0: never")
	flags.DurationVar(&f.sparsifyEvery, "sparsify-every", 0, "how often the controller gives back zeros in RBD volumes that no node has (rbd sparsify); 0: never")
	flags.BoolVar(&f.alpha, "alpha-capabilities", false, "announce capabilities that the CSI specification calls alpha (GET_SNAPSHOT), too; the calls are served in any case")
	return cmd
}

// driverOf maps the flag's words to drivers.
var driverOf = map[string]storage.Driver{"rbd": storage.RBD, "cephfs": storage.CephFS}

func (f *csiFlags) check() error {
	for _, s := range f.services {
		if s != "controller" && s != "node" {
			return fmt.Errorf("--services: %q is neither controller nor node", s)
		}
	}
	for _, d := range f.drivers {
		if _, ok := driverOf[d]; !ok {
			return fmt.Errorf("--drivers: %q is neither rbd nor cephfs", d)
		}
	}
	if len(f.services) == 0 || len(f.drivers) == 0 {
		return errors.New("--services and --drivers must not be empty")
	}
	for key, value := range f.topology {
		if key == "" || value == "" {
			return fmt.Errorf("--topology: segment %q=%q: want a key such as topology.kubernetes.io/zone and a value", key, value)
		}
	}
	if f.nodeID == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host name: %w", err)
		}
		f.nodeID = name
	}
	return nil
}

// readTopology adds the Kubernetes Node's labels to the node's segments.
func (f *csiFlags) readTopology(ctx context.Context) error {
	if len(f.topologyLabels) == 0 || !slices.Contains(f.services, "node") {
		return nil
	}
	api, err := nodelabels.InCluster()
	if err != nil {
		return fmt.Errorf("--topology-labels: %w", err)
	}
	labels, err := api.Read(ctx, f.nodeID, f.topologyLabels)
	if err != nil {
		return fmt.Errorf("--topology-labels: %w", err)
	}
	maps.Copy(labels, f.topology) // what is given by hand stands
	f.topology = labels
	return nil
}

// csiParts are what the services of one process share.
type csiParts struct {
	flags    *csiFlags
	version  string
	log      *slog.Logger
	dialer   ceph.Dialer
	clusters *clustermap.Map
	kms      kms.Config
	metrics  *server.Metrics
	admin    *admin.Server
	added    chan struct{} // told of each driver whose services admin has
}

func (f *csiFlags) run(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	log, err := loggerOf(cmd)
	if err != nil {
		return err
	}
	clusters, err := clustermap.Open(f.config, f.credentialsDir)
	if err != nil {
		return err
	}
	keys, err := kms.Load(f.kmsConfig)
	if err != nil {
		return err
	}
	if err := f.readTopology(cmd.Context()); err != nil {
		return err
	}
	dialer := native.NewDialer()
	defer dialer.Close()
	p := &csiParts{flags: f, version: version, log: log, dialer: dialer, clusters: clusters, kms: keys, metrics: server.NewMetrics(version, clusters.Err), admin: admin.New(log), added: make(chan struct{}, len(f.drivers))}
	if slices.Contains(f.services, "controller") && slices.Contains(f.drivers, "rbd") {
		p.admin.SetImages(imageio.New(dialer, clusters))
	}
	group, ctx := errgroup.WithContext(cmd.Context())
	for _, name := range f.drivers {
		group.Go(func() error { return p.serve(ctx, driverOf[name]) })
	}
	if f.adminSocket != "" {
		group.Go(func() error { return p.serveAdmin(ctx) })
	}
	if f.metricsListen != "" {
		group.Go(func() error {
			return p.metrics.Serve(ctx, f.metricsListen)
		})
	}
	return group.Wait()
}

// serveAdmin answers the admin API when all drivers' services are there, until ctx ends.
func (p *csiParts) serveAdmin(ctx context.Context) error {
	for range p.flags.drivers {
		select {
		case <-p.added:
		case <-ctx.Done():
			return nil
		}
	}
	listener, err := server.ListenUnix(ctx, server.SocketPath(p.flags.adminSocket))
	if err != nil {
		return fmt.Errorf("--admin-socket: %w", err)
	}
	return p.admin.Serve(ctx, listener)
}

// serve runs one driver's services until ctx ends and their work is done.
func (p *csiParts) serve(ctx context.Context, driver storage.Driver) error {
	endpoint := *p.flags.endpoints[driver]
	s, err := server.Listen(ctx, endpoint, p.log, p.metrics, string(driver))
	if err != nil {
		return err
	}
	withController := slices.Contains(p.flags.services, "controller")
	who := &identity.Server{Driver: driver, Version: p.version, Controller: withController}
	csi.RegisterIdentityServer(s.Registrar(), who)
	background := []func(context.Context) error{s.Serve}
	if withController {
		c := p.controller(driver)
		defer c.Close()
		csi.RegisterControllerServer(s.Registrar(), c)
		if blocks, ok := c.ChangedBlocks(); ok {
			csi.RegisterSnapshotMetadataServer(s.Registrar(), blocks)
			who.Changes = true
		}
		p.admin.AddController(driver, c)
		background = append(background, c.Clean, c.WatchFences, c.WatchOrphans, func(ctx context.Context) error {
			return c.SparsifyEvery(ctx, p.flags.sparsifyEvery)
		})
	}
	if slices.Contains(p.flags.services, "node") {
		n, closeNode, err := p.node(driver)
		if err != nil {
			return err
		}
		defer closeNode()
		csi.RegisterNodeServer(s.Registrar(), n)
		p.admin.AddNode(driver, n)
		background = append(background, n.Run, func(ctx context.Context) error { return n.TrimEvery(ctx, p.flags.trimEvery) })
	}
	p.added <- struct{}{}
	if p.flags.pluginRegistry != "" {
		background = append(background, func(ctx context.Context) error { return p.register(ctx, driver, endpoint) })
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, work := range background {
		group.Go(func() error { return work(ctx) })
	}
	return group.Wait()
}

func (p *csiParts) controller(driver storage.Driver) *controller.Server {
	var backend controller.Backend = &rbd.Backend{Runner: command.System{}}
	if driver == storage.CephFS {
		backend = &cephfs.Backend{}
	}
	return controller.New(controller.Config{
		Backend: backend, Dialer: p.dialer, Clusters: p.clusters, KMS: p.kms, Now: time.Now,
		Owner: fmt.Sprintf("controller on %s, pid %d", p.flags.nodeID, os.Getpid()), Log: p.log, Alpha: p.flags.alpha, Fences: p.metrics, Reclaims: p.metrics, OrphanCounts: p.metrics,
	})
}

func (p *csiParts) node(driver storage.Driver) (*node.Server, func(), error) {
	attachers := attach.Config{Socket: p.flags.attachSocket, Runner: command.System{}, Log: p.log}
	devices, directories := attach.NewDevices(attachers), attach.NewDirectories(attachers)
	n, err := node.New(node.Config{
		Driver: driver, NodeID: p.flags.nodeID, Dialer: p.dialer, Clusters: p.clusters, KMS: p.kms,
		Devices: devices, Directories: directories, Runner: command.System{},
		StateDir: p.flags.stateDir, MaxVolumes: p.flags.maxVolumes, Topology: p.flags.topology, Log: p.log, Observer: p.metrics,
	})
	closeAll := func() {
		if n != nil {
			n.Wait()
		}
		devices.Close()
		directories.Close()
	}
	return n, closeAll, err
}

// register tells kubelet where the driver listens.
func (p *csiParts) register(ctx context.Context, driver storage.Driver, endpoint string) error {
	seen := server.SocketPath(endpoint)
	if dir := p.flags.kubeletSocketDir; dir != "" {
		seen = filepath.Join(dir, filepath.Base(seen))
	}
	return registration.Serve(ctx, registration.Config{
		Registry: p.flags.pluginRegistry, Driver: driver, Endpoint: seen, Log: p.log,
	})
}

func loggerOf(cmd *cobra.Command) (*slog.Logger, error) {
	format, _ := cmd.Flags().GetString("log-format")
	level, _ := cmd.Flags().GetString("log-level")
	return obs.NewLogger(os.Stderr, format, level)
}
