// Package imageio writes disks into RBD images and reads them out, chunk by chunk, for a person's tools: import and export. A
// session belongs to a caller that is there; what outlives it is in the image's metadata: how far an import came. An image gets its
// name when it is whole. It knows no formats, and no volumes but where their image is.
package imageio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Clusters is the map of clusters and the own credentials for them.
type Clusters interface {
	Cluster(id storage.ClusterID) (clustermap.Cluster, error)
	Clusters() ([]clustermap.Cluster, error)
	Credentials(id storage.ClusterID) (ceph.Credentials, error)
}

// Server holds the sessions of a process.
type Server struct {
	dialer   ceph.Dialer
	clusters Clusters

	mu       sync.Mutex
	sessions map[string]*session
	taken    map[string]*session // by the place of the image that is written
}

// New returns a Server without sessions.
func New(dialer ceph.Dialer, clusters Clusters) *Server {
	return &Server{dialer: dialer, clusters: clusters, sessions: map[string]*session{}, taken: map[string]*session{}}
}

// place is where an image is.
type place struct {
	images          ceph.Images
	pool, namespace string
	name            string
	volume          bool // it is a volume's, which has its name from the beginning
}

func (p place) String() string {
	return volumeapi.ImageName{Pool: p.pool, Namespace: p.namespace, Image: p.name}.String()
}

// partial is where an image is filled.
func (p place) partial() string {
	if p.volume {
		return p.name
	}
	return p.name + ".partial"
}

// find connects to the cluster of an image.
func (s *Server) find(ctx context.Context, name volumeapi.ImageName) (place, error) {
	var h volumeid.Handle
	if name.Volume != "" {
		var err error
		if h, err = volumeid.Parse(name.Volume); err != nil {
			return place{}, err
		}
		if h.Driver != storage.RBD {
			return place{}, fault.New(fault.Invalid, "volume %s is a shared file system, and no disk", name.Volume)
		}
		name.Cluster = h.Cluster
	}
	entry, err := s.cluster(name.Cluster)
	if err != nil {
		return place{}, err
	}
	credentials, err := s.clusters.Credentials(entry.ID)
	if err != nil {
		return place{}, err
	}
	conn, err := s.dialer.Dial(ctx, entry.Endpoint(), credentials)
	if err != nil {
		return place{}, err
	}
	if name.Volume == "" {
		if name.Pool == "" || name.Image == "" {
			return place{}, fault.New(fault.Invalid, "pool and image are missing")
		}
		return place{images: conn.Images(name.Pool, name.Namespace), pool: name.Pool, namespace: name.Namespace, name: name.Image}, nil
	}
	pools, err := conn.Pools(ctx)
	if err != nil {
		return place{}, err
	}
	for _, p := range pools {
		if p.ID == h.Pool {
			return place{images: conn.Images(p.Name, entry.RadosNamespace), pool: p.Name, namespace: entry.RadosNamespace, name: volumeid.BackendName(h.Incarnation), volume: true}, nil
		}
	}
	return place{}, fault.New(fault.Precondition, "the pool %d of volume %s does not exist on this cluster", h.Pool, name.Volume)
}

func (s *Server) cluster(id storage.ClusterID) (clustermap.Cluster, error) {
	if id != "" {
		return s.clusters.Cluster(id)
	}
	list, err := s.clusters.Clusters()
	if err == nil && len(list) != 1 {
		err = fault.New(fault.Invalid, "there are %d clusters in the map: name one", len(list))
	}
	if err != nil {
		return clustermap.Cluster{}, err
	}
	return list[0], nil
}

// session is an image that is open for a caller.
type session struct {
	place
	id       string
	opened   string           // the image that is open
	state    volumeapi.Import // of an import
	request  volumeapi.ImportRequest
	snapshot string // of an export: what is read
	taken    bool   // the snapshot is this export's own
	size     int64

	mu   sync.Mutex
	open ceph.OpenImage // nil: not yet, or not any more

	calls sync.WaitGroup // under way; added to under the server's mutex while the session is known
	ended chan struct{}
}

// image is what is open.
func (n *session) image() (ceph.OpenImage, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open == nil {
		return nil, fault.New(fault.Precondition, "the session is finished")
	}
	return n.open, nil
}

func (n *session) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open == nil {
		return nil
	}
	closing := n.open
	n.open = nil
	return closing.Close()
}

// begin makes a session known. Of two that write one image the second waits for a moment: the caller of the first may have
// died just now.
func (s *Server) begin(ctx context.Context, made *session, exclusive string) error {
	made.id, made.ended = rand.Text(), make(chan struct{})
	for {
		s.mu.Lock()
		other := s.taken[exclusive]
		if exclusive == "" || other == nil {
			s.sessions[made.id] = made
			if exclusive != "" {
				s.taken[exclusive] = made
			}
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-other.ended:
		case <-time.After(5 * time.Second):
			return fault.New(fault.Busy, "another import fills %s at this moment", made.place)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// End ends a session when its calls have: what was not finished stays as it is.
func (s *Server) End(id string) error {
	s.mu.Lock()
	ending, ok := s.sessions[id]
	delete(s.sessions, id)
	s.mu.Unlock()
	if !ok {
		return nil
	}
	ending.calls.Wait()
	err := ending.close()
	s.mu.Lock()
	for name, holder := range s.taken {
		if holder == ending {
			delete(s.taken, name)
		}
	}
	s.mu.Unlock()
	close(ending.ended)
	return err
}

// with runs fn on a session.
func (s *Server) with(id string, fn func(*session) error) error {
	s.mu.Lock()
	found, ok := s.sessions[id]
	if ok {
		found.calls.Add(1)
	}
	s.mu.Unlock()
	if !ok {
		// Unavailable: the caller begins another one, and goes on.
		return fault.New(fault.Unavailable, "the session is over: begin another")
	}
	defer found.calls.Done()
	return fn(found)
}

// Look tells what there is under a name.
func (s *Server) Look(ctx context.Context, name volumeapi.ImageName) (volumeapi.ImageLook, error) {
	var look volumeapi.ImageLook
	p, err := s.find(ctx, name)
	if err != nil {
		return look, err
	}
	info, err := p.images.Info(ctx, p.name)
	switch {
	case errors.Is(err, fault.NotFound):
	case err != nil:
		return look, err
	default:
		look.Exists, look.Bytes = true, info.Size
		watchers, err := p.images.Watchers(ctx, p.name)
		if err != nil {
			return look, err
		}
		look.Used = len(watchers) > 0
		if look.Import, err = readState(ctx, p.images, p.name); err != nil {
			return look, err
		}
	}
	if p.volume && look.Exists && look.Import == nil {
		look.Empty, err = empty(ctx, p.images, p.name)
	}
	if !p.volume {
		look.Partial, err = readState(ctx, p.images, p.partial())
		if errors.Is(err, fault.NotFound) {
			err = nil
		}
	}
	return look, err
}

// sized refuses what is not within a session's disk.
func (n *session) sized(offset int64, length int) error {
	if offset < 0 || length < 0 || length > volumeapi.ImageChunkLimit || offset > n.size-int64(length) {
		return fault.New(fault.Range, "%d bytes at offset %d are not within the disk's %d, or more than go at once", length, offset, n.size)
	}
	return nil
}

func mismatch(what string, offset int64) error {
	return fault.New(fault.Aborted, "what %s at offset %d has another checksum than it should", what, offset)
}

// errNoImport is of an image that holds something, and no note of an import.
func errNoImport(p place) error {
	return fault.New(fault.Exists, "there is an image %s, which no import left: remove it or take another name", fmt.Sprint(place{pool: p.pool, namespace: p.namespace, name: p.partial()}))
}
