// Package cephfs keeps CSI volumes as CephFS subvolumes named "hf-<incarnation>", made
// by the manager's volumes module. It imports ceph's contract and the records; names
// and order of work are the controller's.
package cephfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/parameter"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// granule is what a quota is a multiple of: the 4 MiB that kernel and FUSE clients
// round it to when df asks (Ceph: doc/cephfs/quota.rst).
const granule = 4 * storage.MiB

// rootMode is the mode of a volume's root directory. Pods of any user write to it;
// Kubernetes narrows it by fsGroup.
const rootMode = 0o777

// Backend satisfies controller.Backend for CephFS. It has no state.
type Backend struct{}

// Driver names the driver.
func (b *Backend) Driver() storage.Driver { return storage.CephFS }

// Round rounds up to whole 4 MiB.
func (b *Backend) Round(size storage.Bytes) storage.Bytes {
	return (size + granule - 1) / granule * granule
}

// Check validates the parameters without a cluster.
func (b *Backend) Check(parameters map[string]string) error {
	if parameters["encrypted"] == "true" {
		return parameter.Refuse("encrypted", "true", "false: CephFS clients of this cluster have no fscrypt; use an encrypted RBD volume, or encrypt the OSDs")
	}
	return parameter.Rules{
		"clusterID":          parameter.Any("a clusterID of the cluster map"),
		"fsName":             parameter.Any("the name of a CephFS file system"),
		"pool":               parameter.Any("the name of a data pool of the file system"),
		"mounter":            parameter.OneOf("auto", "kernel", "fuse"),
		"kernelMountOptions": parameter.Any("mount options of the kernel client"),
		"fuseMountOptions":   parameter.Any("options of ceph-fuse"),
		"backingSnapshot":    parameter.OneOf("true", "false"),
		"encrypted":          parameter.OneOf("false"),
	}.Check(parameters)
}

// filesystem finds the file system that the parameters name; with one they need not.
func filesystem(ctx context.Context, site clustermap.Site, parameters map[string]string) (ceph.Filesystem, error) {
	list, err := site.Cluster.Filesystems(ctx)
	if err != nil {
		return ceph.Filesystem{}, err
	}
	var names []string
	for _, f := range list {
		if f.Name == parameters["fsName"] || parameters["fsName"] == "" && len(list) == 1 {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return ceph.Filesystem{}, fault.New(fault.Invalid, "parameter \"fsName\": file system %q does not exist; there are: %s", parameters["fsName"], strings.Join(names, ", "))
}

// dataPool returns the pool that takes a volume's data.
func dataPool(ctx context.Context, site clustermap.Site, fs ceph.Filesystem, name string) (ceph.PoolInfo, error) {
	if name == "" && len(fs.DataPools) > 0 {
		name = fs.DataPools[0]
	}
	if !slices.Contains(fs.DataPools, name) {
		return ceph.PoolInfo{}, fault.New(fault.Invalid, "parameter \"pool\": %q is no data pool of file system %s, which has %s", name, fs.Name, strings.Join(fs.DataPools, ", "))
	}
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return ceph.PoolInfo{}, err
	}
	for _, p := range pools {
		if p.Name == name {
			return p, nil
		}
	}
	return ceph.PoolInfo{}, fault.New(fault.Unavailable, "pool %q of file system %s is not in the OSD map", name, fs.Name)
}

func subvolumes(site clustermap.Site, r *record.Record) ceph.Subvolumes {
	return site.Cluster.Subvolumes(r.Context["fsName"], r.Group)
}

// Plan resolves the file system and writes the volume's context.
func (b *Backend) Plan(ctx context.Context, site clustermap.Site, r *record.Record) error {
	fs, err := filesystem(ctx, site, r.Parameters)
	if err != nil {
		return err
	}
	pool, err := dataPool(ctx, site, fs, r.Settings()["pool"])
	if err != nil {
		return err
	}
	if pool.Full {
		return fault.New(fault.Exhausted, "pool %q of file system %s is full: add OSDs or delete volumes", pool.Name, fs.Name)
	}
	r.PoolID = fs.ID
	if r.Origin == nil { // a copy stays in its source's group
		r.Group = site.Entry.SubvolumeGroup
	}
	described := volumeid.Context{
		ClusterID: string(site.Entry.ID), Name: r.Name, Filesystem: fs.Name, Mounter: r.Parameters["mounter"],
		KernelMountOptions: r.Parameters["kernelMountOptions"], FuseMountOptions: r.Parameters["fuseMountOptions"],
	}
	if r.ReadOnly {
		described.ReadOnly = "true"
	}
	r.Context = described.Map()
	return nil
}

// Present lists the subvolumes of each file system and group once. A volume that shows a
// snapshot has none of its own.
func (b *Backend) Present(ctx context.Context, site clustermap.Site, records []*record.Record) ([]bool, error) {
	names := map[[2]string]map[string]bool{}
	there := make([]bool, len(records))
	for i, r := range records {
		if r.ReadOnly {
			there[i] = true
			continue
		}
		if r.Kind == record.KindSnapshot {
			var err error
			if there[i], err = snapshotPresent(ctx, site, r); err != nil {
				return nil, err
			}
			continue
		}
		at := [2]string{r.Context["fsName"], r.Group}
		if names[at] == nil {
			names[at] = map[string]bool{}
			list, err := subvolumes(site, r).List(ctx)
			if errors.Is(err, fault.NotFound) { // the group or file system is gone
				err = notRenamed(ctx, site, r)
			}
			if err != nil {
				return nil, err
			}
			for _, name := range list {
				names[at][name] = true
			}
		}
		there[i] = names[at][r.BackendName()]
	}
	return there, nil
}

// snapshotPresent looks for a snapshot in the subvolume and group that it was taken in.
func snapshotPresent(ctx context.Context, site clustermap.Site, r *record.Record) (bool, error) {
	from, name, err := source(ctx, site, r)
	if err != nil {
		return false, err // also when the file system is gone: that is for a person to judge
	}
	list, err := from.Snapshots(ctx, name)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return slices.Contains(list, r.BackendName()), err
}

// notRenamed fails if the volume's file system has another name now, under which its subvolumes are.
func notRenamed(ctx context.Context, site clustermap.Site, r *record.Record) error {
	list, err := site.Cluster.Filesystems(ctx)
	if err != nil {
		return err
	}
	for _, f := range list {
		if f.ID == r.PoolID && f.Name != r.Context["fsName"] {
			return fault.New(fault.Precondition, "file system %s is called %s now: give it its old name back, or its volumes cannot be found", r.Context["fsName"], f.Name)
		}
	}
	return nil
}

// Expand raises the quota; clients see it by themselves.
func (b *Backend) Expand(ctx context.Context, site clustermap.Site, r *record.Record, size storage.Bytes) (bool, error) {
	if r.ReadOnly {
		return false, fault.New(fault.Precondition, "volume %q shows a snapshot, which never grows; restore it without backingSnapshot", r.Name)
	}
	info, err := subvolumes(site, r).Info(ctx, r.BackendName())
	if err != nil || info.Quota >= size {
		return false, err
	}
	return false, subvolumes(site, r).Resize(ctx, r.BackendName(), size)
}

// Condition reports a subvolume that is missing or not complete.
func (b *Backend) Condition(ctx context.Context, site clustermap.Site, r *record.Record) (storage.Condition, error) {
	if r.ReadOnly {
		return storage.Condition{Message: "the volume shows a snapshot, without a copy"}, nil
	}
	if r.State == record.Creating {
		return b.copying(ctx, site, r)
	}
	info, err := subvolumes(site, r).Info(ctx, r.BackendName())
	switch {
	case errors.Is(err, fault.NotFound):
		return storage.Condition{Abnormal: true, Message: fmt.Sprintf("subvolume %s is missing: it was removed behind Holdfast's back", r.BackendName())}, nil
	case err != nil:
		return storage.Condition{}, err
	case info.State != "" && info.State != "complete":
		return storage.Condition{Abnormal: true, Message: "the subvolume is " + info.State}, nil
	case info.Quota > 0 && info.Used >= info.Quota:
		return storage.Condition{Abnormal: true, Message: fmt.Sprintf("the volume is full: %s of %s used", info.Used, info.Quota)}, nil
	default:
		return storage.Condition{Message: "the subvolume is complete"}, nil
	}
}

// Capacity is what Ceph says can still be written to the file system's data pool.
func (b *Backend) Capacity(ctx context.Context, site clustermap.Site, parameters map[string]string) (storage.Bytes, error) {
	fs, err := filesystem(ctx, site, parameters)
	if err != nil {
		return 0, err
	}
	pool, err := dataPool(ctx, site, fs, parameters["pool"])
	return pool.MaxAvail, err
}
