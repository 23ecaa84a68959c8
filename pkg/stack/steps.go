package stack

import (
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Kinds of steps. Each has one type of arguments.
const (
	KindLabel         plan.Kind = "disk-label"     // DiskArgs: a partition table on a blank disk
	KindDiskGrow      plan.Kind = "disk-grow"      // DiskArgs: the table's backup moves to the disk's new end
	KindRelease       plan.Kind = "disk-release"   // DiskArgs: a disk that left is wiped, if it is still there
	KindPartition     plan.Kind = "partition-add"  // PartitionArgs
	KindPartitionGrow plan.Kind = "partition-grow" // PartitionArgs
	KindCreate        plan.Kind = "array-create"   // ArrayArgs: with its first sync
	KindRecover       plan.Kind = "array-recover"  // ArrayArgs: members join and are filled from the others
	KindReshape       plan.Kind = "array-reshape"  // ArrayArgs: members join, data and parity are spread anew
	KindReplace       plan.Kind = "array-replace"  // ArrayArgs: a member is copied to its successor while it serves
	KindDrop          plan.Kind = "array-drop"     // ArrayArgs: a member leaves before its successor comes
	KindWiden         plan.Kind = "array-widen"    // ArrayArgs: an array of one member takes all of its partition
	KindProtect       plan.Kind = "array-protect"  // ArrayArgs: another consistency policy
	KindPVCreate      plan.Kind = "pv-create"      // PVArgs: an array joins the volume group, which is made with the first
	KindPVGrow        plan.Kind = "pv-grow"        // PVArgs
	KindVolumeCreate  plan.Kind = "volume-create"  // VolumeArgs
	KindVolumeGrow    plan.Kind = "volume-grow"    // VolumeArgs
	KindMakeFS        plan.Kind = "fs-make"        // VolumeArgs
	KindMount         plan.Kind = "fs-mount"       // VolumeArgs
	KindGrowFS        plan.Kind = "fs-grow"        // VolumeArgs
	KindMakeOSD       plan.Kind = "osd-make"       // VolumeArgs: an OSD is made on the volume and enters the cluster
	KindGrowOSD       plan.Kind = "osd-grow"       // VolumeArgs: the OSD uses all of the volume, and its CRUSH weight follows
)

// DiskArgs are of the steps on whole disks.
type DiskArgs struct {
	Disk Disk `json:"disk"`
}

// PartitionArgs are of the steps on partitions: as it is afterwards.
type PartitionArgs struct {
	Partition Partition `json:"partition"`
	GUID      string    `json:"guid"` // of the table that it is in
}

// ArrayArgs are of the steps on arrays.
type ArrayArgs struct {
	Before Array      `json:"before"` // empty for a new one
	After  Array      `json:"after"`
	Leaves *Partition `json:"leaves,omitempty"`
	// MayLack are the partitions, by UUID, of members that the same plan replaces: they may have failed already.
	MayLack []string `json:"may_lack,omitempty"`
	// Zeroed: all members read as zeros, so the array needs no first sync.
	Zeroed bool `json:"zeroed,omitempty"`
}

// Joins are the members that come.
func (a ArrayArgs) Joins() []Partition {
	var list []Partition
	for _, m := range a.After.Members {
		if !a.Before.has(m.UUID) {
			list = append(list, m)
		}
	}
	return list
}

func (a Array) has(partition string) bool {
	for _, m := range a.Members {
		if m.UUID == partition {
			return true
		}
	}
	return false
}

// PVArgs are of the steps on physical volumes.
type PVArgs struct {
	Group string `json:"group"`
	First bool   `json:"first,omitempty"` // the group is made with it
	Array Array  `json:"array"`
	// Bytes is what it gives to the group.
	Bytes storage.Bytes `json:"usable_bytes"`
}

// VolumeArgs are of the steps on the logical volume and on what it carries.
type VolumeArgs struct {
	Volume Volume        `json:"volume"`
	Bytes  storage.Bytes `json:"bytes"` // afterwards
}
