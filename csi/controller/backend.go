package controller

import (
	"context"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Backend is how one driver keeps volumes. Its methods are idempotent: each is asked
// again after a crash, with the same record.
type Backend interface {
	Driver() storage.Driver

	// Check validates StorageClass parameters without a cluster: fault.Invalid naming
	// the parameter, its value and what is allowed.
	Check(parameters map[string]string) error

	// Round returns the size that a volume of at least size bytes will have.
	Round(size storage.Bytes) storage.Bytes

	// Plan fills in what the record of a new volume must say before anything is made:
	// PoolID and Context. fault.Invalid for a pool or file system that is not there,
	// fault.Exhausted for a full one.
	Plan(ctx context.Context, site clustermap.Site, r *record.Record) error

	// Create makes what the record describes, or finishes it, and completes r.Context.
	Create(ctx context.Context, site clustermap.Site, r *record.Record) error

	// Delete removes what the record describes. What is gone already is no error, but that
	// the place where it was cannot be looked at is one. fault.Busy, having removed
	// nothing, while clients or snapshots keep it.
	Delete(ctx context.Context, site clustermap.Site, r *record.Record) error

	// Expand grows the volume to at least size bytes. onNode says whether the node has
	// a part to do.
	Expand(ctx context.Context, site clustermap.Site, r *record.Record, size storage.Bytes) (onNode bool, err error)

	// Present looks whether what the records describe is there, cheaply, for many.
	Present(ctx context.Context, site clustermap.Site, records []*record.Record) ([]bool, error)

	// Condition looks at one volume itself.
	Condition(ctx context.Context, site clustermap.Site, r *record.Record) (storage.Condition, error)

	// Capacity returns how much can still be provisioned with the parameters, in bytes
	// of user data (replication taken off).
	Capacity(ctx context.Context, site clustermap.Site, parameters map[string]string) (storage.Bytes, error)
}
