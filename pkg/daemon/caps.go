package daemon

import (
	"fmt"
	"strings"
)

// Names of the pools and the file system that a cluster starts with.
const (
	PoolRBD        = "rbd"
	PoolRecords    = ".holdfast"
	PoolMeta       = "cephfs.meta"
	PoolData       = "cephfs.data"
	Filesystem     = "cephfs"
	SubvolumeGroup = "csi"
	NamespaceNotes = "nodes" // in PoolRecords: what nodes note of the clients that they have
)

// The Ceph users of CSI.
const (
	Admin       = "client.admin"
	Provisioner = "client.hf-csi-provisioner"
	Node        = "client.hf-csi-node"
)

// Coordinator is the Ceph user of the coordinators.
const Coordinator = "client.hf-coordinator"

// MonCaps, MgrCaps, OSDCaps and MDSCaps are what the daemons themselves may do: the
// capabilities of Ceph's own manual deployment guide.
func monCaps() Caps { return Caps{"mon": "allow *"} }
func mgrCaps() Caps { return Caps{"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"} }
func osdCaps() Caps {
	return Caps{"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"}
}
func adminCaps() Caps {
	return Caps{"mon": "allow *", "mgr": "allow *", "osd": "allow *", "mds": "allow *"}
}
func mdsCaps() Caps {
	return Caps{"mon": "allow profile mds", "mgr": "allow profile mds", "osd": "allow rw tag cephfs *=*", "mds": "allow"}
}

// subvolumeCommands are the manager commands of the controller's CephFS backend. Named
// one by one: "allow module volumes rw" would also allow `fs volume rm`, which deletes a
// whole file system.
var subvolumeCommands = [...]string{
	"fs subvolumegroup create",
	"fs subvolume create", "fs subvolume info", "fs subvolume ls", "fs subvolume resize", "fs subvolume rm",
	"fs subvolume snapshot create", "fs subvolume snapshot info", "fs subvolume snapshot ls", "fs subvolume snapshot rm",
	"fs subvolume snapshot clone", "fs clone status", "fs clone cancel",
}

// unfence takes a single client (an address with its nonce) off the blocklist; to put one on
// it is a part of "profile rbd", and to empty the list is not allowed.
const unfence = "allow command 'osd blocklist' with blocklistop=rm addr regex '^[^/]+/[0-9]+$'"

// repeer lets one PG peer anew: the only way to have an OSD forget a watcher that died in the wrong moment.
const repeer = "allow command 'pg repeer'"

// foreignJournal is where ceph-csi keeps its journal of a file system's volumes, for those that are adopted.
// Nothing else is in that namespace of the metadata pool.
const foreignJournal = "allow rw namespace=csi tag cephfs metadata="

// ProvisionerCaps are what the CSI controller needs: images of the RBD pools, the
// records, and subvolumes, which the mgr's volumes module makes on its behalf. It can
// neither read the files of a CephFS volume nor change pools, users or settings.
func ProvisionerCaps(filesystem string, rbdPools ...string) Caps {
	var osd, mgr []string
	for _, pool := range rbdPools {
		osd = append(osd, "profile rbd pool="+pool)
	}
	for _, name := range subvolumeCommands {
		mgr = append(mgr, fmt.Sprintf("allow command '%s' with vol_name=%s", name, filesystem))
	}
	return Caps{
		"mon": "profile rbd, allow r fsname=" + filesystem + ", " + unfence + ", " + repeer,
		"osd": strings.Join(append(osd, "allow rwx pool="+PoolRecords, foreignJournal+filesystem), ", "),
		"mgr": strings.Join(mgr, ", "),
	}
}

// NodeCaps are what a node needs: to open the images of the RBD pools and to read and
// write below /volumes of the file system, and to note which clients it has. It cannot see the records.
// It may read elsewhere in the file system, because a snapshot of files that were deleted since has no path any more:
// the MDS looks for the path of such a file (Session::check_access) in its own directory of strays, and refuses a user
// that is held to another one. The data of all files the node can read and write in the data pool already.
func NodeCaps(filesystem string, rbdPools ...string) Caps {
	var osd []string
	for _, pool := range rbdPools {
		osd = append(osd, "profile rbd pool="+pool)
	}
	return Caps{
		"mon": "profile rbd, allow r fsname=" + filesystem,
		"osd": strings.Join(append(osd, "allow rw tag cephfs data="+filesystem, "allow rw pool="+PoolRecords+" namespace="+NamespaceNotes), ", "),
		"mds": fmt.Sprintf("allow rw fsname=%[1]s path=/volumes, allow r fsname=%[1]s", filesystem),
	}
}

// CoordinatorCaps are what the coordinators need: to look, to move PGs, to make and set pools, and to keep the manager from moving PGs.
func CoordinatorCaps() Caps {
	return Caps{
		"mon": "allow r, allow command 'osd pg-upmap-items', allow command 'osd rm-pg-upmap-items', allow command 'osd setcrushmap', " +
			"allow command 'osd set' with key=norebalance, allow command 'osd unset' with key=norebalance, " +
			"allow command 'osd crush rule create-replicated', allow command 'osd erasure-code-profile set', allow command 'osd pool create', " +
			"allow command 'osd pool set', allow command 'osd pool application enable'",
		"mgr": "allow r, allow command 'balancer off'",
	}
}

// Entities returns every entity of a cluster with these daemons, without keys.
func Entities(daemons []Ref) []Entity {
	list := []Entity{
		{Name: "mon.", Caps: monCaps()},
		{Name: Admin, Caps: adminCaps()},
		{Name: Provisioner, Caps: ProvisionerCaps(Filesystem, PoolRBD)},
		{Name: Node, Caps: NodeCaps(Filesystem, PoolRBD)},
	}
	for _, d := range daemons {
		switch d.Kind {
		case Mgr:
			list = append(list, Entity{Name: d.Name(), Caps: mgrCaps()})
		case OSD:
			list = append(list, Entity{Name: d.Name(), Caps: osdCaps()})
		case MDS:
			list = append(list, Entity{Name: d.Name(), Caps: mdsCaps()})
		}
	}
	return list
}
