package controller

import (
	"context"
	"errors"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/capability"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// backingSnapshot is the parameter that asks for a snapshot itself, read-only and without
// a copy. The backends check its value.
const backingSnapshot = "backingSnapshot"

// originOf returns what a request says about a volume's source, nil for an empty volume.
func (s *Server) originOf(source *csi.VolumeContentSource) (*record.Origin, error) {
	var kind, id string
	switch {
	case source == nil:
		return nil, nil //nolint:nilnil // no source is not an error
	case source.GetSnapshot() != nil:
		kind, id = record.KindSnapshot, source.GetSnapshot().GetSnapshotId()
	case source.GetVolume() != nil:
		kind, id = record.KindVolume, source.GetVolume().GetVolumeId()
	default:
		return nil, fault.New(fault.Invalid, "volume content source: neither a snapshot nor a volume")
	}
	if _, err := s.handle(id); err != nil {
		return nil, err
	}
	return &record.Origin{Kind: kind, Handle: id}, nil
}

// contentSource is CSI's form of an origin.
func contentSource(o *record.Origin) *csi.VolumeContentSource {
	switch {
	case o == nil:
		return nil
	case o.Kind == record.KindSnapshot:
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: o.Handle},
		}}
	default:
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: o.Handle},
		}}
	}
}

// checkReadOnly refuses a volume without a copy that is not made to be read only.
func checkReadOnly(parameters map[string]string, origin *record.Origin, capabilities []*csi.VolumeCapability) error {
	if parameters[backingSnapshot] != "true" {
		return nil
	}
	if origin == nil || origin.Kind != record.KindSnapshot {
		return fault.New(fault.Invalid, "parameter %q: it needs a snapshot as the volume's source", backingSnapshot)
	}
	for _, c := range capabilities {
		if mode := c.GetAccessMode().GetMode(); !capability.ReadOnly(mode) {
			return fault.New(fault.Invalid, "parameter %q: such a volume can only be read; the access mode %s is not for that, use ReadOnlyMany",
				backingSnapshot, capability.Name(mode))
		}
	}
	return nil
}

// resolve looks the source up and completes the new volume's record by it: the volume that
// the data is of, file system and size, which may be larger than the source's.
func (s *Server) resolve(ctx context.Context, site clustermap.Site, fresh *record.Record, asked *csi.CapacityRange) error {
	h, err := s.handle(fresh.Origin.Handle)
	if err != nil {
		return err
	}
	if h.Cluster != site.Entry.ID {
		return fault.New(fault.Invalid, "source %s is of cluster %s, the volume is to be made on %s: copy it through a pod that mounts both",
			fresh.Origin.Handle, h.Cluster, site.Entry.ID)
	}
	source, err := s.look(ctx, site, fresh.Origin.Kind, h)
	if err != nil {
		return err
	}
	if err := isOf(source, h); err != nil {
		return err
	}
	if source.State != record.Ready || source.ReadOnly {
		return fault.New(fault.NotFound, "source %s cannot be copied: it is %s (read-only %v)", fresh.Origin.Handle, source.State, source.ReadOnly)
	}
	fresh.Origin.Volume = fresh.Origin.Handle
	switch {
	case source.Kind == record.KindSnapshot && source.Foreign != nil && fresh.ReadOnly:
		return fault.New(fault.Precondition, "snapshot %q was taken by ceph-csi, and cannot be shown without a copy: restore it without %s", source.Name, backingSnapshot)
	case source.Kind == record.KindSnapshot:
		fresh.Origin.Volume, fresh.Origin.Path = source.Origin.Volume, source.Origin.Path
		fresh.Origin.Backend, fresh.Origin.Snapshot = source.Origin.Backend, source.Origin.Snapshot
	case source.Foreign != nil:
		fresh.Origin.Backend = source.BackendName()
	}
	return inherit(fresh, source, asked)
}

// inherit completes a record by its source's.
func inherit(fresh, source *record.Record, asked *csi.CapacityRange) error {
	required, limit := storage.Bytes(asked.GetRequiredBytes()), storage.Bytes(asked.GetLimitBytes())
	switch {
	case required == 0:
		fresh.Size = source.Size
	case required < source.Size:
		return fault.New(fault.Range, "asked for are %d bytes, the source has %d: a copy is never smaller", required, source.Size)
	}
	if limit > 0 && fresh.Size > limit {
		return fault.New(fault.Range, "the source has %d bytes, above limit_bytes %d", source.Size, limit)
	}
	if fresh.Block != source.Block && !blockUnknown(source) {
		return fault.New(fault.Invalid, "the source has raw block access %v, asked for is %v: the copy would not be what its user expects", source.Block, fresh.Block)
	}
	if fresh.FsType != "" && source.FsType != "" && fresh.FsType != source.FsType {
		return fault.New(fault.Invalid, "the source has the file system %s, asked for is %s", source.FsType, fresh.FsType)
	}
	if source.FsType != "" {
		fresh.FsType = source.FsType
	}
	fresh.Encryption = source.Encryption // a copy of sealed data opens with the same key
	fresh.Group, fresh.Depth = source.Group, source.Depth+1
	return nil
}

// blockUnknown: ceph-csi does not say whether a volume is used as a raw block device, so neither do a snapshot of its own
// and one that was taken of a volume of its before that was published.
func blockUnknown(source *record.Record) bool {
	if source.Kind == record.KindVolume || source.Foreign != nil {
		return source.Foreign != nil
	}
	_, err := volumeid.ParseForeign(source.Origin.Handle)
	return err == nil
}

// takeHold notes in the snapshot's record that the read-only volume r shows it, letGo that
// it does no more. The order of leases is volume, then snapshot.
func (s *Server) takeHold(ctx context.Context, site clustermap.Site, r *record.Record) error {
	return s.editOrigin(ctx, site, r, func(snapshot *record.Record) error {
		if snapshot.State != record.Ready {
			return fault.New(fault.NotFound, "snapshot %s is %s", r.Origin.Handle, snapshot.State)
		}
		if !slices.Contains(snapshot.Users, r.Incarnation) {
			snapshot.Users = append(snapshot.Users, r.Incarnation)
		}
		return nil
	})
}

func (s *Server) letGo(ctx context.Context, site clustermap.Site, r *record.Record) error {
	err := s.editOrigin(ctx, site, r, func(snapshot *record.Record) error {
		snapshot.Users = slices.DeleteFunc(snapshot.Users, func(user string) bool { return user == r.Incarnation })
		return nil
	})
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// editOrigin changes the record of the snapshot that r was made from, under its lease.
func (s *Server) editOrigin(ctx context.Context, site clustermap.Site, r *record.Record, change func(*record.Record) error) error {
	h, err := s.handle(r.Origin.Handle)
	if err != nil {
		return err
	}
	work, held, err := s.snapshots(site).Hold(ctx, h.NameHash)
	if err != nil {
		return err
	}
	defer held.Release(ctx)
	if err := isOf(held.Record, h); err != nil {
		return err
	}
	if err := change(held.Record); err != nil {
		return err
	}
	return held.Outcome(held.Finish(work))
}
