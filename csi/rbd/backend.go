// Package rbd keeps CSI volumes as RBD images named "hf-<incarnation>". It imports
// ceph's contract and the records; it decides nothing about names or order of work,
// which are the controller's.
package rbd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// granule is what an image's size is a multiple of.
const granule = storage.MiB

// Backend satisfies controller.Backend for RBD. It has no state.
type Backend struct {
	Runner command.Runner // for cryptsetup, which makes the headers of encrypted volumes
}

// Driver names the driver.
func (b *Backend) Driver() storage.Driver { return storage.RBD }

// Round rounds up to whole MiB.
func (b *Backend) Round(size storage.Bytes) storage.Bytes {
	return (size + granule - 1) / granule * granule
}

// errNoPool says that the volume's pool was deleted, and the volume with it.
var errNoPool = fault.New(fault.NotFound, "the volume's pool was deleted")

// poolOf returns the name of the volume's pool, which is found by its id: it may have
// been renamed.
func poolOf(ctx context.Context, site clustermap.Site, r *record.Record) (string, error) {
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range pools {
		if p.ID == r.PoolID {
			return p.Name, nil
		}
	}
	return "", errNoPool
}

// images returns the images among which the record's is.
func images(ctx context.Context, site clustermap.Site, r *record.Record) (ceph.Images, error) {
	pool, err := poolOf(ctx, site, r)
	if err != nil {
		return nil, err
	}
	return site.Cluster.Images(pool, r.Context["radosNamespace"]), nil
}

// Plan resolves the pool and writes the volume's context.
func (b *Backend) Plan(ctx context.Context, site clustermap.Site, r *record.Record) error {
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return err
	}
	pool, err := pick(pools, "pool", r.Settings()["pool"])
	if err != nil {
		return err
	}
	where := pool
	if name := r.Settings()["dataPool"]; name != "" {
		if where, err = pick(pools, "dataPool", name); err != nil {
			return err
		}
	}
	if pool.Full || where.Full {
		return fault.New(fault.Exhausted, "pool %q is full: add OSDs or delete volumes", where.Name)
	}
	r.PoolID = pool.ID
	described := volumeid.Context{
		ClusterID: string(site.Entry.ID), Name: r.Name, Pool: pool.Name, RadosNamespace: site.Entry.RadosNamespace,
		Image: r.BackendName(), Mounter: r.Parameters["mounter"], MapOptions: r.Parameters["mapOptions"],
		UnmapOptions: r.Parameters["unmapOptions"], MkfsOptions: r.Parameters["mkfsOptions"], FsType: r.FsType,
	}
	if err := planEncryption(ctx, site, r); err != nil {
		return err
	}
	// Encrypted clones are not flattened: a node's librbd that has one open would be asked to do it,
	// and 16.2 mistakes the end of the parent's data.
	r.Flatten = r.Depth >= softDepth && r.Encryption == nil
	if r.Encryption != nil {
		described.Encrypted = "true"
	}
	r.Context = described.Map()
	return nil
}

// pick finds a pool by name; the error names the pools there are.
func pick(pools []ceph.PoolInfo, parameter, name string) (ceph.PoolInfo, error) {
	var names []string
	for _, p := range pools {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return ceph.PoolInfo{}, fault.New(fault.Invalid, "parameter %q: pool %q does not exist; there are %s", parameter, name, strings.Join(names, ", "))
}

// Expand grows the image; the node then grows what is on it.
func (b *Backend) Expand(ctx context.Context, site clustermap.Site, r *record.Record, size storage.Bytes) (bool, error) {
	pool, err := poolOf(ctx, site, r)
	if err != nil {
		return false, err
	}
	namespace := r.Context["radosNamespace"]
	images := site.Cluster.Images(pool, namespace)
	if size > r.Size {
		if err := errors.Join(growable(ctx, images, r), roomFor(ctx, site, r)); err != nil {
			return false, err
		}
	}
	// A node whose attacher sets the size does so under the same lease.
	return true, ceph.HoldImage(ctx, site.Cluster.Objects(pool, namespace), r.BackendName(), "controller", func(ctx context.Context) error {
		return images.Grow(ctx, r.BackendName(), imageSize(r, size))
	})
}

// roomFor fails with fault.Exhausted if a pool of the volume is full.
func roomFor(ctx context.Context, site clustermap.Site, r *record.Record) error {
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if (p.ID == r.PoolID || p.Name == r.Parameters["dataPool"]) && p.Full {
			return fault.New(fault.Exhausted, "pool %q is full: add OSDs or delete volumes", p.Name)
		}
	}
	return nil
}

// Present lists the images of each pool and namespace once.
func (b *Backend) Present(ctx context.Context, site clustermap.Site, records []*record.Record) ([]bool, error) {
	type place struct {
		pool      int64
		namespace string
	}
	names := map[place]map[string]bool{}
	there := make([]bool, len(records))
	for i, r := range records {
		if r.Kind == record.KindSnapshot {
			var err error
			if there[i], err = snapshotPresent(ctx, site, r); err != nil {
				return nil, err
			}
			continue
		}
		at := place{r.PoolID, r.Context["radosNamespace"]}
		if names[at] == nil {
			names[at] = map[string]bool{}
			images, err := images(ctx, site, r)
			if errors.Is(err, errNoPool) {
				continue
			}
			if err != nil {
				return nil, err
			}
			list, err := images.List(ctx)
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

// Condition reports an image that is missing or smaller than the volume.
func (b *Backend) Condition(ctx context.Context, site clustermap.Site, r *record.Record) (storage.Condition, error) {
	images, err := images(ctx, site, r)
	var info ceph.ImageInfo
	if err == nil {
		info, err = images.Info(ctx, r.BackendName())
	}
	switch {
	case errors.Is(err, fault.NotFound):
		return storage.Condition{Abnormal: true, Message: fmt.Sprintf("image %s/%s is missing: it was removed behind Holdfast's back", r.Context["pool"], r.BackendName())}, nil
	case err != nil:
		return storage.Condition{}, err
	case info.Size < imageSize(r, r.Size):
		return storage.Condition{Abnormal: true, Message: fmt.Sprintf("image has %d bytes, the volume needs %d: it was shrunk behind Holdfast's back", info.Size, imageSize(r, r.Size))}, nil
	default:
		return storage.Condition{Message: "the image is there in full size"}, nil
	}
}

// Capacity is what Ceph says can still be written to the pool that takes the data.
// Without a pool in the parameters it is the roomiest RBD pool's.
func (b *Backend) Capacity(ctx context.Context, site clustermap.Site, parameters map[string]string) (storage.Bytes, error) {
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return 0, err
	}
	name := parameters["dataPool"]
	if name == "" {
		name = parameters["pool"]
	}
	var most storage.Bytes
	for _, p := range pools {
		if p.Name == name || name == "" && forImages(p) {
			most = max(most, p.MaxAvail)
		}
	}
	if name != "" {
		if _, err := pick(pools, "pool", name); err != nil {
			return 0, err
		}
	}
	return most, nil
}

// forImages reports whether a pool is said to be for RBD.
func forImages(p ceph.PoolInfo) bool { return slices.Contains(p.Applications, "rbd") }
