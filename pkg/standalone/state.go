package standalone

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// State is cluster.json: what was decided at the first `up` and holds from then on. It
// carries no secrets.
type State struct {
	localapi.Identity
	Address  string        `json:"ceph_address"`
	NodeName string        `json:"node_name"`
	Mons     []MonState    `json:"mons"`
	PortLow  int           `json:"port_low"`
	PortHigh int           `json:"port_high"`
	OSDs     []OSDState    `json:"osds"`
	OSDSize  storage.Bytes `json:"osd_size_bytes"`
	Agent    bool          `json:"agent,omitempty"` // the agent runs beside
	// Coordinators decide on plans; none in a cluster of before there were any, until its next `up`.
	Coordinators []CoordinatorState `json:"coordinators,omitempty"`
	Formed       bool               `json:"formed"`           // bring-up came to its end once
	Wiping       bool               `json:"wiping,omitempty"` // `down --wipe` has begun
}

// MonState is a monitor's name and ports.
type MonState struct {
	ID string `json:"id"`
	V2 int    `json:"v2_port"`
	V1 int    `json:"v1_port"`
}

// OSDState is an OSD's identity and where its data lies.
type OSDState struct {
	ID   int    `json:"id"`
	UUID string `json:"uuid"`
	Disk string `json:"disk,omitempty"` // by-id or by-path; empty: a file
	// DiskID is what Disk, a place it may be, said of itself when it was chosen: its
	// world-wide id or serial number, after where that was read. Empty: it has none.
	DiskID string `json:"disk_id,omitempty"`
	// Taken is set, and is on stable storage, before the first write to Disk: the disk
	// was found blank. From then on a store with UUID on it is ours to finish or redo.
	Taken bool `json:"taken,omitempty"`
}

const stateVersion = 1

// loadState reads cluster.json: fault.NotFound when there is none, fault.Invalid when
// it is not Holdfast's or of a later version.
func loadState(dir string) (*State, error) {
	id, err := localapi.ReadIdentity(dir)
	if err != nil {
		return nil, err
	}
	path := localapi.StateFile(dir)
	if id.Version > stateVersion {
		return nil, fault.New(fault.Invalid, "%s was written by a newer holdfast (version %d, this one knows %d): use that one", path, id.Version, stateVersion)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read cluster state: %w", err)
	}
	var state State
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", path, err)
	}
	return &state, nil
}

func (s *State) save(dir string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode cluster state: %w", err)
	}
	return durable.WriteFile(localapi.StateFile(dir), append(data, '\n'), 0o644)
}

// config derives the daemons' configuration.
func (s *State) config(dir string) daemon.Config {
	c := daemon.Config{
		FSID: s.FSID, Paths: daemon.Paths{Dir: dir}, Address: s.Address,
		PortLow: s.PortLow, PortHigh: s.PortHigh, OSDs: len(s.OSDs), OSDSize: s.OSDSize, NodeName: s.NodeName,
	}
	for _, m := range s.Mons {
		c.Monitors = append(c.Monitors, daemon.Monitor{Ref: daemon.Ref{Kind: daemon.Mon, ID: m.ID}, V2: m.V2, V1: m.V1})
	}
	return c
}

// mgrRef and mdsRef are the only ones of their kind: restarting one takes a second.
func mgrRef() daemon.Ref { return daemon.Ref{Kind: daemon.Mgr, ID: "x"} }
func mdsRef() daemon.Ref { return daemon.Ref{Kind: daemon.MDS, ID: "a"} }

// daemons lists Ceph's daemons in the order in which they start.
func (s *State) daemons() []daemon.Ref {
	var list []daemon.Ref
	for _, m := range s.Mons {
		list = append(list, daemon.Ref{Kind: daemon.Mon, ID: m.ID})
	}
	list = append(list, mgrRef())
	for _, o := range s.OSDs {
		list = append(list, daemon.OSDRef(o.ID))
	}
	return append(list, mdsRef())
}

// writeIfChanged writes only where the content differs, so that a repeated `up` leaves
// files, and whoever watches them, alone.
func writeIfChanged(path string, data []byte, mode os.FileMode) error {
	old, err := os.ReadFile(path)
	if err == nil && string(old) == string(data) {
		if info, statErr := os.Stat(path); statErr == nil && info.Mode().Perm() == mode {
			return nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return durable.WriteFile(path, data, mode)
}
