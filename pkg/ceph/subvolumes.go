package ceph

import (
	"context"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

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
	State    string // "complete" when usable, SubvolumeRetained
}

// SubvolumeRetained is the state of a subvolume of which only the snapshots are left.
const SubvolumeRetained = "snapshot-retained"

// SubvolumeSnapshot names a snapshot of a subvolume of the same file system and group.
type SubvolumeSnapshot struct {
	Subvolume, Snapshot string
}

// CloneState is how far the copy of a snapshot into a new subvolume has come.
type CloneState string

// The states of a copy. From the last three it does not move on.
const (
	ClonePending    CloneState = "pending"
	CloneInProgress CloneState = "in-progress"
	CloneComplete   CloneState = "complete"
	CloneFailed     CloneState = "failed"
	CloneCanceled   CloneState = "canceled"
)

// CloneStatus is the state of a copy.
type CloneStatus struct {
	State   CloneState
	Percent int    // done; -1 where the cluster does not tell (before Squid)
	Reason  string // why it failed
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

	// Retire removes a subvolume but for its snapshots, with the last of which the rest
	// goes; without any it is removed at once.
	Retire(ctx context.Context, name string) error
	// CreateSnapshot fails with fault.Exists if there is a snapshot of that name.
	CreateSnapshot(ctx context.Context, name, snapshot string) error
	// RemoveSnapshot fails with fault.Busy while the snapshot is copied into clones. With the last
	// snapshot of a retired subvolume the subvolume goes.
	RemoveSnapshot(ctx context.Context, name, snapshot string) error
	Snapshots(ctx context.Context, name string) ([]string, error)
	// Clone begins to copy a snapshot into a new subvolume with the quota that the snapshot had; of
	// spec only DataPool counts. It returns before the copy is done: see CloneStatus. fault.Exists
	// if the name is taken.
	Clone(ctx context.Context, name string, from SubvolumeSnapshot, spec SubvolumeSpec) error
	// CloneStatus tells how far it is; a subvolume that is no clone is CloneComplete.
	CloneStatus(ctx context.Context, name string) (CloneStatus, error)
	// CancelClone ends a copy under way; what was copied is left to Remove.
	CancelClone(ctx context.Context, name string) error
}
