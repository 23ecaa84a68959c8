package record

import (
	"time"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Holding is a thing on the cluster that bears one of Holdfast's names, found there and not in
// the records.
type Holding struct {
	Kind        string    // one of the below
	Name        string    // that it bears
	Incarnation string    // in that name: of the volume or snapshot whose record knows of it
	Of          string    // what the image or subvolume is called that a snapshot is of
	Location    Location  // where it is
	ID          string    // in the trash
	Since       time.Time // when it was moved to the trash
	// Looked tells that what follows was looked at (Backend.Look).
	Looked  bool
	Gone    bool // it is not there any more
	Kept    bool // only for its snapshots, of a volume that was deleted
	Broken  bool // it is listed and cannot be opened
	Size    storage.Bytes
	Clients []string // that have it open
}

// Kinds of holdings.
const (
	HoldingVolume   = "volume"   // an image or subvolume
	HoldingSnapshot = "snapshot" // of one
	HoldingTrash    = "trash"    // an image in the trash
)

// Location is where holdings can be: a pool and a RADOS namespace, or a file system and a group.
type Location struct {
	ID    int64 // of the pool or file system, as in handles
	Name  string
	Inner string // namespace or group, "" for none
}

// String is POOL, POOL/NAMESPACE or FILESYSTEM/GROUP.
func (p Location) String() string {
	if p.Inner == "" {
		return p.Name
	}
	return p.Name + "/" + p.Inner
}

// Holdings are all that a look at a cluster found.
type Holdings struct {
	List      []Holding
	Locations []Location // that were looked through
	Refused   []string   // pools and file systems that this user may not look into
}
