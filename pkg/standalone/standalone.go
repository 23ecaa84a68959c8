// Package standalone runs a whole cluster on one machine: Ceph's daemons and
// Holdfast's own as supervised child processes. Bring-up is a list of idempotent steps
// (Check, Do, Verify), so that it can be cut off at any point and go on later; the
// children live in sessions of their own, survive the supervisor, and are found again.
// The one invariant: a directory has at most one supervisor (a lock on DIR/run/lock).
// It is a service: it imports no other one and talks to them over their sockets.
package standalone

import (
	"log/slog"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Options are what the person who runs `holdfast up` asks for. A zero value means "not
// said": the default at the first `up`, what the cluster has from then on.
type Options struct {
	DataDir      string
	OSDs         int           // default 3; 1 to 32
	OSDSize      storage.Bytes // of each OSD's file; default 4 GiB, at least 1 GiB
	Disks        []string      // by-id or by-path names: OSDs on raw disks instead of files
	Mons         int           // default 1; 1, 3 or 5
	Coordinators int           // default 1; 1, 3 or 5
	Listen       string        // of metrics and health checks; default: a free port on 127.0.0.1
	CephAddr     string        // the IP of Ceph's daemons; default 127.0.0.1
	PortBase     int           // where the search for free ports begins; default: by the directory's name
	CSI          *bool         // whether the CSI services run; default true
	Agent        *bool         // whether the agent runs, which makes OSDs of disks and storage stacks; default false
	Stop         bool          // only to stop what runs: nothing is checked, nothing founded
}

// Tools is what the supervisor works with.
type Tools struct {
	Dialer     ceph.Dialer
	Runner     command.Runner
	Log        *slog.Logger
	Executable string // holdfastd itself: the csi and attach services are started from it
}

// The defaults of Options.
const (
	DefaultOSDs           = 3
	DefaultOSDSize        = 4 * storage.GiB
	DefaultMons           = 1
	DefaultCoordinators   = 1
	DefaultAddress        = "127.0.0.1"
	MinOSDSize            = storage.GiB
	maxOSDs               = 32
	maxDataDir            = 48 // bytes: with the longest socket name below it, 108 would be exceeded
	shareOfSpaceForOneOSD = 256 * storage.MiB
	floorOfSpace          = storage.GiB
)
