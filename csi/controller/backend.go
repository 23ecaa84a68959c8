package controller

import (
	"context"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
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

	// Create makes what the record describes, or finishes it, and completes r.Context. With
	// an Origin it holds what the source held; a copy that is still under way when ctx ends
	// goes on where it was.
	Create(ctx context.Context, site clustermap.Site, r *record.Record) error

	// Delete removes what the record describes from sight, and leaves to Reap what takes
	// long. What is gone already is no error, but that the place where it was cannot be
	// looked at is one. Snapshots, and volumes made from them, live on. fault.Busy, having
	// removed nothing, while clients keep it; journal.ErrUntouched, having removed nothing, when it could not
	// be made sure that this is what ceph-csi's journal names.
	Delete(ctx context.Context, site clustermap.Site, r *record.Record) error

	// Adopt returns the record of a volume or snapshot that ceph-csi made, as it is to be when that is first used,
	// and changes nothing: fault.NotFound when ceph-csi's journal has none of that handle, fault.Precondition for one
	// that cannot be adopted. Deleting is the state of one whose image is gone.
	Adopt(ctx context.Context, site clustermap.Site, kind string, h volumeid.Handle) (*record.Record, error)

	// Adoptable lists what ceph-csi's journal has: handles of volumes, under the cluster's first name.
	Adoptable(ctx context.Context, site clustermap.Site) ([]volumeid.Handle, error)

	// Expand grows the volume to at least size bytes. onNode says whether the node has
	// a part to do.
	Expand(ctx context.Context, site clustermap.Site, r *record.Record, size storage.Bytes) (onNode bool, err error)

	// Snapshot takes the snapshot that the record describes, of the volume that it names as
	// Origin, and completes r.Context; one that is there is the record's own. fault.NotFound when the
	// volume is gone, fault.Exhausted when it has as many snapshots as can be. crowded: there would be
	// fewer if volumes made from them had copies of their own (see Flatten).
	Snapshot(ctx context.Context, site clustermap.Site, r *record.Record) (crowded bool, err error)

	// DeleteSnapshot removes the snapshot; volumes made from it live on. What is gone already
	// is no error. fault.Busy, having removed nothing, while it is copied; journal.ErrUntouched as for Delete, and
	// while volumes of ceph-csi's show it.
	DeleteSnapshot(ctx context.Context, site clustermap.Site, r *record.Record) error

	// Flatten makes a volume independent of what it was made from. Cut off, it goes on
	// where it was when asked again. progress is told how far it is.
	Flatten(ctx context.Context, site clustermap.Site, r *record.Record, progress func(done, total uint64)) error

	// Reap frees what deleted volumes and snapshots left on the cluster: all that can be
	// freed now. deleted tells of an incarnation that its volume was deleted. more says
	// that something must wait for a client to let go.
	Reap(ctx context.Context, site clustermap.Site, deleted func(ctx context.Context, incarnation string) (bool, error)) (more bool, err error)

	// Present looks whether what the records describe is there, cheaply, for many.
	Present(ctx context.Context, site clustermap.Site, records []*record.Record) ([]bool, error)

	// Condition looks at one volume itself.
	Condition(ctx context.Context, site clustermap.Site, r *record.Record) (storage.Condition, error)

	// Capacity returns how much can still be provisioned with the parameters, in bytes
	// of user data (replication taken off).
	Capacity(ctx context.Context, site clustermap.Site, parameters map[string]string) (storage.Bytes, error)

	// Holdings lists all that bears one of Holdfast's names, wherever the site's user may look.
	Holdings(ctx context.Context, site clustermap.Site) (record.Holdings, error)

	// Look completes what is known of a holding.
	Look(ctx context.Context, site clustermap.Site, h *record.Holding) error

	// Discard removes a holding that no record knows of, as Delete and DeleteSnapshot would: fault.Busy,
	// having removed nothing, while clients have it. What is gone already is no error.
	Discard(ctx context.Context, site clustermap.Site, h record.Holding) error

	// Rewrap wraps the key of an encrypted volume or snapshot anew, and changes r accordingly:
	// fault.Precondition without encryption, fault.Denied when no passphrase opens it.
	Rewrap(ctx context.Context, site clustermap.Site, r *record.Record) error

	// Allocated is what a volume takes, in bytes before replication, what it shares with its source included.
	Allocated(ctx context.Context, site clustermap.Site, r *record.Record) (storage.Bytes, error)

	// Sparsify gives zeroed blocks of a volume back: fault.Unsupported where there can be none.
	Sparsify(ctx context.Context, site clustermap.Site, r *record.Record) error
}
