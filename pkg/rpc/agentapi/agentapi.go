// Package agentapi is the contract between the agent of a node and whoever asks it: JSON over HTTP on a unix socket that
// only its own user can open. It holds the values that go over the socket and a client. It is pure Go, so that the CLI can
// import it.
package agentapi

import (
	"path/filepath"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Socket returns the path of the API of the agent whose data lies in dir.
func Socket(dir string) string { return filepath.Join(dir, "run", "agent.sock") }

// Paths of the API. What is done to a plan is at PathPlans/ID/VERB.
const (
	PathStatus    = "/v1/status"    // GET: Status
	PathInventory = "/v1/inventory" // GET: Inventory
	PathPlans     = "/v1/plans"     // GET: []Plan; POST plan.Plan: Plan, proposed
	PathWatch     = "watch"         // GET PathPlans/ID/watch: executor.Status, one a line, until the plan goes on no more
)

// Paths of the API for OSDs.
const (
	PathOSDs     = "/v1/osds"          // GET: []OSD
	PathOSDPlan  = "/v1/osds/plan"     // POST OSDRequest: Plan, proposed unless it is a dry run
	PathActivate = "/v1/osds/activate" // POST: []int, the OSDs that were started
)

// OSDRequest says what is to be planned for OSDs.
type OSDRequest struct {
	Do      string `json:"do"`                // prepare, adopt, grow, remove, replace
	Disk    string `json:"disk,omitempty"`    // of prepare and adopt, and the new one of replace: its identity, WWN or serial number
	ID      int    `json:"id"`                // of grow, remove and replace
	Class   string `json:"class,omitempty"`   // device class of a new OSD; "" lets Ceph choose
	Encrypt bool   `json:"encrypt,omitempty"` // a new OSD
	Wipe    string `json:"wipe,omitempty"`    // token by which the disk that leaves is wiped
	DryRun  bool   `json:"dry_run,omitempty"` // the plan is not kept
}

// OSD is an OSD of this node's disks, or one of another cluster that was found on one.
type OSD struct {
	ID        int            `json:"id"` // -1 if the label does not say and the cluster knows none
	UUID      string         `json:"uuid,omitempty"`
	Disk      storage.DiskID `json:"disk,omitempty"`
	Device    string         `json:"device,omitempty"` // the kernel's name, now
	Size      storage.Bytes  `json:"size_bytes"`
	Used      storage.Bytes  `json:"used_bytes,omitempty"` // of the disk, by the OSD; less than all after it has grown; 0 if the label does not say
	Class     string         `json:"device_class,omitempty"`
	Encrypted bool           `json:"encrypted,omitempty"`
	State     string         `json:"state"` // up, down, removed (the cluster has gone on without it), foreign
	In        bool           `json:"in"`
	Running   bool           `json:"running"`
	FSID      string         `json:"fsid"`
	Keeper    string         `json:"keeper,omitempty"` // who starts it
}

// Who starts an OSD.
const (
	KeeperAgent      = "agent"
	KeeperSupervisor = "supervisor"
)

// Verb is what is done to a plan.
type Verb string

// The verbs.
const (
	Propose Verb = "propose"
	Approve Verb = "approve"
	Pause   Verb = "pause"   // copying all but stops, and no further step begins
	Resume  Verb = "resume"  // what was paused, cancelled or stopped goes on
	Cancel  Verb = "cancel"  // it ends between two steps; a proposal is forgotten
	Abandon Verb = "abandon" // it never goes on; what it left becomes the state that the next plan starts from
)

// Order is the body of a verb.
type Order struct {
	// Token names what is at stake (approve, abandon).
	Token string `json:"token,omitempty"`
}

// Plan is a plan and what has become of it.
type Plan struct {
	Plan       plan.Plan       `json:"plan"`
	Status     executor.Status `json:"status"`
	Pausing    bool            `json:"pausing,omitempty"`    // it is to pause and has not come to it yet
	Cancelling bool            `json:"cancelling,omitempty"` // it is to end between two steps
	Error      string          `json:"error,omitempty"`      // why it cannot be read or run
}

// Inventory is the node's disks.
type Inventory struct {
	Generation uint64         `json:"generation"` // grows with every change of Disks
	Scanned    time.Time      `json:"scanned"`    // when the last full scan ended
	Disks      []storage.Disk `json:"disks"`
}

// Status is what `holdfast agent status` shows.
type Status struct {
	Version string `json:"version"`
	Node    string `json:"node"`
	DataDir string `json:"data_dir"`
	// Term is the highest of those who gave orders; 0 as long as only this machine has.
	Term uint64 `json:"term"`
	// Coordinated: coordinators give the orders, and the socket takes none.
	Coordinated bool `json:"coordinated,omitempty"`
	// Waiting is why no plan runs though one might, "" if nothing is in the way.
	Waiting    string    `json:"waiting,omitempty"`
	Running    plan.ID   `json:"running,omitempty"`
	Generation uint64    `json:"generation"` // of the inventory
	Scanned    time.Time `json:"scanned"`
	Disks      int       `json:"disks"`
	Free       int       `json:"free"`
	MetricsURL string    `json:"metrics_url,omitempty"`
	Checks     []Check   `json:"checks"`
	// Proposed are the plans that wait for somebody's approval.
	Proposed []Proposal `json:"proposed,omitempty"`
}

// Proposal is a plan that nobody has approved yet.
type Proposal struct {
	ID      plan.ID `json:"id"`
	Subject string  `json:"subject"`
	What    string  `json:"what"`
}

// Check is one thing that is wrong.
type Check struct {
	Code     string `json:"code"`     // HF-...
	Severity string `json:"severity"` // as of package localapi
	Message  string `json:"message"`
	Action   string `json:"action,omitempty"`
}
