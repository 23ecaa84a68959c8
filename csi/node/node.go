// Package node is the CSI node service: it brings a volume to a staging path, from
// there to the pods, and back. Attaching is package attach's business, the order of
// steps, file systems and the rules that keep data safe are this one's.
//
// Invariant: every RPC may be repeated at any point, also after a crash of this
// process or of the machine; one volume is worked on by one call at a time (others
// wait). It must not import another CSI service. Why it is as it is: DESIGN.md.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/keylock"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Devices attaches RBD images; *attach.Devices does. All methods may be repeated.
type Devices interface {
	// Find returns the healthy device that the image has on this node already (what is left of
	// it: without a path).
	Find(ctx context.Context, img attach.Image) (attach.Device, bool, error)
	Attach(ctx context.Context, img attach.Image) (attach.Device, error)
	// Detach is done when the device is gone; fault.Busy while it is open.
	Detach(ctx context.Context, d attach.Device) error
	// Grow returns the size that the device has in the end, at least want.
	Grow(ctx context.Context, d attach.Device, want storage.Bytes) (storage.Bytes, error)
	// Forget lets go of a lost device.
	Forget(ctx context.Context, d attach.Device) error
	// Keep takes back a Detach that did not come to its end.
	Keep(ctx context.Context, d attach.Device) error
	// Check says what is wrong with a device.
	Check(ctx context.Context, d attach.Device) error
	// Guess finds a device without its record.
	Guess(ctx context.Context, volume, image string) (attach.Device, bool, error)
	clients[attach.Device]
}

// clients tells the Ceph clients behind what is attached.
type clients[A any] interface {
	// Client returns the address of an attachment's client, "" where the machine does not show it.
	Client(ctx context.Context, of A) (ceph.ClientAddress, error)
	// Living reports whether a client of the volume may still write, through whatever is left of it.
	Living(ctx context.Context, volume, mounter string, client ceph.ClientAddress) (bool, error)
}

// Directories mounts CephFS; *attach.Directories does.
type Directories interface {
	// Adopt shows at target what a living attacher still has mounted somewhere; false without one.
	Adopt(ctx context.Context, dir attach.Directory, target string) (attach.Mount, bool, error)
	Mount(ctx context.Context, dir attach.Directory, target string) (attach.Mount, error)
	// Release ends what stands behind an unmounted mount; mounter "" is not known.
	// fault.Busy while it is mounted elsewhere.
	Release(ctx context.Context, volume, mounter string) error
	// Discard ends a living attacher whose mount is known to be dead.
	Discard(ctx context.Context, volume string) error
	Check(ctx context.Context, m attach.Mount) error
	clients[attach.Mount]
}

// Clusters is the cluster map; *clustermap.Map is one.
type Clusters interface {
	Cluster(id storage.ClusterID) (clustermap.Cluster, error)
	Clusters() ([]clustermap.Cluster, error)
	Credentials(id storage.ClusterID) (ceph.Credentials, error)
}

// Observer counts and times what is slow. Calls come from many goroutines.
type Observer interface {
	// Attached: an image or a directory was attached by mounter ("" when none was found).
	Attached(driver storage.Driver, mounter string, took time.Duration, err error)
	// Formatted: a file system was made.
	Formatted(fs string, took time.Duration, err error)
	// Trimmed: a file system gave bytes back, or not all because of err.
	Trimmed(driver storage.Driver, bytes storage.Bytes, err error)
}

// Config wires a node service.
type Config struct {
	Driver      storage.Driver
	NodeID      string // the node's name; NodeGetInfo says "hf1:"+NodeID
	Dialer      ceph.Dialer
	Clusters    Clusters
	KMS         kms.Config  // beside kms.Default
	Devices     Devices     // for storage.RBD
	Directories Directories // for storage.CephFS
	Runner      command.Runner
	StateDir    string            // survives this process; need not survive a reboot
	MaxVolumes  int64             // 0: no limit
	Topology    map[string]string // segments beside the driver's own, "topology.kubernetes.io/zone": "a"
	Log         *slog.Logger
	Observer    Observer // may be nil
}

// Server implements csi.NodeServer. Its errors carry classes of package fault.
type Server struct {
	csi.UnimplementedNodeServer
	cfg    Config
	fs     *filesystems
	mounts mounts
	state  *store
	locks  *keylock.Locks
	work   sync.WaitGroup // of exclusive
	boot   string
	probes sync.Map // path -> *probe: file systems that are being asked

	users     sync.Map // storage.ClusterID -> ceph.Credentials: whom stagings came as
	unsettled atomic.Bool
}

var _ csi.NodeServer = (*Server)(nil)

// idPrefix marks node ids, so that a node of another driver is told apart.
const idPrefix = "hf1:"

// New returns a node service.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.NodeID == "" || len(cfg.NodeID) > 192-len(idPrefix):
		return nil, fault.New(fault.Invalid, "node id %q: want 1 to %d bytes", cfg.NodeID, 192-len(idPrefix))
	case cfg.Driver == storage.RBD && cfg.Devices == nil, cfg.Driver == storage.CephFS && cfg.Directories == nil:
		return nil, fault.New(fault.Invalid, "driver %s has no attacher", cfg.Driver)
	case cfg.Driver != storage.RBD && cfg.Driver != storage.CephFS:
		return nil, fault.New(fault.Invalid, "unknown driver %q", cfg.Driver)
	case cfg.StateDir == "":
		return nil, fault.New(fault.Invalid, "the node service needs a state directory")
	}
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	if cfg.Runner == nil {
		cfg.Runner = command.System{}
	}
	dir := filepath.Join(cfg.StateDir, string(cfg.Driver))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	return &Server{
		cfg: cfg, fs: &filesystems{run: cfg.Runner}, mounts: system{}, state: &store{dir: dir},
		locks: keylock.New(), boot: bootID(),
	}, nil
}

type noObserver struct{}

func (noObserver) Attached(storage.Driver, string, time.Duration, error) {}
func (noObserver) Formatted(string, time.Duration, error)                {}
func (noObserver) Trimmed(storage.Driver, storage.Bytes, error)          {}

// NodeGetCapabilities lists what this service does.
func (s *Server) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var caps []*csi.NodeServiceCapability
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_VOLUME_CONDITION,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		caps = append(caps, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: caps}, nil
}

// NodeGetInfo names this node.
func (s *Server) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId: string(s.id()), MaxVolumesPerNode: s.cfg.MaxVolumes,
		AccessibleTopology: s.accessibleTopology(),
	}, nil
}

// bootID identifies the running boot (random(4)).
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}
