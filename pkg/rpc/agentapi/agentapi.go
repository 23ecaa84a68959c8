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
	// Waiting is why no plan runs though one might, "" if nothing is in the way.
	Waiting    string    `json:"waiting,omitempty"`
	Running    plan.ID   `json:"running,omitempty"`
	Generation uint64    `json:"generation"` // of the inventory
	Scanned    time.Time `json:"scanned"`
	Disks      int       `json:"disks"`
	Free       int       `json:"free"`
	MetricsURL string    `json:"metrics_url,omitempty"`
	Checks     []Check   `json:"checks"`
}

// Check is one thing that is wrong.
type Check struct {
	Code     string `json:"code"`     // HF-...
	Severity string `json:"severity"` // as of package localapi
	Message  string `json:"message"`
	Action   string `json:"action,omitempty"`
}
