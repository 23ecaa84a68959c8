package journal

import (
	"context"
	"errors"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// trackerPrefix and a snapshot's handle name the object in which ceph-csi keeps count of the volumes that show the
// snapshot without a copy (ceph-csi: internal/cephfs/store/backingsnapshot.go). Its omap has a key for each
// volume, and one for the snapshot, its handle; that one is still there when the last volume has gone
// (ceph-csi: internal/util/reftracker/v1).
const trackerPrefix = "rt-backingsnapshot-"

// Showing returns the volumes that show a snapshot of CephFS without a copy. handles are all that it may have: of a
// cluster with several names each is another. fault.Precondition for a count that Holdfast cannot read.
func (j *Journal) Showing(ctx context.Context, pool int64, handles []string) ([]string, error) {
	var volumes []string
	for _, handle := range handles {
		keys, err := j.pairs(ctx, pool, trackerPrefix+handle, "")
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(keys) == 0 {
			return nil, fault.New(fault.Precondition, "ceph-csi's object %s%s has no keys: whether volumes show the snapshot without a copy cannot be told", trackerPrefix, handle)
		}
		for key := range keys {
			if !slices.Contains(handles, key) {
				volumes = append(volumes, key)
			}
		}
	}
	slices.Sort(volumes)
	return volumes, nil
}

// Forget removes the count of a snapshot that is gone, if there is one.
func (j *Journal) Forget(ctx context.Context, pool int64, handles []string) error {
	name, ok := j.pools[pool]
	if !ok {
		return nil
	}
	for _, handle := range handles {
		err := j.cluster.Omaps(name, j.namespace).Remove(ctx, trackerPrefix+handle)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
	}
	return nil
}
