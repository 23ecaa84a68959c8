package live

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/lvm"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// Latency tells how long a volume's clients wait. It is not for use by several goroutines.
type Latency struct {
	// Device is the volume's device.
	Device string
	Sys    string // "/sys"

	requests, waited int64
}

// LatencyOf looks at a stack's volume.
func LatencyOf(v stack.Volume) *Latency {
	return &Latency{Device: lvm.Path(v.Group, v.Name), Sys: "/sys"}
}

// Measure is the mean time that requests took since the last call; 0 where there were none, or no volume yet.
func (l *Latency) Measure() time.Duration {
	name := l.Device
	if target, err := filepath.EvalSymlinks(l.Device); err == nil {
		name = target // /dev/mapper holds links to /dev/dm-N, or nodes where no udevd runs
	}
	requests, waited := l.read(l.stat(name))
	before := *l
	l.requests, l.waited = requests, waited
	if n := requests - before.requests; n > 0 && before.requests > 0 {
		return time.Duration(waited-before.waited) * time.Millisecond / time.Duration(n)
	}
	return 0
}

// stat finds the statistics of a device: by its name, else by the number of its node.
func (l *Latency) stat(name string) string {
	path := filepath.Join(l.Sys, "class", "block", filepath.Base(name), "stat")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	major, minor, ok := number(name)
	if !ok {
		return ""
	}
	return filepath.Join(l.Sys, "dev", "block", strconv.Itoa(major)+":"+strconv.Itoa(minor), "stat")
}

// read sums reads and writes (Documentation/block/stat.rst: fields 1 and 5 are requests, 4 and 8 the milliseconds
// that they waited).
func (l *Latency) read(path string) (requests, waited int64) {
	fields := strings.Fields(readText(path))
	if len(fields) < 8 {
		return 0, 0
	}
	var n [8]int64
	for i := range n {
		n[i], _ = strconv.ParseInt(fields[i], 10, 64)
	}
	return n[0] + n[4], n[3] + n[7]
}
