// Package controller is the CSI controller service: a file an RPC family. It keeps
// the records and the order of things; what a volume is made of is the Backend's.
// Handlers return errors with a class of package fault, which the gRPC server maps.
package controller

import (
	"context"
	"log/slog"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/flight"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Clusters is the cluster map.
type Clusters interface {
	Cluster(id storage.ClusterID) (clustermap.Cluster, error)
	Clusters() ([]clustermap.Cluster, error)
	Credentials(id storage.ClusterID) (ceph.Credentials, error)
}

// Config is what a Server is made of.
type Config struct {
	Backend  Backend
	Dialer   ceph.Dialer
	Clusters Clusters
	KMS      kms.Config // beside kms.Default
	Owner    string     // describes this process in leases
	Log      *slog.Logger
	Now      func() time.Time
	// LookAgain is the pause before background work looks again at what it had to leave (0: 30 s).
	LookAgain time.Duration
	// Alpha: announce what the CSI specification calls alpha, too. Callers older than the
	// capability may refuse a service that announces it (csi-sanity v5.4.0 does).
	Alpha  bool
	Fences FenceObserver // may be nil

	Reclaims     ReclaimObserver // may be nil
	OrphanCounts OrphanObserver  // may be nil
}

// Server implements csi.ControllerServer for one driver.
type Server struct {
	csi.UnimplementedControllerServer
	Config
	flights *flight.Group
	janitor *janitor
	refused refusals
	census  census

	evictions evictions
}

var _ csi.ControllerServer = (*Server)(nil)

// workLimit bounds the work on one volume after its caller has gone. Deleting a
// large image without an object map takes longest; it resumes where it was cut.
const workLimit = 10 * time.Minute

// New returns a Server. Close it.
func New(config Config) *Server {
	if config.LookAgain == 0 {
		config.LookAgain = lookAgain
	}
	return &Server{Config: config, flights: flight.New(workLimit), janitor: newJanitor()}
}

// Close waits for the work under way.
func (s *Server) Close() { s.flights.Wait() }

// ControllerGetCapabilities lists what the other handlers can do.
func (s *Server) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	var response csi.ControllerGetCapabilitiesResponse
	types := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_READONLY,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
		csi.ControllerServiceCapability_RPC_GET_VOLUME,
		csi.ControllerServiceCapability_RPC_VOLUME_CONDITION,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if s.Alpha {
		types = append(types, csi.ControllerServiceCapability_RPC_GET_SNAPSHOT)
	}
	for _, t := range types {
		response.Capabilities = append(response.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}},
		})
	}
	return &response, nil
}

// connect returns the site of a cluster, with the call's secrets or, without any,
// with the service's own credentials.
func (s *Server) connect(ctx context.Context, id storage.ClusterID, secrets map[string]string) (clustermap.Site, error) {
	entry, err := s.Clusters.Cluster(id)
	if err != nil {
		return clustermap.Site{}, err
	}
	credentials, err := credentialsOf(secrets)
	if len(secrets) == 0 {
		credentials, err = s.Clusters.Credentials(id)
	}
	if err != nil {
		return clustermap.Site{}, err
	}
	cluster, err := s.Dialer.Dial(ctx, entry.Endpoint(), credentials)
	if err != nil {
		return clustermap.Site{}, err
	}
	return clustermap.Site{Cluster: cluster, Entry: entry, Keys: s.KMS.Keyring(secrets)}, nil
}

// credentialsOf reads the names that ceph-csi uses: userID and userKey, for CephFS
// also adminID and adminKey.
func credentialsOf(secrets map[string]string) (ceph.Credentials, error) {
	for _, names := range [][2]string{{"userID", "userKey"}, {"adminID", "adminKey"}} {
		if secrets[names[0]] != "" && secrets[names[1]] != "" {
			return ceph.Credentials{User: secrets[names[0]], Key: storage.NewSecret(secrets[names[1]])}, nil
		}
	}
	return ceph.Credentials{}, fault.New(fault.Denied, "the secret holds neither userID and userKey nor adminID and adminKey")
}

// store returns the records of this driver's volumes on the site, snapshots those of its
// snapshots. Clusters that are shared by RADOS namespace keep a set of records for each.
func (s *Server) store(site clustermap.Site) *record.Store {
	return s.evicting(site, record.NewStore(site.Cluster.Objects(record.Pool, s.namespace(site)), s.Owner))
}

func (s *Server) snapshots(site clustermap.Site) *record.Store {
	return s.evicting(site, record.NewStore(site.Cluster.Objects(record.Pool, s.namespace(site)+":snapshots"), s.Owner))
}

// evicting makes an RBD store cut off a controller that lost its lease before the work goes on without it.
// CephFS's work is the manager's, which asks nobody's blocklist.
func (s *Server) evicting(site clustermap.Site, store *record.Store) *record.Store {
	if s.Backend.Driver() != storage.RBD {
		return store
	}
	return store.Evicting(func(ctx context.Context, client ceph.ClientAddress) error {
		return s.evictions.once(string(site.Entry.ID)+" "+string(client), s.Now(), func() error {
			err := record.Evict(ctx, site.Cluster, client)
			if err == nil {
				s.Log.Info("a controller lost its lease and was cut off", obs.KeyDriver, s.Backend.Driver(), "client", client)
			}
			return err
		})
	})
}

func (s *Server) namespace(site clustermap.Site) string {
	namespace := "rbd"
	if s.Backend.Driver() == storage.CephFS {
		namespace = "cephfs"
	}
	if site.Entry.RadosNamespace != "" {
		namespace += "." + site.Entry.RadosNamespace
	}
	return namespace
}

// handle parses the id of a volume or snapshot of this driver: fault.Invalid when it is
// empty, fault.NotFound when it names nothing of it.
func (s *Server) handle(id string) (volumeid.Handle, error) {
	if id == "" {
		return volumeid.Handle{}, fault.New(fault.Invalid, "the id is missing")
	}
	h, err := volumeid.Parse(id)
	if err != nil {
		return s.foreign(id, err)
	}
	if h.Driver != s.Backend.Driver() {
		return h, fault.New(fault.NotFound, "%s belongs to the driver %s, this is %s", id, h.Driver, s.Backend.Driver())
	}
	return h, nil
}

// find reads a volume's record without its lease: fault.NotFound unless the volume is
// there in the handle's incarnation.
func (s *Server) find(ctx context.Context, h volumeid.Handle, secrets map[string]string) (clustermap.Site, *record.Record, error) {
	site, err := s.connect(ctx, h.Cluster, secrets)
	if err != nil {
		return clustermap.Site{}, nil, err
	}
	r, err := s.look(ctx, site, record.KindVolume, h)
	if err != nil {
		return clustermap.Site{}, nil, err
	}
	return site, r, isOf(r, h)
}

// isOf reports whether the record is the handle's: two entries of the cluster map may lead
// to one Ceph cluster, and a name may have had a volume or snapshot before.
func isOf(r *record.Record, h volumeid.Handle) error {
	if r.Incarnation != h.Incarnation || !ofCluster(r, h.Cluster) {
		return fault.New(fault.NotFound, "%s %s is gone; its name %q belongs to another", r.Kind, h, r.Name)
	}
	return nil
}

func ofCluster(r *record.Record, id storage.ClusterID) bool {
	return r.Context["clusterID"] == string(id)
}

// edit runs fn on a ready volume's record under its lease, one at a time for each
// name, and on a context that outlives the caller's.
func edit[T any](ctx context.Context, s *Server, h volumeid.Handle, secrets map[string]string, fn func(context.Context, clustermap.Site, *record.Held) (T, error)) (T, error) {
	return flight.Do(ctx, s.flights, h.NameHash, func(ctx context.Context) (T, error) {
		var zero T
		site, err := s.connect(ctx, h.Cluster, secrets)
		if err != nil {
			return zero, err
		}
		work, held, err := s.hold(ctx, site, record.KindVolume, h, false)
		if err != nil {
			return zero, err
		}
		defer held.Release(ctx)
		if err := isOf(held.Record, h); err != nil {
			return zero, err
		}
		if held.Record.State != record.Ready {
			return zero, fault.New(fault.NotFound, "volume %s is %s", h, held.Record.State)
		}
		result, err := fn(work, site, held)
		return result, held.Outcome(err)
	})
}

func (s *Server) log(r *record.Record) *slog.Logger {
	return s.Log.With(obs.KeyDriver, r.Driver, obs.KeyName, r.Name, obs.KeyVolume, r.BackendName())
}
