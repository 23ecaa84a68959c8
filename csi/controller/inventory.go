package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// kept is a record as it was read, and where.
type kept struct {
	site   clustermap.Site
	store  *record.Store
	key    string
	record *record.Record
}

// reading is everything that the records of a cluster say.
type reading struct {
	list     []kept
	damaged  []string        // records that cannot be read
	involved map[string]bool // incarnations that a record names
}

// read reads the records of both kinds on a site.
func (s *Server) read(ctx context.Context, site clustermap.Site) (reading, error) {
	all := reading{involved: map[string]bool{}}
	for _, store := range []*record.Store{s.store(site), s.snapshots(site)} {
		keys, err := store.Keys(ctx)
		if err != nil {
			return all, err
		}
		records, err := store.ReadAll(ctx, keys, func(key string, err error) {
			s.damaged(key, err)
			all.damaged = append(all.damaged, err.Error())
		})
		if err != nil {
			return all, err
		}
		for i, r := range records {
			if r != nil {
				all.list = append(all.list, kept{site, store, keys[i], r})
				all.involved[r.Incarnation] = true
				for _, old := range r.Abandoned { // whoever goes on with it removes what is left of them
					all.involved[old] = true
				}
			}
		}
	}
	return all, nil
}

// eachSite runs fn for each cluster of the map, with the service's own credentials, and returns
// in words what could not be reached.
func (s *Server) eachSite(ctx context.Context, fn func(clustermap.Site) error) (problems []string, err error) {
	clusters, err := s.Clusters.Clusters()
	if err != nil {
		return nil, err
	}
	for _, c := range clusters {
		site, err := s.connect(ctx, c.ID, nil)
		if err == nil {
			err = fn(site)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: cluster %s: %v", s.Backend.Driver(), c.ID, err))
		}
	}
	return problems, nil
}

// Inventory returns every record of the driver, on every cluster of the map.
func (s *Server) Inventory(ctx context.Context) (volumeapi.Inventory, error) {
	var found volumeapi.Inventory
	problems, err := s.eachSite(ctx, func(site clustermap.Site) error {
		all, err := s.read(ctx, site)
		if err != nil {
			return err
		}
		found.Problems = append(found.Problems, all.damaged...)
		names := map[string]string{}
		for _, k := range all.list {
			names[k.record.Handle(site.Entry.ID).String()] = k.record.Name
		}
		described := make([]volumeapi.Record, len(all.list))
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(batch)
		for i, k := range all.list {
			if ofCluster(k.record, site.Entry.ID) {
				group.Go(func() (err error) {
					described[i], err = s.describe(ctx, k, names)
					return err
				})
			}
		}
		if err := group.Wait(); err != nil {
			return err
		}
		found.Records = append(found.Records, slices.DeleteFunc(described, func(r volumeapi.Record) bool { return r.ID == "" })...)
		return nil
	})
	found.Problems = append(found.Problems, problems...)
	return found, err
}

// describe is a record in the words of the API. names are those of what there is, by handle.
func (s *Server) describe(ctx context.Context, k kept, names map[string]string) (volumeapi.Record, error) {
	r := k.record
	d := volumeapi.Record{
		Kind: r.Kind, Driver: r.Driver, Cluster: k.site.Entry.ID, Name: r.Name, ID: r.Handle(k.site.Entry.ID).String(),
		State: string(r.State), Bytes: r.Size, Block: r.Block, Claim: claimOf(r), Created: r.Created, Backend: r.BackendName(),
		Adopted: r.Foreign != nil,
	}
	if r.Origin != nil {
		d.Origin = &volumeapi.Origin{Kind: r.Origin.Kind, ID: r.Origin.Handle, Name: names[r.Origin.Handle]}
	}
	if r.Encryption != nil {
		d.Encryption = r.Encryption.KMS
	}
	for _, n := range slices.Sorted(maps.Keys(r.Published)) {
		p := r.Published[n]
		d.Nodes = append(d.Nodes, volumeapi.Node{ID: string(n), Mode: p.Mode, ReadOnly: p.ReadOnly, Since: p.Since})
	}
	for _, n := range slices.Sorted(maps.Keys(r.Fences)) {
		f := r.Fences[n]
		shown := volumeapi.Fence{Node: string(n), Since: f.Since, By: f.By}
		for _, c := range f.Clients {
			shown.Clients = append(shown.Clients, string(c))
		}
		d.Fences = append(d.Fences, shown)
	}
	work, err := s.work(ctx, k)
	d.Work = work
	return d, err
}

// work says what is under way for a record, nil for nothing.
func (s *Server) work(ctx context.Context, k kept) (*volumeapi.Work, error) {
	w := volumeapi.Work{}
	switch r := k.record; {
	case r.State == record.Deleting:
		w.What = "being deleted"
	case r.State == record.Creating:
		w.What = "being made"
		if r.Kind == record.KindVolume && r.Origin != nil {
			if c, err := s.Backend.Condition(ctx, k.site, r); err == nil {
				w.What = c.Message
			}
		}
	case r.Flatten:
		w.What = "waits for a copy of its own (flatten)"
		if done, total := s.janitor.flattening(k.key); total > 0 {
			w.What = fmt.Sprintf("being given a copy of its own: %d %% done", done*100/total)
		}
		return &w, nil // without the lease
	default:
		return nil, nil //nolint:nilnil // nothing is under way
	}
	lease, err := k.store.Lease(ctx, k.key)
	if errors.Is(err, fault.NotFound) { // done meanwhile
		return &w, nil
	}
	w.Holder, w.Touched = lease.Holder, lease.Changed.UTC()
	return &w, err
}

// claimOf reads what the provisioner or the snapshotter added to the request
// (--extra-create-metadata), nil without it.
func claimOf(r *record.Record) *volumeapi.Claim {
	first := func(keys ...string) string {
		for _, key := range keys {
			if value := r.Owner[key]; value != "" {
				return value
			}
		}
		return ""
	}
	c := volumeapi.Claim{
		Namespace: first("pvc/namespace", "volumesnapshot/namespace"),
		Name:      first("pvc/name", "volumesnapshot/name"),
		Volume:    first("pv/name", "volumesnapshotcontent/name"),
	}
	if c == (volumeapi.Claim{}) {
		return nil
	}
	return &c
}
