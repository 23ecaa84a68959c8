// Package record keeps one self-describing RADOS object for each CSI name (volume or
// snapshot) in the pool ".holdfast". The object is made before
// anything it describes and removed after all of it, so a crash leaves a record that
// says what was begun: the same call finishes it, a delete undoes it. Work on a name
// holds a lease on its record, and every write is checked against that lease by the
// OSD: of two controllers alive at once, the one that lost the lease cannot write.
package record

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"github.com/holdfast-storage/holdfast/csi/journal"
	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/csi/topology"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Pool is the pool that holds the records.
const Pool = ".holdfast"

// State is how far a volume or snapshot has come.
type State string

// The states, in the order of a life.
const (
	Creating State = "creating" // begun; the backend may have nothing, a part or all of it
	Ready    State = "ready"
	Deleting State = "deleting" // the backend may still have all, a part or nothing of it
)

// Kinds of what a record describes.
const (
	KindVolume   = "volume"
	KindSnapshot = "snapshot"
)

// Record describes a volume or a snapshot.
type Record struct {
	Version     int            `json:"version"` // 1
	Kind        string         `json:"kind"`
	Driver      storage.Driver `json:"driver"`
	Name        string         `json:"name"` // the CSI name
	Incarnation string         `json:"incarnation"`
	// Abandoned are incarnations that were begun under this record and given up; what is left of
	// them is to be removed. None of them was ever Ready.
	Abandoned  []string          `json:"abandoned,omitempty"`
	State      State             `json:"state"`
	PoolID     int64             `json:"poolID"` // of the handle: pool (RBD) or file system (CephFS)
	Size       storage.Bytes     `json:"size"`
	Block      bool              `json:"block"`            // raw block, not a file system
	FsType     string            `json:"fsType,omitempty"` // that was asked for; RBD
	Group      string            `json:"group,omitempty"`  // the subvolume group; CephFS
	Parameters map[string]string `json:"parameters"`       // of the StorageClass
	Context    map[string]string `json:"context"`          // volumeid.Context; what the backend learnt is added when Ready
	Owner      map[string]string `json:"owner,omitempty"`
	Created    time.Time         `json:"created"`
	// Origin is what a volume was made from, nil for an empty one, and what a snapshot was taken of.
	Origin *Origin `json:"origin,omitempty"`
	// Depth bounds from above how many parents the image has above it: 0 for one of its own, for a
	// snapshot that of its volume when it was taken. RBD.
	Depth int `json:"depth,omitempty"`
	// Flatten: the clone is to be made independent of its parent in the background. RBD.
	Flatten bool `json:"flatten,omitempty"`
	// Encryption is the volume's own key, wrapped; nil without encryption. RBD.
	Encryption *kms.Wrapped `json:"encryption,omitempty"`
	// ReadOnly: the volume shows the snapshot itself, without a copy, and can only be read. CephFS.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Users are the incarnations of the read-only volumes that show a snapshot.
	Users []string `json:"users,omitempty"`
	// Published are the nodes that ControllerPublishVolume let have the volume.
	Published map[storage.NodeID]Publication `json:"published,omitempty"`
	// Fences are the nodes that were cut off because they did not let go of the volume.
	Fences map[storage.NodeID]Fence `json:"fences,omitempty"`
	// Foreign is what ceph-csi's journal says of a volume or snapshot that it made; nil for
	// Holdfast's own. Such a record is made when the volume is first used, and tells what
	// ceph-csi has no place for.
	Foreign *journal.Entry `json:"foreign,omitempty"`
	// Place is where the volume was put, if the parameters name pools by topology; Places
	// are those that come into question while it is made.
	Place  *topology.Place  `json:"place,omitempty"`
	Places []topology.Place `json:"-"`
	// Resumed: an earlier call began to make it under this incarnation, and may not have come to its end.
	Resumed bool `json:"-"`
}

// Origin names the source of a volume or snapshot, which may be gone by now.
type Origin struct {
	Kind   string `json:"kind"`           // KindVolume or KindSnapshot
	Handle string `json:"handle"`         // of the source
	Volume string `json:"volume"`         // handle of the volume that the data is of: of a snapshot, what it was taken of
	Path   string `json:"path,omitempty"` // of the snapshot's files, from the file system's root. CephFS
	// Backend is the image or subvolume that Volume is, and Snapshot the snapshot of it that the data
	// comes from, where ceph-csi named them; "" where the handles tell.
	Backend  string `json:"backend,omitempty"`
	Snapshot string `json:"snapshot,omitempty"`
}

// Place returns the handle of the volume that the data is of, and what its image or subvolume is called
// while it lives.
func (o *Origin) Place(driver storage.Driver) (volumeid.Handle, string, error) {
	h, err := volumeid.Parse(o.Volume)
	if err != nil {
		f, notForeign := volumeid.ParseForeign(o.Volume)
		if notForeign != nil || o.Backend == "" {
			return h, "", err
		}
		h = f.Handle(driver, "")
	}
	return h, cmp.Or(o.Backend, volumeid.BackendName(h.Incarnation)), nil
}

// Source names kind and handle, for comparison and for people; "nothing" without an origin.
func (o *Origin) Source() string {
	if o == nil {
		return "nothing"
	}
	return o.Kind + " " + o.Handle
}

// Publication is how one node has the volume.
type Publication struct {
	Mode     string    `json:"mode"` // CSI access mode
	ReadOnly bool      `json:"readOnly,omitempty"`
	Since    time.Time `json:"since"`
}

// Handle returns the handle on cluster.
func (r *Record) Handle(cluster storage.ClusterID) volumeid.Handle {
	if r.Foreign != nil {
		f, _ := volumeid.ParseForeign(r.Foreign.Handle) // it was parsed when the record was made
		return f.Handle(r.Driver, cluster)
	}
	return volumeid.Handle{
		Driver: r.Driver, Cluster: cluster, Pool: r.PoolID,
		NameHash: volumeid.Hash(r.Driver, r.Kind, r.Name), Incarnation: r.Incarnation,
	}
}

// BackendName is what the image, subvolume or snapshot is called.
func (r *Record) BackendName() string {
	if r.Foreign != nil {
		return r.Foreign.Image
	}
	return volumeid.BackendName(r.Incarnation)
}

// ErrUnsure says of what a cut off call left that it may not be whole. It must not be removed and
// made again under its name: a controller that stood still between the two, for longer than
// its lease, would remove what another made there since.
var ErrUnsure = fault.New(fault.Aborted, "an earlier call was cut off and may have left something that is not whole; ask again")

// Abandon gives a record that is Creating a new incarnation. Once that is saved nobody can
// bring the old one to Ready any more, so what is left of it can be removed at any time.
func (r *Record) Abandon(incarnation string) {
	r.Abandoned = append(r.Abandoned, r.Incarnation)
	old := r.BackendName()
	r.Incarnation, r.Resumed = incarnation, false
	r.Context = maps.Clone(r.Context)
	for key, value := range r.Context {
		if value == old {
			r.Context[key] = r.BackendName()
		}
	}
}

// SourceSnapshot is the name of the snapshot that a volume with an Origin is copied from: the
// origin itself, or one that is taken of the origin for this copy alone.
func (r *Record) SourceSnapshot() string {
	if r.Origin.Kind == KindVolume {
		return r.BackendName()
	}
	if r.Origin.Snapshot != "" {
		return r.Origin.Snapshot
	}
	h, _ := volumeid.Parse(r.Origin.Handle) // the controller has parsed it
	return volumeid.BackendName(h.Incarnation)
}

// granule is what a record's length is a multiple of, in bytes. A full pool refuses
// writes that make an object longer (Ceph: PrimaryLogPG, "full try"); one that only
// changes the state must pass, so that volumes of a full cluster can be deleted.
const granule = 1024

// encode returns r as JSON, filled up with spaces.
func encode(r *Record) ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	missing := (granule - len(data)%granule) % granule
	return append(data, bytes.Repeat([]byte(" "), missing)...), nil
}

// errDamaged is in the chain of what decode refuses.
var errDamaged = errors.New("record cannot be read")

// decode reads a record and refuses what a newer Holdfast wrote.
func decode(key string, data []byte) (*Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fault.New(fault.Precondition, "record %s: %w: %w", key, errDamaged, err)
	}
	if r.Version != 1 {
		return nil, fault.New(fault.Precondition, "record %s: %w: it has version %d, this Holdfast knows version 1", key, errDamaged, r.Version)
	}
	return &r, nil
}
