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

// SubvolumeInfo is a subvolume's state. Of one that cannot be used (yet, or any more) it
// has State alone.
type SubvolumeInfo struct {
	Path     string        // from the file system's root
	Quota    storage.Bytes // 0: none
	Used     storage.Bytes
	DataPool string
	State    string // "complete" when usable; SubvolumeRetained, or another CloneState
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

// Running tells that the copy is still to be made or under way.
func (s CloneState) Running() bool { return s == ClonePending || s == CloneInProgress }

// CloneStatus is the state of a copy.
type CloneStatus struct {
	State   CloneState
	Percent int    // done; -1 where the cluster does not tell (before Squid)
	Reason  string // why it failed
}

// Subvolumes are the CephFS subvolumes of one file system and group.
type Subvolumes interface {
	// Create makes a subvolume, and its group where that is missing. One that is
	// there already gets the quota and the mode asked for, and no error (Ceph's own behaviour). The name
	// of a retired one must not be used again: Ceph would put the new one beside the old snapshots.
	Create(ctx context.Context, name string, spec SubvolumeSpec) error
	Info(ctx context.Context, name string) (SubvolumeInfo, error)
	// Resize sets the quota and refuses to go below the old one (fault.Range), that is: below the one that it finds when it
	// begins. What another sets meanwhile it overwrites.
	Resize(ctx context.Context, name string, size storage.Bytes) error
	// Remove deletes a subvolume: fault.Busy while it has snapshots or is copied into.
	// Clients that have it mounted do not hinder it.
	Remove(ctx context.Context, name string) error
	List(ctx context.Context) ([]string, error)

	// Retire removes a subvolume but for its snapshots, with the last of which the rest
	// goes; without any it is removed at once.
	Retire(ctx context.Context, name string) error
	// CreateSnapshot fails with fault.Exists if there is a snapshot of that name.
	CreateSnapshot(ctx context.Context, name, snapshot string) error
	// RemoveSnapshot fails with fault.Busy while the snapshot is copied into clones. With the last
	// snapshot of a retired subvolume the subvolume goes, at once or when what it held is purged; if
	// that was cut off, another call (or Remove) finishes it, whatever the snapshot it names.
	RemoveSnapshot(ctx context.Context, name, snapshot string) error
	Snapshots(ctx context.Context, name string) ([]string, error)
	// Clone begins to copy a snapshot, which may be of a retired subvolume, into a new one with the
	// quota that the snapshot had; of spec only DataPool counts. It returns before the copy is done: see
	// CloneStatus. fault.Exists if the name is taken, also by what is left of another copy.
	Clone(ctx context.Context, name string, from SubvolumeSnapshot, spec SubvolumeSpec) error
	// CloneStatus tells how far it is; a subvolume that is no clone is CloneComplete, a clone
	// that was retired fault.NotFound.
	CloneStatus(ctx context.Context, name string) (CloneStatus, error)
	// CancelClone ends a copy under way (else fault.Precondition); what was copied is left
	// to Remove.
	CancelClone(ctx context.Context, name string) error
}
