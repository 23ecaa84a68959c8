// Package codes is the one vocabulary of health: every code that Holdfast shows in its
// status, conditions, events and alerts, with the text that explains it offline. It
// imports nothing of this module. A code without a text fails the tests.
package codes

import "sort"

// Code names one thing that can be wrong. It never changes its meaning.
type Code string

// The codes.
const (
	ClusterDown     Code = "HF-CLUSTER-DOWN"
	SupervisorDown  Code = "HF-SUPERVISOR-DOWN"
	UpIncomplete    Code = "HF-UP-INCOMPLETE"
	MonUnreachable  Code = "HF-MON-UNREACHABLE"
	MonDown         Code = "HF-MON-DOWN"
	MgrDown         Code = "HF-MGR-DOWN"
	MDSDown         Code = "HF-MDS-DOWN"
	OSDDown         Code = "HF-OSD-DOWN"
	DaemonDown      Code = "HF-DAEMON-DOWN"
	DaemonCrashloop Code = "HF-DAEMON-CRASHLOOP"
	DaemonCrashed   Code = "HF-DAEMON-CRASHED"
	CSIDown         Code = "HF-CSI-DOWN"
	DataUnavailable Code = "HF-DATA-UNAVAILABLE"
	DataDegraded    Code = "HF-DATA-DEGRADED"
	DataDamaged     Code = "HF-DATA-DAMAGED"
	OpsSlow         Code = "HF-OPS-SLOW"
	PoolNearFull    Code = "HF-POOL-NEARFULL"
	PoolFull        Code = "HF-POOL-FULL"
	HostNearFull    Code = "HF-HOST-NEARFULL"
	HostFull        Code = "HF-HOST-FULL"
	NoRedundancy    Code = "HF-NO-REDUNDANCY"
	VolumeOrphans   Code = "HF-VOLUME-ORPHANS"
	CephOther       Code = "HF-CEPH-OTHER"
	DiskFailing     Code = "HF-DISK-FAILING"
	DiskWorn        Code = "HF-DISK-WORN"
	DiskGone        Code = "HF-DISK-GONE"
	ArrayDown       Code = "HF-ARRAY-DOWN"
	ArrayDegraded   Code = "HF-ARRAY-DEGRADED"
	ArrayMismatch   Code = "HF-ARRAY-MISMATCH"
	PlanStopped     Code = "HF-PLAN-STOPPED"
	StackDown       Code = "HF-STACK-DOWN"

	CoordinatorNoLeader Code = "HF-COORDINATOR-NO-LEADER"
	CoordinatorDown     Code = "HF-COORDINATOR-DOWN"
	CertificateExpires  Code = "HF-CERTIFICATE-EXPIRES"
	BalancerOn          Code = "HF-BALANCER-ON"
	PlanWaits           Code = "HF-PLAN-WAITS"
)

// Text explains a code to the person who meets it.
type Text struct {
	Meaning  string // what is the case
	Impact   string // what that does to data and users
	Diagnose string // how to see more
	Fix      string // what to do
	Verify   string // how to see that it is over
}

// Explain returns the text of a code; false for a code that does not exist.
func Explain(c Code) (Text, bool) {
	t, ok := texts()[c]
	return t, ok
}

// All returns every code, sorted.
func All() []Code {
	var list []Code
	for c := range texts() {
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
	return list
}

// OfCeph returns Holdfast's code for a health code of Ceph's; CephOther where there is
// no word of our own for it.
func OfCeph(code string) Code {
	switch code {
	case "OSD_DOWN", "OSD_HOST_DOWN", "OSD_ROOT_DOWN":
		return OSDDown
	case "MON_DOWN":
		return MonDown
	case "MGR_DOWN":
		return MgrDown
	case "FS_DEGRADED", "FS_WITH_FAILED_MDS", "MDS_ALL_DOWN", "MDS_UP_LESS_THAN_MAX", "MDS_DAMAGE":
		return MDSDown
	case "PG_AVAILABILITY":
		return DataUnavailable
	case "PG_DEGRADED", "OBJECT_MISPLACED", "PG_RECOVERY_FULL", "PG_BACKFILL_FULL":
		return DataDegraded
	case "PG_DAMAGED", "OSD_SCRUB_ERRORS", "OBJECT_UNFOUND", "OSD_TOO_MANY_REPAIRS":
		return DataDamaged
	case "SLOW_OPS", "MDS_SLOW_REQUEST", "MDS_SLOW_METADATA_IO":
		return OpsSlow
	case "OSD_NEARFULL", "OSD_BACKFILLFULL", "POOL_NEARFULL", "POOL_BACKFILLFULL":
		return PoolNearFull
	case "OSD_FULL", "POOL_FULL":
		return PoolFull
	case "MON_DISK_LOW", "MON_DISK_CRIT":
		return HostNearFull
	case "RECENT_CRASH":
		return DaemonCrashed
	default:
		return CephOther
	}
}
