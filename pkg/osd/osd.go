// Package osd makes OSDs of whole disks and looks after them: prepare, activate after a
// reboot, grow, drain, replace, remove, adopt. Each is a list of steps that are checked, done
// and verified, and can be run again after a crash at any point. DESIGN.md says why they are
// in this order.
//
// Invariant: nothing is written to a disk that pkg/disk does not call free a moment before,
// and nothing is wiped without a token that names the disk.
package osd

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Cluster sends commands as pkg/ceph's Cluster does.
type Cluster interface {
	Mon(ctx context.Context, cmd map[string]any, input []byte) ([]byte, error)
	Mgr(ctx context.Context, cmd map[string]any, input []byte) ([]byte, error)
}

// Daemons runs OSD daemons on this node. Both return once it is so, and are no error if it
// was so already; a daemon that ends by itself may be started again by whoever runs it.
type Daemons interface {
	Start(ctx context.Context, id int) error
	Stop(ctx context.Context, id int) error
}

// Node is one machine with disks.
type Node struct {
	Cluster Cluster
	Daemons Daemons
	Run     command.Runner
	Disks   *disk.Scanner // its Config.FSID must be FSID
	FSID    string        // of the cluster
	Paths   daemon.Paths  // of stores, keyrings and ceph.conf
	Wait    time.Duration // for an OSD to come up or to become safe to destroy; 0: 10 minutes
	Settle  time.Duration // for how long it must be called safe on end; 0: 15 s, three of Ceph's default reports (mgr_stats_period)
}

// Request says what OSD is wanted on which disk. The same request again goes on where the
// last run ended, so it is written down before the first run, and UUID is its identity.
type Request struct {
	UUID    string         `json:"uuid"`
	Disk    storage.DiskID `json:"disk"`
	Class   string         `json:"class,omitempty"` // device class; "" lets Ceph choose
	Encrypt bool           `json:"encrypt,omitempty"`
	Replace *int           `json:"replace,omitempty"` // keep the id of this destroyed OSD
}

var (
	uuidPattern  = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	classPattern = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)
)

func (r Request) validate() error {
	switch {
	case !uuidPattern.MatchString(r.UUID):
		return fault.New(fault.Invalid, "%q is no UUID", r.UUID)
	case r.Disk == "":
		return fault.New(fault.Invalid, "say which disk, by its identity")
	case r.Class != "" && !classPattern.MatchString(r.Class):
		return fault.New(fault.Invalid, "device class %q: want letters, digits, '-', '_' and '.'", r.Class)
	case r.Replace != nil && *r.Replace < 0:
		return fault.New(fault.Invalid, "osd.%d cannot be", *r.Replace)
	}
	return nil
}

func (n *Node) patience() time.Duration {
	if n.Wait == 0 {
		return 10 * time.Minute
	}
	return n.Wait
}

func (n *Node) settle() time.Duration {
	if n.Settle == 0 {
		return 15 * time.Second
	}
	return n.Settle
}

// onDisk returns the OSD on a disk, by its label or through its open encryption.
func onDisk(d storage.Disk) *storage.OSD {
	i := slices.IndexFunc(d.Contents, func(c storage.Content) bool { return c.OSD != nil })
	if i < 0 {
		return nil
	}
	return d.Contents[i].OSD
}

// own returns the OSD on a disk if it is one of this cluster.
func (n *Node) own(d storage.Disk) (*storage.OSD, error) {
	osd := onDisk(d)
	switch {
	case osd == nil:
		return nil, fault.New(fault.NotFound, "disk %s carries no OSD: %s", d.ID, d.Why())
	case osd.FSID == "":
		return nil, fault.New(fault.Precondition, "disk %s carries an OSD whose label does not say of which cluster", d.ID)
	case osd.FSID != n.FSID:
		return nil, fault.New(fault.Precondition, "disk %s carries %s of a foreign cluster, %s: it is not touched", d.ID, osdName(*osd), osd.FSID)
	}
	return osd, nil
}

func osdName(osd storage.OSD) string {
	if osd.ID == "" {
		return "an OSD"
	}
	return "osd." + osd.ID
}

func idOf(osd storage.OSD) (int, error) {
	id, err := strconv.Atoi(osd.ID)
	if err != nil || id < 0 {
		return 0, fault.New(fault.Precondition, "the label's OSD number %q is none", osd.ID)
	}
	return id, nil
}

// store is the OSD's data directory.
func (n *Node) store(id int) string { return n.Paths.Data(daemon.OSDRef(id)) }

func name(id int) string { return fmt.Sprintf("osd.%d", id) }
