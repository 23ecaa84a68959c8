// Package daemon knows what a Ceph mon, mgr, osd and mds needs to run: configuration,
// keys with their capabilities, the commands that make their stores, and their
// arguments. It is data and small functions: who runs a daemon, as a process or as a
// pod, decides when and where. It starts nothing and keeps no state.
package daemon

import (
	"strconv"

	"github.com/holdfast-storage/holdfast/pkg/command"
)

// Kind is the kind of a Ceph daemon.
type Kind string

// The kinds that Holdfast runs.
const (
	Mon Kind = "mon"
	Mgr Kind = "mgr"
	OSD Kind = "osd"
	MDS Kind = "mds"
)

// Ref names one daemon of a cluster.
type Ref struct {
	Kind Kind
	ID   string // "a", "x", "0": without the kind
}

// Name returns Ceph's name of the daemon: "osd.0".
func (r Ref) Name() string { return string(r.Kind) + "." + r.ID }

// Program returns the executable's name: "ceph-osd".
func (r Ref) Program() string { return "ceph-" + string(r.Kind) }

// Monitors are named a to e: at most five, an odd number, so that a majority exists.
const monIDs = "abcde"

// MonRef returns monitor i, counted from 0 to 4.
func MonRef(i int) Ref { return Ref{Mon, monIDs[i : i+1]} }

// OSDRef returns the OSD with the given id.
func OSDRef(id int) Ref { return Ref{OSD, strconv.Itoa(id)} }

// Command returns the daemon in the foreground: it neither forks nor detaches, so
// that its parent sees it end. Every argument is constant for the life of a cluster,
// which lets a supervisor recognise a running daemon by its command line.
func (c Config) Command(r Ref) command.Cmd {
	return command.Cmd{Name: r.Program(), Args: []string{
		"--foreground", "--conf", c.Paths.Conf(), "--id", r.ID,
	}}
}
