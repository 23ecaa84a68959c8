// Package keeper is the home of user-space attachers: qemu-storage-daemon (an RBD image
// as a file under FUSE) and ceph-fuse (a CephFS directory). It runs as a process of its
// own (`holdfastd attach`), starts each helper in a session of its own and finds it
// again after a restart, so neither its own end nor that of the node plugin ends a mount.
//
// Invariant: a Ceph key is never stored and never an argument; a helper reads it from
// an anonymous file in memory that it inherits. It must not import a CSI service.
package keeper

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// The kinds of attachment.
const (
	KindRBD    = "rbd"    // Path is a regular file with the image's content
	KindCephFS = "cephfs" // Path is a mount point
)

// Spec says what to attach. ID is chosen by the caller, 8 to 32 hex digits.
type Spec struct {
	ID       string   `json:"id"`
	Kind     string   `json:"kind"`
	Volume   string   `json:"volume,omitempty"` // for people
	FSID     string   `json:"fsid,omitempty"`
	Monitors []string `json:"monitors"`
	User     string   `json:"user"`
	Key      string   `json:"key,omitempty"` // in requests only, never in state files or answers
	ReadOnly bool     `json:"readOnly,omitempty"`

	Pool      string `json:"pool,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Image     string `json:"image,omitempty"`
	// Header is how many bytes of the image stand before its data: that of LUKS2, which Passphrase
	// opens; 0 without encryption.
	Header     int64  `json:"header,omitempty"`
	Passphrase string `json:"passphrase,omitempty"` // in requests only, as Key

	Filesystem string `json:"filesystem,omitempty"`
	Directory  string `json:"directory,omitempty"`
	Options    string `json:"options,omitempty"` // FUSE mount options, comma separated
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{8,32}$`)

func (s Spec) validate() error {
	switch {
	case !idPattern.MatchString(s.ID):
		return fault.New(fault.Invalid, "attachment id %q: want 8 to 32 hex digits", s.ID)
	case len(s.Monitors) == 0 || s.User == "" || s.Key == "":
		return fault.New(fault.Invalid, "attachment %s: monitors, user and key are needed", s.ID)
	case s.Kind == KindRBD && (s.Pool == "" || s.Image == ""):
		return fault.New(fault.Invalid, "attachment %s: pool and image are needed", s.ID)
	case (s.Header > 0) != (s.Passphrase != ""):
		return fault.New(fault.Invalid, "attachment %s: an encrypted image needs header and passphrase", s.ID)
	case s.Kind == KindCephFS && s.Directory == "":
		return fault.New(fault.Invalid, "attachment %s: the directory is needed", s.ID)
	case s.Kind != KindRBD && s.Kind != KindCephFS:
		return fault.New(fault.Invalid, "attachment %s: kind %q is neither rbd nor cephfs", s.ID, s.Kind)
	}
	return nil
}

// same reports whether two specs want the same thing (monitors and keys may change).
func (s Spec) same(o Spec) bool {
	return s.Kind == o.Kind && s.Volume == o.Volume && s.Pool == o.Pool && s.Namespace == o.Namespace &&
		s.Image == o.Image && s.Filesystem == o.Filesystem && s.Directory == o.Directory && s.ReadOnly == o.ReadOnly &&
		s.Header == o.Header
}

// Source is what the mount table shows as the source of an attachment's ceph-fuse mount.
func Source(id string) string { return "holdfast:" + id }

// Status is the state of an attachment.
type Status struct {
	Spec    Spec   `json:"spec"` // without the key
	PID     int    `json:"pid"`
	Alive   bool   `json:"alive"`
	Running bool   `json:"running"` // the process runs, whatever became of its mount
	Path    string `json:"path"`
	Message string `json:"message,omitempty"` // why it is not alive
	Client  string `json:"client,omitempty"`  // ceph-fuse's address in the cluster: "10.0.0.1:0/123"
	Device  string `json:"device,omitempty"`  // "major:minor" of ceph-fuse's mount
}

// Ability says what this host can attach, and why not.
type Ability struct {
	RBD    bool   `json:"rbd"`
	CephFS bool   `json:"cephfs"`
	Reason string `json:"reason,omitempty"`
}

type idRequest struct {
	ID   string `json:"id"`
	Size int64  `json:"size,omitempty"` // bytes
	Dead bool   `json:"dead,omitempty"` // stop: the mount works for nobody any more
}

// wireError carries an error's class through HTTP.
type wireError struct {
	Class   string `json:"class,omitempty"`
	Message string `json:"message"`
}

var classes = map[string]error{
	"invalid": fault.Invalid, "not-found": fault.NotFound, "exists": fault.Exists, "busy": fault.Busy,
	"precondition": fault.Precondition, "exhausted": fault.Exhausted, "range": fault.Range,
	"unavailable": fault.Unavailable, "unsupported": fault.Unsupported, "denied": fault.Denied, "aborted": fault.Aborted,
}

func toWire(err error) wireError {
	for name, class := range classes {
		if errors.Is(err, class) {
			return wireError{Class: name, Message: err.Error()}
		}
	}
	return wireError{Message: err.Error()}
}

func (w wireError) err() error {
	if class, ok := classes[w.Class]; ok {
		return fault.As(class, errors.New(w.Message))
	}
	return fmt.Errorf("attach daemon: %s", w.Message)
}

// Lives reports whether the helper's process runs; its mount may be gone even so.
func (s Status) Lives() bool { return s.PID != 0 && (s.Alive || s.Running) }
