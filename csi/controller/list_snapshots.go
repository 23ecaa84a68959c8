package controller

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// ListSnapshots lists the snapshots of all clusters as ListVolumes does volumes, those of
// one volume, or one by its id. An id that names nothing gives an empty list.
func (s *Server) ListSnapshots(ctx context.Context, request *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	if id := request.GetSnapshotId(); id != "" {
		return s.listOne(ctx, id, request)
	}
	volume := request.GetSourceVolumeId()
	convert := func(_ context.Context, site clustermap.Site, records []*record.Record) []*csi.ListSnapshotsResponse_Entry {
		var entries []*csi.ListSnapshotsResponse_Entry
		for _, r := range records {
			if r == nil || r.State != record.Ready || !ofCluster(r, site.Entry.ID) || volume != "" && r.Origin.Handle != volume {
				continue
			}
			entries = append(entries, &csi.ListSnapshotsResponse_Entry{Snapshot: snapshotOf(r, site.Entry.ID)})
		}
		return entries
	}
	entries, next, err := list(ctx, s, request.GetMaxEntries(), request.GetStartingToken(), s.snapshots, convert)
	if err != nil {
		return nil, err
	}
	return &csi.ListSnapshotsResponse{Entries: entries, NextToken: next}, nil
}

func (s *Server) listOne(ctx context.Context, id string, request *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	h, err := s.handle(id)
	var r *record.Record
	if err == nil {
		r, err = s.findSnapshot(ctx, h, request.GetSecrets())
	}
	switch {
	case errors.Is(err, fault.NotFound):
		return &csi.ListSnapshotsResponse{}, nil
	case err != nil:
		return nil, err
	case request.GetSourceVolumeId() != "" && r.Origin.Handle != request.GetSourceVolumeId():
		return &csi.ListSnapshotsResponse{}, nil
	}
	return &csi.ListSnapshotsResponse{Entries: []*csi.ListSnapshotsResponse_Entry{{Snapshot: snapshotOf(r, h.Cluster)}}}, nil
}

// madeFrom returns the keys of the volumes that share data with snapshots of the volume with
// this handle.
func (s *Server) madeFrom(ctx context.Context, site clustermap.Site, volume string) ([]string, error) {
	return s.volumesThat(ctx, site, func(r *record.Record) bool {
		return r.State == record.Ready && r.Depth > 0 && r.Encryption == nil && r.Origin != nil && r.Origin.Volume == volume
	})
}

// volumesThat returns the keys of the volumes of which want is true.
func (s *Server) volumesThat(ctx context.Context, site clustermap.Site, want func(*record.Record) bool) ([]string, error) {
	store := s.store(site)
	keys, err := store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for len(keys) > 0 {
		n := min(len(keys), batch)
		records, err := store.ReadAll(ctx, keys[:n], s.damaged)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if r != nil && ofCluster(r, site.Entry.ID) && want(r) {
				found = append(found, r.Handle(site.Entry.ID).NameHash)
			}
		}
		keys = keys[n:]
	}
	return found, nil
}
