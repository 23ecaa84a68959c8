// Package handover is what the host tells the suite in the guest.
package handover

const (
	Variable = "HOLDFAST_UML_CLUSTER" // environment: path of a Cluster as JSON
	Keep     = "HOLDFAST_UML_KEEP"    // environment: a directory that outlives the guest
	Ready    = "ready to be killed"   // printed by TestPrepareCrash
)

// Cluster is how the guest reaches Ceph.
type Cluster struct {
	FSID        string
	Monitors    []string
	Provisioner User
	Node        User
}

// User is a Ceph user with its key.
type User struct{ User, Key string }
