package standalone

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// facts are what checks and verdict are computed from; the computing is pure.
type facts struct {
	seen     observation
	err      error // of the last look
	trouble  error // of bring-up
	state    string
	dir      string
	replicas int
	daemons  []localapi.Daemon
	looping  []string
	deaf     []string // CSI sockets that do not answer
	orphans  int      // that the last search found
}

// The host's file system is short of space below these.
const (
	hostNearFull = 2 * storage.GiB
	hostFull     = 512 * storage.MiB
)

func (f facts) stale() bool { return f.seen.at.IsZero() || time.Since(f.seen.at) > staleAfter }

// base is the health before Holdfast's own checks: old news is no news.
func (f facts) base() string {
	if f.stale() {
		return localapi.HealthUnknown
	}
	return f.seen.report.Health.Status
}

func (f facts) checks() []localapi.Check {
	list := []localapi.Check{}
	add := func(code codes.Code, severity, action, format string, args ...any) {
		list = append(list, localapi.Check{Code: string(code), Severity: severity, Message: fmt.Sprintf(format, args...), Action: action})
	}
	if f.stale() {
		reason := ""
		if f.err != nil {
			reason = ": " + f.err.Error()
		}
		add(codes.MonUnreachable, localapi.HealthUnknown, "wait for the monitors to come up; "+f.see("mon.a.log"), "the monitors do not answer%s", reason)
	}
	if f.trouble != nil {
		add(codes.UpIncomplete, localapi.HealthWarn, "remove what the message names; it is tried again by itself", "bring-up does not get on: %v", f.trouble)
	}
	for _, d := range f.daemons {
		switch {
		case slices.Contains(f.looping, d.Name):
			add(codes.DaemonCrashloop, localapi.HealthWarn, f.see(d.Name+".out"), "%s ended %d times (%s)", d.Name, d.Restarts, d.LastExit)
		case d.State == localapi.DaemonBackoff && f.state != localapi.StateStopping:
			add(codes.DaemonDown, localapi.HealthWarn, "it is restarted by itself; "+f.see(d.Name+".out"), "%s ended: %s", d.Name, d.LastExit)
		}
	}
	for _, socket := range f.deaf {
		add(codes.CSIDown, localapi.HealthWarn, f.see("csi.out"), "no CSI service answers on %s", socket)
	}
	if f.orphans > 0 {
		add(codes.VolumeOrphans, localapi.SeverityInfo, "holdfast volume orphans", "%d things on the cluster belong to no volume or snapshot, or are not finished", f.orphans)
	}
	switch free := f.seen.hostFree; {
	case f.seen.at.IsZero():
	case free < hostFull:
		add(codes.HostFull, localapi.HealthErr, "free space there at once", "the file system of %s has %s left", f.dir, free)
	case free < hostNearFull:
		add(codes.HostNearFull, localapi.HealthWarn, "free space there", "the file system of %s has %s left", f.dir, free)
	}
	list = append(list, f.cephChecks()...)
	if f.replicas == 1 {
		add(codes.NoRedundancy, localapi.SeverityInfo, "", "there is one OSD and one copy of everything")
	}
	return list
}

func (f facts) see(log string) string { return "read " + f.dir + "/log/" + log }

// cephChecks puts Ceph's checks into Holdfast's words, keeping Ceph's text.
func (f facts) cephChecks() []localapi.Check {
	var list []localapi.Check
	checks := f.seen.report.Health.Checks
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		code := codes.OfCeph(name)
		list = append(list, localapi.Check{
			Code: string(code), Ceph: name, Severity: checks[name].Severity,
			Message: checks[name].Summary.Message, Action: cephAction(code),
		})
	}
	return list
}

func cephAction(code codes.Code) string {
	switch code {
	case codes.OSDDown:
		return "the supervisor restarts it; if it stays down, read its log"
	case codes.DataDegraded:
		return "recovery goes on by itself; watch it with `holdfast status -w`"
	case codes.DataUnavailable:
		return "bring the OSDs that are down back"
	case codes.PoolNearFull, codes.PoolFull:
		return "delete what is not needed, or add capacity"
	default:
		return "holdfast explain " + string(code)
	}
}

// worst raises the base by the checks. Unknown stays unknown: nothing outweighs it.
func worst(base string, checks []localapi.Check) string {
	order := []string{localapi.HealthOK, localapi.HealthWarn, localapi.HealthErr, localapi.HealthUnknown}
	health := base
	for _, c := range checks {
		if slices.Index(order, c.Severity) > slices.Index(order, health) {
			health = c.Severity
		}
	}
	return health
}

// verdict answers the four questions.
func (f facts) verdict(checks []localapi.Check) localapi.Verdict {
	v := localapi.Verdict{Data: "unknown", Writes: "unknown", Spare: "unknown"}
	for _, c := range checks {
		if c.Action != "" && c.Severity != localapi.SeverityInfo {
			v.Next = c.Action
			break
		}
	}
	if f.stale() {
		return v
	}
	total, clean, active, damaged := f.pgs()
	has := func(code codes.Code) bool {
		return slices.ContainsFunc(checks, func(c localapi.Check) bool { return c.Code == string(code) })
	}
	switch {
	case damaged > 0 || has(codes.DataDamaged):
		v.Data = "damaged: some copies differ or are missing"
	case total == 0:
		v.Data = "there is none yet"
	case clean == total:
		v.Data = fmt.Sprintf("safe: all of it has its %d %s", f.replicas, plural(f.replicas, "copy", "copies"))
	default:
		v.Data = fmt.Sprintf("present, with less redundancy: %d of %d placement groups have all their copies", clean, total)
	}
	switch {
	case has(codes.PoolFull) || has(codes.HostFull):
		v.Writes = "refused: no space"
	case active < total:
		v.Writes = fmt.Sprintf("some wait: %d of %d placement groups are not active", total-active, total)
	case has(codes.MDSDown):
		v.Writes = "work for RBD; CephFS waits for its metadata server"
	default:
		v.Writes = "work"
	}
	v.Spare = f.spare(clean == total)
	return v
}

// pgs counts placement groups by what matters: all, with all copies in place, serving, broken.
func (f facts) pgs() (total, clean, active, damaged int) {
	for _, p := range f.seen.report.PGMap.ByState {
		states := strings.Split(p.Name, "+")
		total += p.Count
		if slices.Contains(states, "active") {
			active += p.Count
		}
		if slices.Contains(states, "clean") {
			clean += p.Count
		}
		if slices.Contains(states, "inconsistent") || slices.Contains(states, "incomplete") || slices.Contains(states, "unfound") {
			damaged += p.Count
		}
	}
	return total, clean, active, damaged
}

// spare says how many OSDs may fail from here: as many as the smallest pool has copies
// beyond the last one, less those that are down already.
func (f facts) spare(clean bool) string {
	copies, writable := f.replicas, f.replicas
	for _, p := range f.seen.osds.Pools {
		copies = min(copies, p.Size)
		writable = min(writable, p.Size-p.MinSize)
	}
	down := 0
	for _, osd := range f.seen.osds.OSDs {
		if osd.Up == 0 || osd.In == 0 {
			down++
		}
	}
	if clean {
		down = 0 // what was on them has been copied elsewhere
	}
	lose, write := max(0, copies-1-down), max(0, writable-down)
	switch {
	case lose == 0:
		return "none: the loss of another OSD can lose data"
	case write == 0:
		return fmt.Sprintf("%d more %s without losing data, but writes stop at the first", lose, plural(lose, "OSD", "OSDs"))
	case write < lose:
		return fmt.Sprintf("%d more OSDs without losing data; writes go on without %d of them", lose, write)
	default:
		return fmt.Sprintf("%d more %s", lose, plural(lose, "OSD", "OSDs"))
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
