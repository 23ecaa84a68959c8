package storage

import "strings"

// DiskID tells a disk from all others for as long as it lives: its world-wide id as the
// kernel prints it ("naa.5000c500a1b2c3d4", "eui.0025385b71b00001") or, where it has none,
// "serial." and vendor, model and serial number. It is never a device name: those move.
type DiskID string

// VolumeDisk is the identity of a volume of device-mapper that is used as a disk is: its name there ("hf--media-data"), which its maker has chosen.
func VolumeDisk(name string) DiskID { return DiskID(volumePrefix + name) }

const volumePrefix = "volume."

// OfVolume reports whether the identity is that of a volume.
func (id DiskID) OfVolume() bool { return strings.HasPrefix(string(id), volumePrefix) }

// Disk is a block device of a node as it was when it was looked at.
type Disk struct {
	ID             DiskID      `json:"id"`     // "" if it has nothing to tell it by
	Name           string      `json:"name"`   // the kernel's, now: "sdb"
	Device         string      `json:"device"` // "8:16"
	ByID           []string    `json:"by_id,omitempty"`
	WWN            string      `json:"wwn,omitempty"`
	Serial         string      `json:"serial,omitempty"`
	Vendor         string      `json:"vendor,omitempty"`
	Model          string      `json:"model,omitempty"`
	Bus            string      `json:"bus,omitempty"` // "sata", "sas", "nvme", "usb", ...
	Size           Bytes       `json:"size_bytes"`
	LogicalSector  int         `json:"logical_sector_bytes"`
	PhysicalSector int         `json:"physical_sector_bytes"`
	Rotational     bool        `json:"rotational"`
	ReadOnly       bool        `json:"read_only"`
	Removable      bool        `json:"removable"`
	Partitions     []Partition `json:"partitions,omitempty"` // as the kernel has them
	Holders        []string    `json:"holders,omitempty"`    // devices made of this one or of its partitions
	Slaves         []string    `json:"slaves,omitempty"`     // devices that this one is made of
	Mounts         []string    `json:"mounts,omitempty"`     // where it or a partition of it is mounted
	Contents       []Content   `json:"contents,omitempty"`
	Reasons        []Reason    `json:"reasons,omitempty"`
}

// Free reports whether nothing speaks against taking the disk.
func (d Disk) Free() bool { return len(d.Reasons) == 0 }

// Because reports whether the code is among the reasons why the disk is not free.
func (d Disk) Because(code ReasonCode) bool {
	for _, r := range d.Reasons {
		if r.Code == code {
			return true
		}
	}
	return false
}

// Why joins the reasons for a person.
func (d Disk) Why() string {
	texts := make([]string, len(d.Reasons))
	for i, r := range d.Reasons {
		texts[i] = r.Message
	}
	return strings.Join(texts, "; ")
}

// Partition is one that the kernel has.
type Partition struct {
	Name  string `json:"name"`
	Start Bytes  `json:"start_bytes"`
	Size  Bytes  `json:"size_bytes"`
}

// Content is something recognised on a disk.
type Content struct {
	Kind   string `json:"kind"` // "ext4", "lvm2", "gpt", "bluestore", "data", ...
	Offset int64  `json:"offset_bytes"`
	UUID   string `json:"uuid,omitempty"`
	Label  string `json:"label,omitempty"` // a file system's label, an array's, volume group's or pool's name
	Detail string `json:"detail,omitempty"`
	OSD    *OSD   `json:"osd,omitempty"`
}

// OSD is what the label of an OSD's disk says.
type OSD struct {
	FSID string `json:"fsid"`           // of the cluster, "" if the label does not say
	ID   string `json:"id"`             // the number, "" if the label does not say
	UUID string `json:"uuid,omitempty"` // of the OSD
	Size Bytes  `json:"size_bytes"`     // that it uses; less than the device's after that has grown; 0 if the label does not say

	Ready     bool `json:"ready"`               // it was made to its end
	Encrypted bool `json:"encrypted,omitempty"` // the label is that of the encryption around it, which tells less
}

// ReasonCode says why a disk is not free, for programs.
type ReasonCode string

// The reasons, in the order in which they are told.
const (
	ReasonKind       ReasonCode = "kind"        // no disk of this machine: loop, ram, zram, nbd, rbd, drbd, dm, md, a CD drive
	ReasonCeph       ReasonCode = "ceph"        // an OSD, of this cluster or of another
	ReasonMounted    ReasonCode = "mounted"     // it or a partition of it
	ReasonSwap       ReasonCode = "swap"        // in use
	ReasonHeld       ReasonCode = "held"        // LVM, md, dm-crypt, ... use it or a partition of it
	ReasonContent    ReasonCode = "content"     // a file system, LVM, md, LUKS, ... is on it
	ReasonTable      ReasonCode = "table"       // a partition table, whole or damaged
	ReasonPartitions ReasonCode = "partitions"  // the kernel has partitions of it
	ReasonData       ReasonCode = "data"        // data that nothing recognises
	ReasonMultipath  ReasonCode = "multipath"   // another device has the same identity
	ReasonHidden     ReasonCode = "hidden"      // one path of a multipath device
	ReasonReadOnly   ReasonCode = "read-only"   //
	ReasonRemovable  ReasonCode = "removable"   //
	ReasonZoned      ReasonCode = "zoned"       // host-managed zones take no random writes
	ReasonSize       ReasonCode = "size"        // too small, or no medium
	ReasonNoIdentity ReasonCode = "no-identity" // neither WWN nor serial number
	ReasonBusy       ReasonCode = "busy"        // something has it open exclusively or locked
	ReasonUnknown    ReasonCode = "unknown"     // a question to the kernel or to the disk had no answer
)

// Reason is why a disk is not free.
type Reason struct {
	Code    ReasonCode `json:"code"`
	Message string     `json:"message"`
}
