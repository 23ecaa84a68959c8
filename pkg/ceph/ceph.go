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
// (Objects, Images, Subvolumes, ...) is cheap, needs no closing and lives as long as it.
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
	Notes(pool, namespace string) Notes
	Omaps(pool, namespace string) Omaps
	Fencer
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
