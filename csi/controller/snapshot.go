package controller

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/flight"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// CreateSnapshot takes a snapshot, finishes one that was begun, or returns the one there is.
func (s *Server) CreateSnapshot(ctx context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	response, err := s.createSnapshot(ctx, request)
	s.refused.note(record.KindSnapshot, request.GetName(), request.GetParameters(), err, s.Now())
	return response, err
}

func (s *Server) createSnapshot(ctx context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	fresh, source, err := s.freshSnapshot(request)
	if err != nil {
		return nil, err
	}
	key := volumeid.Hash(fresh.Driver, fresh.Kind, fresh.Name)
	r, err := flight.Do(ctx, s.flights, key, func(ctx context.Context) (*record.Record, error) {
		site, err := s.connect(ctx, source.Cluster, request.GetSecrets())
		if err != nil {
			return nil, err
		}
		return s.takeSnapshot(ctx, site, key, fresh, source)
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: snapshotOf(r, source.Cluster)}, nil
}

// freshSnapshot validates the request and returns the record of the snapshot that it asks
// for, with the handle of its volume.
func (s *Server) freshSnapshot(request *csi.CreateSnapshotRequest) (*record.Record, volumeid.Handle, error) {
	if err := checkName(request.GetName()); err != nil {
		return nil, volumeid.Handle{}, err
	}
	source, err := s.handle(request.GetSourceVolumeId())
	if err != nil {
		return nil, source, err
	}
	parameters, owner := splitParameters(request.GetParameters())
	if id := parameters["clusterID"]; id != "" && storage.ClusterID(id) != source.Cluster {
		return nil, source, fault.New(fault.Invalid, "parameter \"clusterID\" is %q, the volume is of cluster %s", id, source.Cluster)
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if name != "clusterID" {
			return nil, source, fault.New(fault.Invalid, "parameter %q is unknown: a snapshot class takes \"clusterID\"", name)
		}
	}
	handle := source.String()
	return &record.Record{
		Version: 1, Kind: record.KindSnapshot, Driver: s.Backend.Driver(), Name: request.GetName(),
		Incarnation: newIncarnation(), State: record.Creating, PoolID: source.Pool,
		Parameters: parameters, Owner: owner, Created: s.Now().UTC(),
		Origin: &record.Origin{Kind: record.KindVolume, Handle: handle, Volume: handle},
	}, source, nil
}

// takeSnapshot takes the record and brings the snapshot to Ready.
func (s *Server) takeSnapshot(ctx context.Context, site clustermap.Site, key string, fresh *record.Record, source volumeid.Handle) (*record.Record, error) {
	// One that was begun is finished, or taken back if its volume is gone.
	existing, err := s.snapshots(site).Read(ctx, key)
	if err == nil && existing.State == record.Ready {
		return existing, sameSnapshot(existing, fresh)
	}
	if errors.Is(err, fault.NotFound) {
		err = s.describeSnapshot(ctx, site, fresh, source)
	}
	if err != nil {
		return nil, err
	}
	work, held, err := take(ctx, s.snapshots(site), key, fresh, existing != nil)
	if err != nil {
		return nil, err
	}
	defer held.Release(ctx)
	if err := sameSnapshot(held.Record, fresh); err != nil {
		return nil, err
	}
	if held.Record.State == record.Deleting {
		if err := s.dropSnapshot(work, site, held); err != nil {
			return nil, held.Outcome(err)
		}
		return nil, fault.New(fault.Aborted, "an older snapshot %q was half deleted; it is gone now, ask again", fresh.Name)
	}
	if held.Record.State == record.Ready {
		return held.Record, nil
	}
	if err := held.Outcome(s.finishSnapshot(work, site, held)); err != nil {
		s.suspect(ctx, site, key, held)
		return nil, err
	}
	s.log(held.Record).Info("snapshot taken", "of", fresh.Origin.Handle)
	return held.Record, nil
}

// describeSnapshot completes a snapshot's record by its volume's.
func (s *Server) describeSnapshot(ctx context.Context, site clustermap.Site, fresh *record.Record, source volumeid.Handle) error {
	volume, err := s.look(ctx, site, record.KindVolume, source)
	if err != nil {
		return err
	}
	if err := isOf(volume, source); err != nil {
		return err
	}
	if volume.State != record.Ready || volume.ReadOnly {
		return fault.New(fault.NotFound, "volume %s has nothing to take a snapshot of: it is %s (read-only %v)", source, volume.State, volume.ReadOnly)
	}
	fresh.Size, fresh.Block, fresh.FsType = volume.Size, volume.Block, volume.FsType
	fresh.Encryption = volume.Encryption
	if volume.Foreign != nil {
		fresh.Origin.Backend = volume.BackendName()
	}
	fresh.Group, fresh.Depth, fresh.Context = volume.Group, volume.Depth, maps.Clone(volume.Context)
	return nil
}

// sameSnapshot reports whether the snapshot there is is the one asked for.
func sameSnapshot(have, want *record.Record) error {
	if have.Origin.Handle != want.Origin.Handle {
		return fault.New(fault.Exists, "snapshot %q exists, of volume %s; asked for was one of %s", want.Name, have.Origin.Handle, want.Origin.Handle)
	}
	return nil
}

// finishSnapshot takes what the record describes; after an error that a retry cannot mend
// it takes it back.
func (s *Server) finishSnapshot(ctx context.Context, site clustermap.Site, held *record.Held) error {
	var crowded bool
	err := s.holdVolume(ctx, site, held.Record, func(ctx context.Context) (err error) {
		crowded, err = s.Backend.Snapshot(ctx, site, held.Record)
		return err
	})
	if err == nil {
		held.Record.State = record.Ready
		if err := held.Finish(ctx); err != nil {
			return err
		}
		if crowded {
			s.janitor.relieve(site, held.Record.Origin.Volume)
		}
		return nil
	}
	if passing(err) {
		return err
	}
	if undo := s.dropSnapshot(ctx, site, held); undo != nil {
		return fault.New(fault.Unavailable, "%v; taking back what was made: %v", err, undo)
	}
	return err
}

// holdVolume runs work while nobody deletes the volume that the snapshot or clone is of: an image that
// goes into the trash takes a snapshot with it that was taken this moment. The order of leases is
// snapshot or clone, then its volume; a volume never waits for a snapshot or clone of itself.
func (s *Server) holdVolume(ctx context.Context, site clustermap.Site, r *record.Record, work func(context.Context) error) error {
	h, err := s.handle(r.Origin.Handle)
	if err != nil {
		return err
	}
	held, volume, err := s.hold(ctx, site, record.KindVolume, h, false)
	if errors.Is(err, fault.NotFound) { // gone: the backend says so, or finds what was begun
		return work(ctx)
	}
	if err != nil {
		return err
	}
	defer volume.Release(ctx)
	return volume.Outcome(work(held))
}

// DeleteSnapshot removes a snapshot. One that is not there (any more) is no error. Volumes
// made from it live on.
func (s *Server) DeleteSnapshot(ctx context.Context, request *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	h, err := s.handle(request.GetSnapshotId())
	if errors.Is(err, fault.NotFound) {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	return flight.Do(ctx, s.flights, h.NameHash, func(ctx context.Context) (*csi.DeleteSnapshotResponse, error) {
		site, err := s.connect(ctx, h.Cluster, request.GetSecrets())
		if err != nil {
			return nil, err
		}
		work, held, err := s.hold(ctx, site, record.KindSnapshot, h, true)
		if errors.Is(err, fault.NotFound) {
			return &csi.DeleteSnapshotResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		defer held.Release(ctx)
		if isOf(held.Record, h) != nil {
			return &csi.DeleteSnapshotResponse{}, nil
		}
		if n := len(held.Record.Users); n > 0 {
			return nil, fault.New(fault.Precondition, "snapshot %q is shown by %d read-only volumes without a copy: delete them first", held.Record.Name, n)
		}
		if err := s.dropSnapshot(work, site, held); err != nil {
			return nil, held.Outcome(err)
		}
		s.log(held.Record).Info("snapshot deleted")
		return &csi.DeleteSnapshotResponse{}, nil
	})
}

// dropSnapshot takes a snapshot from any state to gone, its record last.
func (s *Server) dropSnapshot(ctx context.Context, site clustermap.Site, held *record.Held) error {
	before := held.Record.State
	if before != record.Deleting {
		held.Record.State = record.Deleting
		if err := held.Save(ctx); err != nil {
			return err
		}
	}
	err := s.Backend.DeleteSnapshot(ctx, site, held.Record)
	if before == record.Ready && untouched(err) { // it can still be copied from
		held.Record.State = record.Ready
		return errors.Join(err, held.Save(ctx))
	}
	if err != nil {
		return err
	}
	s.janitor.wake(site)
	return held.Remove(ctx)
}

// GetSnapshot returns one snapshot.
func (s *Server) GetSnapshot(ctx context.Context, request *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	h, err := s.handle(request.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	r, err := s.findSnapshot(ctx, h, request.GetSecrets())
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: snapshotOf(r, h.Cluster)}, nil
}

// findSnapshot reads a snapshot's record: fault.NotFound unless it is there in the handle's
// incarnation.
func (s *Server) findSnapshot(ctx context.Context, h volumeid.Handle, secrets map[string]string) (*record.Record, error) {
	site, err := s.connect(ctx, h.Cluster, secrets)
	if err != nil {
		return nil, err
	}
	r, err := s.look(ctx, site, record.KindSnapshot, h)
	if err != nil {
		return nil, err
	}
	if r.State == record.Creating {
		return nil, fault.New(fault.NotFound, "snapshot %s is not taken yet", h)
	}
	return r, isOf(r, h)
}

// snapshotOf is CSI's form of a snapshot. Ceph's are ready to use at once.
func snapshotOf(r *record.Record, cluster storage.ClusterID) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: r.Handle(cluster).String(), SourceVolumeId: r.Origin.Handle, SizeBytes: int64(r.Size),
		CreationTime: timestamppb.New(r.Created), ReadyToUse: r.State == record.Ready,
	}
}
