// Package volumeapi is the contract between the CSI controller process and a person's
// tools: JSON over HTTP on a private unix socket, for what CSI has no calls for. It holds
// the values that go over the socket, a client, and nothing of the services. It is pure Go,
// so that the CLI can import it.
package volumeapi

import (
	"path/filepath"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Socket returns the path of the API of the single-machine cluster in dir.
func Socket(dir string) string { return filepath.Join(dir, "csi", "admin.sock") }

// Paths of the API.
const (
	PathRecords       = "/v1/records"        // GET: Inventory
	PathOrphans       = "/v1/orphans"        // GET: Orphans
	PathDeleteOrphans = "/v1/orphans/delete" // POST DeleteRequest: []Deletion
	PathSummary       = "/v1/summary"        // GET: Summary of both drivers
	PathPending       = "/v1/pending"        // GET ?name=: []Pending
	PathRewrap        = "/v1/rewrap"         // POST RewrapRequest: Rewrapped
	PathSparsify      = "/v1/sparsify"       // POST VolumeRequest: Reclaimed
	PathTrim          = "/v1/trim"           // POST VolumeRequest: Reclaimed
	PathAdoptable     = "/v1/adoptable"      // GET: Adoptables
)

// Inventory is every record that the controller keeps.
type Inventory struct {
	Records  []Record `json:"records"`
	Problems []string `json:"problems,omitempty"` // what could not be looked at
}

// Record is a volume or a snapshot, also one that is still being made or deleted.
type Record struct {
	Kind       string            `json:"kind"` // "volume" or "snapshot"
	Driver     storage.Driver    `json:"driver"`
	Cluster    storage.ClusterID `json:"cluster"`
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	State      string            `json:"state"` // "creating", "ready" or "deleting"
	Bytes      storage.Bytes     `json:"bytes"`
	Block      bool              `json:"block,omitempty"`
	Claim      *Claim            `json:"claim,omitempty"`
	Origin     *Origin           `json:"origin,omitempty"` // what a volume was made from, a snapshot taken of
	Nodes      []Node            `json:"nodes,omitempty"`
	Fences     []Fence           `json:"fences,omitempty"`
	Encryption string            `json:"encryption,omitempty"` // id of the KMS; "": not encrypted
	Created    time.Time         `json:"created"`
	Backend    string            `json:"backend"`           // the image, subvolume or snapshot as Ceph knows it
	Adopted    bool              `json:"adopted,omitempty"` // ceph-csi made it
	Work       *Work             `json:"work,omitempty"`
}

// Adoptables are the volumes of which ceph-csi's journals tell.
type Adoptables struct {
	Volumes  []Adoptable `json:"volumes"`
	Problems []string    `json:"problems,omitempty"` // what could not be looked at
}

// Adoptable is a volume that ceph-csi made.
type Adoptable struct {
	Driver  storage.Driver    `json:"driver"`
	Cluster storage.ClusterID `json:"cluster"`
	ID      string            `json:"id"` // ceph-csi's handle; its cluster id may be another name of the cluster
	Name    string            `json:"name,omitempty"`
	Bytes   storage.Bytes     `json:"bytes,omitempty"`
	Where   string            `json:"where,omitempty"`   // pool, or file system and group
	Backend string            `json:"backend,omitempty"` // the image or subvolume
	Adopted bool              `json:"adopted"`           // it has been used through Holdfast
	Refused string            `json:"refused,omitempty"` // why it cannot be adopted; "": it can
}

// Claim is what Kubernetes calls the volume or snapshot.
type Claim struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`   // of the PersistentVolumeClaim or VolumeSnapshot
	Volume    string `json:"volume,omitempty"` // of the PersistentVolume or VolumeSnapshotContent
}

// String is NAMESPACE/NAME.
func (c *Claim) String() string {
	switch {
	case c == nil || c.Name == "":
		return ""
	case c.Namespace == "":
		return c.Name
	}
	return c.Namespace + "/" + c.Name
}

// Origin is the source of a volume or snapshot.
type Origin struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // "" when it is gone
}

// String names the source for people.
func (o *Origin) String() string {
	switch {
	case o == nil:
		return ""
	case o.Name == "":
		return o.Kind + " that is gone"
	}
	return o.Kind + " " + o.Name
}

// Node is a node that has the volume.
type Node struct {
	ID       string    `json:"id"`
	Mode     string    `json:"mode"`
	ReadOnly bool      `json:"readOnly,omitempty"`
	Since    time.Time `json:"since"`
}

// Fence is a node that was cut off from the volume.
type Fence struct {
	Node    string    `json:"node"`
	Clients []string  `json:"clients"`
	Since   time.Time `json:"since"`
	By      string    `json:"by"`
}

// Work is what is under way, and who does it.
type Work struct {
	What    string    `json:"what"`              // "being made", "being copied: in-progress, 40 % done", ...
	Holder  string    `json:"holder,omitempty"`  // of the record's lease; "": nobody works on it now
	Touched time.Time `json:"touched,omitempty"` // when somebody last did
}

// Kinds of orphans.
const (
	OrphanImage     = "image"     // an RBD image without a record
	OrphanName      = "name"      // an RBD image that is listed and cannot be opened
	OrphanSubvolume = "subvolume" // a subvolume without a record
	OrphanSnapshot  = "snapshot"  // a snapshot without a record
	OrphanTrash     = "trash"     // an image in the trash that is not freed
	OrphanRecord    = "record"    // a record of something that is gone, or that nobody finishes
)

// OrphanKinds are all of them.
func OrphanKinds() []string {
	return []string{OrphanImage, OrphanName, OrphanSubvolume, OrphanSnapshot, OrphanTrash, OrphanRecord}
}

// Summary is what the last search for orphans found, which may be hours ago.
type Summary struct {
	At      time.Time      `json:"at"`      // zero: nobody has searched yet
	Orphans map[string]int `json:"orphans"` // by kind
}

// Total is how many there are.
func (s Summary) Total() int {
	total := 0
	for _, n := range s.Orphans {
		total += n
	}
	return total
}

// Orphans are what no volume or snapshot has a use for.
type Orphans struct {
	Orphans  []Orphan `json:"orphans"`
	Problems []string `json:"problems,omitempty"` // what could not be looked at
}

// Orphan is one of them.
type Orphan struct {
	ID      string            `json:"id"` // by which it is deleted; the same as long as it is there
	Kind    string            `json:"kind"`
	Driver  storage.Driver    `json:"driver"`
	Cluster storage.ClusterID `json:"cluster"`
	Name    string            `json:"name"`
	Where   string            `json:"where"` // pool and namespace, file system and group
	Bytes   storage.Bytes     `json:"bytes,omitempty"`
	Why     string            `json:"why"`               // why it is an orphan
	Effect  string            `json:"effect"`            // what deleting it does
	Kept    string            `json:"kept,omitempty"`    // why it cannot be deleted; "": it can
	Claim   *Claim            `json:"claim,omitempty"`   // of a record
	Touched time.Time         `json:"touched,omitempty"` // when it was last worked on, where that is known
}

// DeleteRequest names orphans to be deleted.
type DeleteRequest struct {
	IDs []string `json:"ids"`
}

// Deletion is the outcome for one orphan.
type Deletion struct {
	ID    string `json:"id"`
	Error string `json:"error,omitempty"` // why it is still there
}

// Pending says why a volume is not there, or not to be had.
type Pending struct {
	Name    string            `json:"name"`
	Driver  storage.Driver    `json:"driver,omitempty"`
	Cluster storage.ClusterID `json:"cluster,omitempty"`
	Kind    string            `json:"kind,omitempty"`
	State   string            `json:"state"` // of the record; "unknown" without one
	Claim   *Claim            `json:"claim,omitempty"`
	Reasons []Reason          `json:"reasons"`
}

// Reason is one thing that holds a volume up, and what to do about it.
type Reason struct {
	What string `json:"what"`
	Next string `json:"next,omitempty"`
}

// VolumeRequest names a volume by its id.
type VolumeRequest struct {
	ID string `json:"id"`
}

// RewrapRequest names an encrypted volume or snapshot, with the secrets that open it and
// those that are to open it.
type RewrapRequest struct {
	ID      string            `json:"id"`
	Secrets map[string]string `json:"secrets"`
}

// Rewrapped is what a rewrap did.
type Rewrapped struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	KMS  string `json:"kms"`
}

// Reclaimed is what was given back.
type Reclaimed struct {
	Name   string        `json:"name,omitempty"`
	How    string        `json:"how"`              // "trim" or "sparsify"
	Before storage.Bytes `json:"before,omitempty"` // allocated in the image, what it shares with its source included
	After  storage.Bytes `json:"after,omitempty"`
	// Trimmed is what the file system told its device to give back; it may hold none of it any more.
	Trimmed storage.Bytes `json:"trimmed,omitempty"`
}

// Failure is the body of an answer that is not 200.
type Failure struct {
	Class   string `json:"class"` // the text of a class of package fault
	Message string `json:"message"`
}
