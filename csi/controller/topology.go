package controller

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/topology"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// placesFor returns where a volume may be made, best first, and checks the parameters; nothing when
// they name no pools by topology: then it can be used everywhere. fault.Exhausted when none fits.
func (s *Server) placesFor(parameters map[string]string, need *csi.TopologyRequirement) ([]topology.Place, error) {
	text, constrained := parameters[topology.Parameter]
	if !constrained {
		return nil, s.Backend.Check(parameters)
	}
	pools, err := topology.Parse(text)
	if err != nil {
		return nil, err
	}
	for _, place := range topology.Choose(pools, nil) { // whichever it will be
		if err := s.Backend.Check(place.Apply(parameters)); err != nil {
			return nil, err
		}
	}
	places := topology.Choose(pools, need)
	if len(places) == 0 {
		return nil, fault.New(fault.Exhausted, "parameter %q: none of the pools is where the volume is to be used: %s", topology.Parameter, topology.Describe(need))
	}
	return places, nil
}

// planPlace has the backend plan the volume at the first place that is not full.
func (s *Server) planPlace(ctx context.Context, site clustermap.Site, fresh *record.Record) error {
	if len(fresh.Places) == 0 {
		return s.Backend.Plan(ctx, site, fresh)
	}
	var err error
	for i := range fresh.Places {
		fresh.Place = &fresh.Places[i]
		if err = s.Backend.Plan(ctx, site, fresh); !errors.Is(err, fault.Exhausted) {
			return err
		}
	}
	return err
}

// fits reports whether a volume that is there is where it is wanted.
func fits(have, want *record.Record) bool {
	if have.Place == nil || len(want.Places) == 0 {
		return have.Place == nil && len(want.Places) == 0
	}
	return slices.ContainsFunc(want.Places, func(p topology.Place) bool {
		return p.Pool == have.Place.Pool && p.DataPool == have.Place.DataPool &&
			(len(p.Segments) == 0 || maps.Equal(p.Segments, have.Place.Segments))
	})
}

// accessibleFrom is where a volume can be used; nothing says: everywhere.
func accessibleFrom(r *record.Record) []*csi.Topology {
	if r.Place == nil || len(r.Place.Segments) == 0 {
		return nil
	}
	return []*csi.Topology{{Segments: r.Place.Segments}}
}

// capacity is how large a volume can be with the parameters, for use in a topology (nil: anywhere).
func (s *Server) capacity(ctx context.Context, site clustermap.Site, parameters map[string]string, at *csi.Topology) (storage.Bytes, error) {
	var need *csi.TopologyRequirement
	if at != nil {
		need = &csi.TopologyRequirement{Requisite: []*csi.Topology{at}}
	}
	text, constrained := parameters[topology.Parameter]
	if !constrained {
		return s.Backend.Capacity(ctx, site, parameters)
	}
	pools, err := topology.Parse(text)
	if err != nil {
		return 0, err
	}
	var most storage.Bytes
	for _, place := range topology.Choose(pools, need) {
		available, err := s.Backend.Capacity(ctx, site, place.Apply(parameters))
		if err != nil {
			return 0, err
		}
		most = max(most, available)
	}
	return most, nil
}
