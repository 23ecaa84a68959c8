// Package storage holds the values that all of Holdfast speaks of: sizes, ids,
// volumes. Named types keep a pool's name from passing for a volume's. It imports
// the standard library only.
package storage

// ClusterID names a Ceph cluster in the cluster map; at most 40 bytes of letters,
// digits, '-' and '_' (it is a part of every volume handle).
type ClusterID string

// NodeID is what a node calls itself towards CSI; at most 192 bytes.
type NodeID string

// Driver is one of the two CSI drivers.
type Driver string

// The drivers, by the names that Kubernetes knows them under.
const (
	RBD    Driver = "rbd.csi.holdfast.io"
	CephFS Driver = "cephfs.csi.holdfast.io"
)

// Secret is a Ceph key or another value that must never be printed: every way of
// formatting it gives "[secret]". Reveal is the one way to read it.
type Secret struct{ value string }

// NewSecret wraps value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the value itself.
func (s Secret) Reveal() string { return s.value }

// String, GoString and MarshalText hide the value.
func (s Secret) String() string { return "[secret]" }

// GoString hides the value from %#v.
func (s Secret) GoString() string { return "[secret]" }

// MarshalText hides the value from encoders (slog's and JSON's among them).
func (s Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Condition is a volume's health in a sentence.
type Condition struct {
	Abnormal bool
	Message  string
}
