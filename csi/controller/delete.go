package controller

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/journal"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/flight"
)

// DeleteVolume removes a volume. One that is not there (any more), or not in this
// incarnation, is no error; neither is an id that this driver never gave out.
func (s *Server) DeleteVolume(ctx context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	h, err := s.handle(request.GetVolumeId())
	if errors.Is(err, fault.NotFound) {
		return &csi.DeleteVolumeResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	return flight.Do(ctx, s.flights, h.NameHash, func(ctx context.Context) (*csi.DeleteVolumeResponse, error) {
		site, err := s.connect(ctx, h.Cluster, request.GetSecrets())
		if err != nil {
			return nil, err
		}
		work, held, err := s.hold(ctx, site, record.KindVolume, h, true)
		if errors.Is(err, fault.NotFound) {
			return &csi.DeleteVolumeResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		defer held.Release(ctx)
		if isOf(held.Record, h) != nil {
			return &csi.DeleteVolumeResponse{}, nil
		}
		if nodes := slices.Sorted(maps.Keys(held.Record.Published)); len(nodes) > 0 {
			return nil, fault.New(fault.Busy, "volume %q is published to %v: unpublish it there first", held.Record.Name, nodes)
		}
		if err := s.finishDelete(work, site, held); err != nil {
			return nil, held.Outcome(err)
		}
		s.log(held.Record).Info("volume deleted")
		return &csi.DeleteVolumeResponse{}, nil
	})
}

// finishDelete takes a volume from any state to gone, its record last.
func (s *Server) finishDelete(ctx context.Context, site clustermap.Site, held *record.Held) error {
	before := held.Record.State
	if before != record.Deleting {
		held.Record.State = record.Deleting
		if err := held.Save(ctx); err != nil {
			return err
		}
	}
	if err := s.discard(ctx, site, held.Record); err != nil {
		return err
	}
	err := s.Backend.Delete(ctx, site, held.Record)
	if before == record.Ready && untouched(err) {
		// The volume is as good as before, and stays usable.
		held.Record.State = record.Ready
		return errors.Join(err, held.Save(ctx))
	}
	if err == nil && held.Record.ReadOnly {
		err = s.letGo(ctx, site, held.Record)
	}
	if err != nil {
		return err
	}
	s.janitor.wake(site, held.Record.Incarnation)
	return held.Remove(ctx)
}

// untouched reports whether a deletion ended before anything was removed.
func untouched(err error) bool {
	return errors.Is(err, fault.Busy) || errors.Is(err, journal.ErrUntouched)
}
