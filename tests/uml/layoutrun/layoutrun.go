// Package layoutrun is what host and guest say to each other when layouts are tried on real md and LVM.
package layoutrun

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Files in the directory that both have.
const (
	JobFile    = "job.json"
	ReportFile = "report.json"
	DieFile    = "die"
)

// Job is what the guest is to do in one boot.
type Job struct {
	Plans []string      // files, in order
	Rate  int           // writes a second
	Limit storage.Bytes // of md, in bytes a second; 0 for none
	Kill  Kill
	// Fabric is what the disks are: "" as the kernel has them, "cached" files of the host behind a cache that a crash
	// empties, "breakable" disks of the kernel that a table of device-mapper lies under, "sliced" parts of the kernel's first disk, or
	// "logged" the same with every write to them in a log on its second disk (dm-log-writes).
	Fabric string
	Disks  []Disk
	// Pull is the point at which a disk is pulled; it is put back when the plan has stopped.
	Pull     Kill
	PullDisk plan.DiskID
	// Faults happen before the plan of an index is run.
	Faults map[int][]Fault
}

// Disk is a disk of a fabric.
type Disk struct {
	ID   plan.DiskID
	Path string // of the file, or the device in the guest
	Size storage.Bytes
}

// RottenAt are the places of sectors that the fault "rot" makes unreadable, in bytes: all of them in the first slice of small disks.
func RottenAt() []storage.Bytes {
	var list []storage.Bytes
	for at := 20 * storage.MiB; at < 140*storage.MiB; at += 16 * storage.MiB {
		list = append(list, at)
	}
	return list
}

// Marks in the log of a "logged" fabric: "ack:VERSION" after a write was acknowledged, "journal:RECORDS:PLAN" after a journal was written.
const (
	MarkAck     = "ack:%d"
	MarkJournal = "journal:%d:%s"
)

// Unflushed is how much the fault "unflushed" writes, in bytes.
const Unflushed = 4 << 20

// Fault is what happens to a disk: "glitch" pulls it and puts it back, "break" lets all its requests fail, "rot" makes some of its sectors
// unreadable until they are written, "spare" adds it to an array, "unflushed" writes to it and asks to die before its cache is flushed.
type Fault struct {
	Kind string
	Disk plan.DiskID
}

// Kill is a point at which the host is to end the guest: a write to the journal, or a fraction of a step.
type Kill struct {
	Append   int // from 1; 0 for none
	Before   bool
	Plan     string
	Step     int
	Fraction float64
}

// Array is an array as it was found in the end.
type Array struct {
	Name, Level, Consistency string
	Disks, Degraded          int
	Capacity                 storage.Bytes
	Mismatches               int64
}

// Report is what the guest found in the end.
type Report struct {
	Written, Blocks    int // of the load: writes, and blocks that were compared
	Arrays             []Array
	Volume, FileSystem storage.Bytes
	Took               []float64 // seconds, a plan
	// Refilled is what a disk that came back was written, in bytes.
	Refilled storage.Bytes
	// Rotten is how many sectors that a fault has made unreadable are so in the end.
	Rotten int
	// Stopped is why a plan stopped when its disk was pulled.
	Stopped string
}

// State is what may be there while a plan runs.
func State(p plan.Plan) stack.Stack {
	s, err := stack.During(p)
	if err != nil {
		panic(err) // the plan's own hash was checked
	}
	return s
}

// Contains reports whether a line of /proc/mounts is of a mount point.
func Contains(mounts, point string) bool {
	return point != "" && strings.Contains(mounts, " "+point+" ")
}

// AskToDie asks the host to end the guest, and says why.
func AskToDie(dir, why string) {
	path := filepath.Join(dir, DieFile)
	if _, err := os.Stat(path); err == nil {
		return // it was asked already
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		return
	}
	_, _ = f.WriteString(why)
	_ = f.Sync()
	_ = f.Close()
	_ = os.Rename(path+".new", path) // whole, or not there
}
