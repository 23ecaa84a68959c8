// Package ceph is the contract between Holdfast and a Ceph cluster: what is asked
// of it, in which words, and which errors come back. It has no cgo and talks to
// nobody. Package native implements it on go-ceph (and alone imports it); package
// cephtest holds a fake and the conformance suite that both pass.
//
// A pool that does not exist is fault.Precondition, never NotFound: that nothing is found
// in it says nothing about what was there.
//
// Every method takes a context. librados calls cannot be interrupted: when ctx ends
// first, the method returns ctx.Err() at once and the call runs out on its own,
// bounded by the cluster's operation timeouts. Errors carry a class of package fault.
package ceph

import (
	"context"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Endpoint says how a cluster is reached.
type Endpoint struct {
	ID       storage.ClusterID
	Monitors []string // "host:port", "v2:host:port" or "[v2:host:port,v1:host:port]"
}

// Credentials are a Ceph user ("admin", without "client.") and its key.
type Credentials struct {
	User string
	Key  storage.Secret
}

// Dialer connects to clusters.
type Dialer interface {
	// Dial returns a connection, shared with other callers of the same endpoint and
	// credentials. It fails with fault.Unavailable when no monitor answers in time
	// and with fault.Denied when the monitors refuse the credentials.
	Dial(ctx context.Context, to Endpoint, as Credentials) (Cluster, error)
}

// Cluster is a connection. It is safe for concurrent use; what it hands out
// (Objects, Images, Subvolumes) is cheap, needs no closing and lives as long as it.
type Cluster interface {
	// FSID returns the cluster's own id.
	FSID(ctx context.Context) (string, error)
	// Pools lists the pools with their capacity, sorted by name; Filesystems the CephFS
	// file systems. The answer may be a second old.
	Pools(ctx context.Context) ([]PoolInfo, error)
	Filesystems(ctx context.Context) ([]Filesystem, error)
	// Mon sends a monitor command (the JSON object that `ceph` would send, "format":
	// "json" added) and Mgr one for the manager; they return the output buffer.
	Mon(ctx context.Context, cmd map[string]any, input []byte) ([]byte, error)
	Mgr(ctx context.Context, cmd map[string]any, input []byte) ([]byte, error)

	Objects(pool, namespace string) Objects
	Images(pool, namespace string) Images
	Subvolumes(filesystem, group string) Subvolumes
}

// PoolInfo is a pool as `ceph df` and the OSD map know it.
type PoolInfo struct {
	ID           int64
	Name         string
	Stored       storage.Bytes // before replication
	MaxAvail     storage.Bytes // what can still be written, before replication
	Size         int           // replicas (or k+m)
	MinSize      int
	PGs          int
	Full         bool // writes are refused: pool full, or the cluster
	Applications []string
}

// Filesystem is a CephFS file system and its pools.
type Filesystem struct {
	ID           int64
	Name         string
	MetadataPool string
	DataPools    []string // the first is the default
}

// Lease is a lock with an end, held on an object by the client that knows Cookie.
type Lease struct {
	Name        string // of the lock; an object can carry several
	Cookie      string // unique to the holder
	Description string // for people: who holds it
	TTL         time.Duration
}

// Objects are the RADOS objects of one pool and namespace. A small object is read
// and written whole, and is never empty (fault.Invalid). Every write is made under a lease, which the OSD checks in the
// same atomic operation: a holder that lost its lease cannot write.
type Objects interface {
	// CreateLocked makes an object with data, already locked. fault.Exists if it is there.
	CreateLocked(ctx context.Context, name string, data []byte, lease Lease) error
	// Lock takes a lease on an existing object: fault.NotFound without the object,
	// fault.Busy while somebody else holds it. See Keep for its renewal.
	Lock(ctx context.Context, name string, lease Lease) error
	// Renew makes a lease that is still held begin anew: fault.Aborted when it ran out
	// (even if nobody took it: somebody may have had it in between) or the object is gone.
	Renew(ctx context.Context, name string, lease Lease) error
	// Unlock lets go. fault.NotFound when lock or object are gone.
	Unlock(ctx context.Context, name string, lease Lease) error
	// Read returns the whole object.
	Read(ctx context.Context, name string) ([]byte, error)
	// WriteLocked replaces the object, RemoveLocked deletes it: fault.Aborted when
	// the lease is no longer held, fault.NotFound when the object is gone.
	WriteLocked(ctx context.Context, name string, data []byte, lease Lease) error
	RemoveLocked(ctx context.Context, name string, lease Lease) error
	// List returns all names, sorted.
	List(ctx context.Context) ([]string, error)
}

// ImageSpec describes an RBD image to be made. Zero values mean the cluster's defaults.
type ImageSpec struct {
	Size        storage.Bytes
	DataPool    string
	Features    []string // as `rbd create --image-feature` names them
	ObjectSize  storage.Bytes
	StripeUnit  storage.Bytes
	StripeCount uint64
	Metadata    map[string]string
}

// ImageInfo is an image's state.
type ImageInfo struct {
	ID       string // Ceph's internal id; its header object is "rbd_header."+ID
	Size     storage.Bytes
	Features []string
	DataPool int64 // id of the pool that holds the data
}

// Watcher is a client that has the image open.
type Watcher struct {
	Address string // "10.0.0.1:0/123456"
	Client  int64
}

// Images are the RBD images of one pool and RADOS namespace.
type Images interface {
	// Create fails with fault.Exists and fault.Invalid (a feature or a size that Ceph
	// refuses).
	Create(ctx context.Context, name string, spec ImageSpec) error
	Info(ctx context.Context, name string) (ImageInfo, error)
	Resize(ctx context.Context, name string, size storage.Bytes) error
	// Remove deletes an image: fault.Busy while a client watches it or it has snapshots.
	Remove(ctx context.Context, name string) error
	// Watchers lists the clients that have the image open, other than this connection.
	Watchers(ctx context.Context, name string) ([]Watcher, error)
	Metadata(ctx context.Context, name string) (map[string]string, error)
	SetMetadata(ctx context.Context, name string, pairs map[string]string) error
	List(ctx context.Context) ([]string, error)
}

// SubvolumeSpec describes a CephFS subvolume to be made.
type SubvolumeSpec struct {
	Size     storage.Bytes // the quota
	DataPool string        // empty: the file system's default
	Mode     uint32        // of the root directory
}

// SubvolumeInfo is a subvolume's state.
type SubvolumeInfo struct {
	Path     string        // from the file system's root
	Quota    storage.Bytes // 0: none
	Used     storage.Bytes
	DataPool string
	State    string // "complete" when usable
}

// Subvolumes are the CephFS subvolumes of one file system and group.
type Subvolumes interface {
	// Create makes a subvolume, and its group where that is missing. One that is
	// there already is left as it is (Ceph's own behaviour).
	Create(ctx context.Context, name string, spec SubvolumeSpec) error
	Info(ctx context.Context, name string) (SubvolumeInfo, error)
	// Resize sets the quota and refuses to go below the old one (fault.Range).
	Resize(ctx context.Context, name string, size storage.Bytes) error
	// Remove deletes a subvolume: fault.Busy while it has snapshots. Clients that have it
	// mounted do not hinder it.
	Remove(ctx context.Context, name string) error
	List(ctx context.Context) ([]string, error)
}
