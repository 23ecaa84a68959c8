package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/lvm"
	"github.com/holdfast-storage/holdfast/pkg/osd"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// OSDs are those of this machine, of the cluster whose configuration lies in the data directory.
type OSDs struct {
	Paths daemon.Paths
	Disks disk.Config
	// Volumes are the names of volumes that carry OSDs beside disks (see disk.Config); may be nil.
	Volumes func() ([]string, error)
	// Dial connects to the cluster as its administrator; the connection is shared.
	Dial func(ctx context.Context) (osd.Cluster, error)
	// Tune changes a Node before it is used, for tests; may be nil.
	Tune func(*osd.Node)
}

// Administrator connects to the cluster whose configuration and keys lie in a data directory.
func Administrator(dialer ceph.Dialer, paths daemon.Paths) func(ctx context.Context) (osd.Cluster, error) {
	return func(ctx context.Context) (osd.Cluster, error) {
		hosts, err := paths.MonHost()
		if err != nil {
			return nil, err
		}
		keyring, err := os.ReadFile(paths.Keyring(daemon.Admin))
		if err != nil {
			return nil, fmt.Errorf("read the administrator's key: %w", err)
		}
		key, err := daemon.ParseKeyring(keyring, daemon.Admin)
		if err != nil {
			return nil, err
		}
		return dialer.Dial(ctx, ceph.Endpoint{ID: storage.ClusterID(paths.FSID()), Monitors: []string{hosts}}, ceph.Credentials{User: "admin", Key: key})
	}
}

// node connects to the cluster. fault.NotFound without one.
func (o *OSDs) node(ctx context.Context) (*osd.Node, error) {
	fsid := o.Paths.FSID()
	if fsid == "" {
		return nil, fault.New(fault.NotFound, "there is no cluster in %s: `holdfast up` makes one", o.Paths.Dir)
	}
	cluster, err := o.Dial(ctx)
	if err != nil {
		return nil, err
	}
	cfg := o.Disks
	cfg.FSID = fsid
	if o.Volumes != nil {
		if cfg.Volumes, err = o.Volumes(); err != nil {
			return nil, err
		}
	}
	n := &osd.Node{Cluster: cluster, Daemons: osd.Processes{Paths: o.Paths}, Run: command.System{}, Disks: disk.NewScanner(cfg), FSID: fsid, Paths: o.Paths}
	if o.Tune != nil {
		o.Tune(n)
	}
	return n, nil
}

// Registry are the steps of plans for OSDs, and those of stacks' plans that concern the OSD on a volume.
func (o *OSDs) Registry() executor.Registry {
	registry := osd.Registry(o.node)
	maps.Copy(registry, osd.VolumeRegistry(o.node))
	return registry
}

// VolumesOf names the volumes of a ledger's stacks that carry an OSD, or are to.
func VolumesOf(l ledger.Ledger) ([]string, error) {
	all, err := l.LastOfAll()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range all {
		s, err := stack.Parse(p.State)
		if err != nil {
			return nil, err
		}
		if s.Volume.OSD != nil {
			names = append(names, lvm.Mapped(s.Volume.Group, s.Volume.Name))
		}
	}
	return names, nil
}

// Fresh says whether a plan for OSDs fits the world, as a ledger asks.
func (o *OSDs) Fresh(ctx context.Context, p plan.Plan) error {
	n, err := o.node(ctx)
	if err != nil {
		return err
	}
	return n.Fresh(ctx, p)
}

// Now is what the disks and OSDs of a plan are like.
func (o *OSDs) Now(ctx context.Context, p plan.Plan) (osd.Situation, error) {
	n, err := o.node(ctx)
	if err != nil {
		return osd.Situation{}, err
	}
	_, now, err := n.Now(ctx, p)
	return now, err
}

// Plan plans what is asked for.
func (o *OSDs) Plan(ctx context.Context, r agentapi.OSDRequest) (plan.Plan, error) {
	n, err := o.node(ctx)
	if err != nil {
		return plan.Plan{}, err
	}
	var named storage.Disk
	if r.Disk != "" {
		if named, err = (&Disks{scanner: n.Disks}).Named(ctx, r.Disk); err != nil {
			return plan.Plan{}, err
		}
	}
	request := osd.Request{UUID: FreshUUID(), Disk: named.ID, Class: r.Class, Encrypt: r.Encrypt}
	switch r.Do {
	case "prepare":
		return n.NewPlan(ctx, request)
	case "adopt":
		return n.AdoptPlan(ctx, named.ID)
	case "grow":
		return n.GrowPlan(ctx, r.ID)
	case "remove":
		return n.RemovePlan(ctx, r.ID, r.Wipe, nil)
	case "replace":
		return n.RemovePlan(ctx, r.ID, r.Wipe, &request)
	default:
		return plan.Plan{}, fault.New(fault.Invalid, "%q is nothing that is done to an OSD", r.Do)
	}
}

// FreshUUID is a random UUID (RFC 9562, version 4).
func FreshUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it would end the program
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// List lists the OSDs on this machine's disks.
func (o *OSDs) List(ctx context.Context) ([]agentapi.OSD, error) {
	n, err := o.node(ctx)
	if err != nil {
		return nil, err
	}
	placed, err := o.placed(ctx, n)
	if err != nil {
		return nil, err
	}
	own, err := localapi.OwnOSDs(o.Paths.Dir)
	if err != nil {
		return nil, err
	}
	list := []agentapi.OSD{}
	for _, p := range placed {
		one := agentapi.OSD{
			ID: p.ID, UUID: p.Label.UUID, Disk: p.Disk.ID, Device: p.Disk.Name, Size: p.Disk.Size, Used: p.Label.Size, Class: p.Class, Encrypted: p.Label.Encrypted, In: p.In, FSID: p.Label.FSID,
			State: state(p, n.FSID), Keeper: keeperOf(p, n.FSID, own),
		}
		if one.Keeper != "" {
			if one.Running, err = (osd.Processes{Paths: o.Paths}).Running(p.ID); err != nil {
				return nil, err
			}
		}
		list = append(list, one)
	}
	return list, nil
}

func (o *OSDs) placed(ctx context.Context, n *osd.Node) ([]osd.Placed, error) {
	inventory, err := n.Disks.Scan(ctx)
	if err != nil {
		return nil, err
	}
	return n.List(ctx, inventory.Disks)
}

func state(p osd.Placed, fsid string) string {
	switch {
	case !p.Own(fsid):
		return "foreign"
	case !p.Known:
		return "removed"
	case p.Up:
		return "up"
	default:
		return "down"
	}
}

// keeperOf is who starts an OSD, "" if nobody does.
func keeperOf(p osd.Placed, fsid string, supervised []int) string {
	switch {
	case !p.Own(fsid) || !p.Known:
		return ""
	case slices.Contains(supervised, p.ID):
		return agentapi.KeeperSupervisor
	default:
		return agentapi.KeeperAgent
	}
}

// wanted reports whether the cluster is to run: one that a supervisor looks after may be down because somebody wants it so.
func (o *OSDs) wanted(ctx context.Context) bool {
	if _, err := localapi.ReadIdentity(o.Paths.Dir); errors.Is(err, fault.NotFound) {
		return true
	}
	status, err := localapi.NewClient(o.Paths.Dir).Status(ctx)
	return err == nil && status.State != localapi.StateStopping
}

// Activate starts the OSDs of this cluster that are on this machine's disks and do not run, but for those of the supervisor, those
// whose disk is busy with a plan, and those that run or belong elsewhere. One that cannot be started does not keep the others from it.
func (o *OSDs) Activate(ctx context.Context, busy func(storage.DiskID) bool) (started []int, err error) {
	if !o.wanted(ctx) {
		return nil, nil
	}
	n, err := o.node(ctx)
	if err != nil {
		return nil, err
	}
	placed, err := o.placed(ctx, n)
	if err != nil {
		return nil, err
	}
	own, err := localapi.OwnOSDs(o.Paths.Dir)
	if err != nil {
		return nil, err
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("find the addresses of this machine: %w", err)
	}
	var errs []error
	for _, p := range placed {
		if keeperOf(p, n.FSID, own) != agentapi.KeeperAgent {
			continue
		}
		running, err := (osd.Processes{Paths: o.Paths}).Running(p.ID)
		if err == nil && (running || elsewhere(p, addresses) || busy(p.Disk.ID)) {
			continue
		}
		if err == nil {
			err = o.start(ctx, n, p)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("start osd.%d on disk %s: %w", p.ID, p.Disk.ID, err))
			continue
		}
		started = append(started, p.ID)
	}
	return started, errors.Join(errs...)
}

// elsewhere reports whether an OSD that does not run here may run on another machine, which has the disk too (dual-ported SAS, iSCSI): two
// that write one disk destroy it. "up" at an address of this machine is what the map remembers of a daemon that died with it.
func elsewhere(p osd.Placed, addresses []net.Addr) bool {
	return p.Up && !slices.ContainsFunc(addresses, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().WithZone("") == p.Address.Unmap()
	})
}

// start starts an OSD that has run on this machine before: a disk alone does not say that it was to come here.
func (o *OSDs) start(ctx context.Context, n *osd.Node, p osd.Placed) error {
	if _, err := os.Stat(filepath.Join(o.Paths.Data(daemon.OSDRef(p.ID)), "ready")); errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Precondition, "it has never run on this machine: `holdfast osd adopt` brings it here, if it runs on no other one")
	}
	return n.Start(ctx, osd.Adoption{ID: p.ID, UUID: p.Label.UUID, Disk: p.Disk.ID})
}
