package controller

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// foreign parses the id of a volume that ceph-csi made; why is the error for what is none either. An unknown
// cluster is fault.Invalid, never NotFound: the volume is there, and not known to be gone.
func (s *Server) foreign(id string, why error) (volumeid.Handle, error) {
	f, err := volumeid.ParseForeign(id)
	if err != nil {
		return volumeid.Handle{}, why
	}
	entry, err := s.Clusters.Cluster(storage.ClusterID(f.Cluster))
	if err != nil {
		return volumeid.Handle{}, fault.New(fault.Invalid, `%v; if one of these is what ceph-csi calls %q, say so in its entry: "cephCSI": {"clusterIDs": [%q]}`, err, f.Cluster, f.Cluster)
	}
	return f.Handle(s.Backend.Driver(), entry.ID), nil
}

// look reads the record of a volume or snapshot without its lease, or what it would be for one of ceph-csi's
// that has none.
func (s *Server) look(ctx context.Context, site clustermap.Site, kind string, h volumeid.Handle) (*record.Record, error) {
	r, err := s.storeFor(site, kind).Read(ctx, h.NameHash)
	if errors.Is(err, fault.NotFound) && !h.Foreign.IsZero() {
		return s.adopt(ctx, site, kind, h)
	}
	return r, err
}

func (s *Server) storeFor(site clustermap.Site, kind string) *record.Store {
	if kind == record.KindSnapshot {
		return s.snapshots(site)
	}
	return s.store(site)
}

// hold returns a volume's or snapshot's record under its lease. One that ceph-csi made gets one when it is first
// held: who has it published, and a deletion that was begun, must be kept somewhere, and
// ceph-csi's journal is not Holdfast's to write. toDelete: also one that ceph-csi has half deleted.
func (s *Server) hold(ctx context.Context, site clustermap.Site, kind string, h volumeid.Handle, toDelete bool) (context.Context, *record.Held, error) {
	store := s.storeFor(site, kind)
	work, held, err := store.Hold(ctx, h.NameHash)
	if !errors.Is(err, fault.NotFound) || h.Foreign.IsZero() {
		return work, held, err
	}
	fresh, err := s.adopt(ctx, site, kind, h)
	if err == nil && fresh.State != record.Ready && !toDelete {
		err = fault.New(fault.NotFound, "ceph-csi has half deleted %s %q", kind, fresh.Name)
	}
	if err != nil {
		return nil, nil, err
	}
	work, held, made, err := store.Acquire(ctx, h.NameHash, fresh)
	if err != nil || !made {
		return work, held, err
	}
	// Another controller may have deleted volume and record since the journal was read.
	if _, err := s.Backend.Adopt(work, site, kind, h); errors.Is(err, fault.NotFound) {
		defer held.Release(ctx)
		return nil, nil, errors.Join(err, held.Remove(work))
	}
	s.log(fresh).Info("adopted from ceph-csi", "kind", kind)
	return work, held, nil
}

func (s *Server) adopt(ctx context.Context, site clustermap.Site, kind string, h volumeid.Handle) (*record.Record, error) {
	r, err := s.Backend.Adopt(ctx, site, kind, h)
	if err == nil {
		r.Created = s.Now().UTC()
	}
	return r, err
}

// known reports whether there is a record of the volume. One of ceph-csi's without a record has never been
// published, and is not adopted to say so.
func (s *Server) known(ctx context.Context, h volumeid.Handle, secrets map[string]string) (bool, error) {
	if h.Foreign.IsZero() {
		return true, nil
	}
	site, err := s.connect(ctx, h.Cluster, secrets)
	if err != nil {
		return false, err
	}
	_, err = s.store(site).Read(ctx, h.NameHash)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// Adoptable lists the volumes of which ceph-csi's journal tells, on every cluster of the map.
func (s *Server) Adoptable(ctx context.Context) (volumeapi.Adoptables, error) {
	var found volumeapi.Adoptables
	problems, err := s.eachSite(ctx, func(site clustermap.Site) error {
		handles, err := s.Backend.Adoptable(ctx, site)
		if err != nil {
			return err
		}
		list := make([]volumeapi.Adoptable, len(handles))
		var group errgroup.Group // one that cannot be looked at ends no other
		group.SetLimit(readers)
		for i, h := range handles {
			group.Go(func() error {
				list[i] = s.adoptable(ctx, site, h)
				return nil
			})
		}
		_ = group.Wait()
		found.Volumes = append(found.Volumes, list...)
		return ctx.Err()
	})
	found.Problems = problems
	return found, err
}

// readers bounds how many volumes of ceph-csi's are looked at at a time: each is an image to be opened, or a
// question to the manager.
const readers = 8

// adoptable describes a volume; what keeps it from being looked at is why it cannot be adopted now.
func (s *Server) adoptable(ctx context.Context, site clustermap.Site, h volumeid.Handle) volumeapi.Adoptable {
	a := volumeapi.Adoptable{Driver: h.Driver, Cluster: site.Entry.ID, ID: h.String()}
	r, err := s.store(site).Read(ctx, h.NameHash)
	if a.Adopted = err == nil; errors.Is(err, fault.NotFound) {
		r, err = s.Backend.Adopt(ctx, site, record.KindVolume, h)
	}
	if err != nil {
		a.Refused = err.Error()
		return a
	}
	if r.State == record.Deleting {
		a.Refused = "it is half deleted: delete it again, here or by ceph-csi"
	}
	a.ID, a.Name, a.Bytes, a.Backend, a.Where = r.Handle(site.Entry.ID).String(), r.Name, r.Size, r.BackendName(), r.Context["pool"]
	if a.Driver == storage.CephFS {
		a.Where = r.Context["fsName"] + "/" + r.Group
	}
	return a
}
