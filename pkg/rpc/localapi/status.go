// Package localapi is the contract between the supervisor of a single-machine cluster
// and whoever asks it: JSON over HTTP on a unix socket in the cluster's directory. It
// holds the values that go over the socket, a client, and the places in the directory
// that both sides know. It is pure Go, so that the CLI can import it.
package localapi

import "time"

// Health of a cluster: Ceph's three words, raised by what Holdfast itself finds wrong,
// and a fourth one: nobody knows.
const (
	HealthOK      = "HEALTH_OK"
	HealthWarn    = "HEALTH_WARN"
	HealthErr     = "HEALTH_ERR"
	HealthUnknown = "HEALTH_UNKNOWN"
)

// States of a cluster.
const (
	StateAbsent       = "absent"       // the directory holds no cluster
	StateDown         = "down"         // nothing runs
	StateStarting     = "starting"     // `up` is at work
	StateUp           = "up"           // everything was started
	StateStopping     = "stopping"     // `down` is at work
	StateUnsupervised = "unsupervised" // daemons run, the supervisor does not
)

// Status is everything that `holdfast status` tells.
type Status struct {
	Health     string    `json:"health"`
	State      string    `json:"state"`
	FSID       string    `json:"fsid,omitempty"`
	DataDir    string    `json:"data_dir"`
	CephConf   string    `json:"ceph_conf,omitempty"`
	CSI        CSI       `json:"csi"`
	MetricsURL string    `json:"metrics_url,omitempty"`
	Verdict    Verdict   `json:"verdict"`
	Checks     []Check   `json:"checks"`
	OSDs       OSDs      `json:"osds"`
	Pools      []Pool    `json:"pools"`
	Capacity   Capacity  `json:"capacity"`
	Volumes    Volumes   `json:"volumes"`
	Daemons    []Daemon  `json:"daemons"`
	ObservedAt time.Time `json:"observed_at"`
	AgeSeconds float64   `json:"age_seconds"` // of what Ceph said, when it was sent
}

// CSI says where the CSI services are.
type CSI struct {
	RBDSocket    string `json:"rbd_socket"`
	CephFSSocket string `json:"cephfs_socket"`
	Dir          string `json:"dir"` // parameters and secrets for any CSI client
}

// Verdict answers the four questions of a person at night, each in a short sentence.
type Verdict struct {
	Data   string `json:"data"`   // is the data safe
	Writes string `json:"writes"` // do writes work
	Spare  string `json:"spare"`  // how many more failures can it take
	Next   string `json:"next"`   // what to do now; empty: nothing
}

// Check is one thing that is wrong.
type Check struct {
	Code     string `json:"code"`     // HF-..., or Ceph's own
	Severity string `json:"severity"` // HEALTH_WARN or HEALTH_ERR; "info" changes no health
	Message  string `json:"message"`
	Action   string `json:"action,omitempty"`
	Ceph     string `json:"ceph,omitempty"` // Ceph's code behind it
}

// SeverityInfo marks a check that is worth knowing and no trouble.
const SeverityInfo = "info"

// OSDs counts the OSDs and lists them.
type OSDs struct {
	Total int   `json:"total"`
	Up    int   `json:"up"`
	In    int   `json:"in"`
	List  []OSD `json:"list"`
}

// OSD is one OSD.
type OSD struct {
	ID    int    `json:"id"`
	Up    bool   `json:"up"`
	In    bool   `json:"in"`
	Store string `json:"store"` // the file or disk that it keeps its data on
	Used  int64  `json:"used_bytes"`
	Size  int64  `json:"size_bytes"`
}

// Pool is one pool; bytes are what users stored, before replication.
type Pool struct {
	Name         string   `json:"name"`
	Size         int      `json:"size"`
	MinSize      int      `json:"min_size"`
	PGs          int      `json:"pgs"`
	Stored       int64    `json:"stored_bytes"`
	MaxAvail     int64    `json:"max_avail_bytes"`
	Full         bool     `json:"full"`
	Applications []string `json:"applications"`
}

// Capacity is the cluster's, raw, and the free space of the file system that holds it.
type Capacity struct {
	Total    int64 `json:"total_bytes"`
	Used     int64 `json:"used_bytes"`
	Avail    int64 `json:"avail_bytes"`
	HostFree int64 `json:"host_free_bytes"` // under the data directory
}

// Volumes counts the volumes of each driver; -1: not known.
type Volumes struct {
	RBD    int `json:"rbd"`
	CephFS int `json:"cephfs"`
}

// Daemon is a supervised process.
type Daemon struct {
	Name     string  `json:"name"`
	State    string  `json:"state"` // running, backoff, stopped
	PID      int     `json:"pid,omitempty"`
	Restarts int     `json:"restarts"` // since the supervisor started
	Uptime   float64 `json:"uptime_seconds,omitempty"`
	LastExit string  `json:"last_exit,omitempty"`
	Adopted  bool    `json:"adopted,omitempty"` // started by an earlier supervisor
}

// States of a Daemon.
const (
	DaemonRunning = "running"
	DaemonBackoff = "backoff" // died; will be started again
	DaemonStopped = "stopped"
)

// Event is a line of progress.
type Event struct {
	Step  string  `json:"step,omitempty"`
	State string  `json:"state"` // one of the below
	Text  string  `json:"text,omitempty"`
	Took  float64 `json:"took_seconds,omitempty"`
}

// States of an Event.
const (
	EventStart = "start"
	EventDone  = "done"
	EventSkip  = "skip" // there was nothing to do
	EventNote  = "note"
	EventReady = "ready" // the last one: it worked
	EventFail  = "fail"  // the last one: it did not; Text says why and what to do
)

// DownRequest asks the supervisor to stop everything and end.
type DownRequest struct {
	Force bool `json:"force"` // also under mounted volumes
	Wipe  bool `json:"wipe"`  // and remove the directory with all data
}
