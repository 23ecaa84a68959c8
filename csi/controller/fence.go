package controller

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/fence"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// FenceObserver counts. Calls come from many goroutines.
type FenceObserver interface {
	// Fenced: a node was cut off from a volume; with lifted, it is back.
	Fenced(driver storage.Driver, lifted bool)
}

func (s *Server) countFence(lifted bool) {
	if s.Fences != nil {
		s.Fences.Fenced(s.Backend.Driver(), lifted)
	}
}

// cutOff returns when nothing that node has can write to the volume any more, now or later. A node
// that unstaged the volume has left no note, and nothing is done. Clients that its note names are
// shut out of the cluster, whether or not they watch the image: a machine that was cut off loses
// its watch after 30 s, and takes it up again when it is back. It runs under the record's lease.
func (s *Server) cutOff(ctx context.Context, site clustermap.Site, held *record.Held, h volumeid.Handle, node storage.NodeID) error {
	notes, name := fence.Notes(site.Cluster), fence.Name(node, h.String())
	for {
		note, err := notes.Read(ctx, name)
		if err != nil || note == nil {
			return err
		}
		if mounter := note.Value.Unknown; mounter != "" {
			s.log(held.Record).Warn("node has the volume by a client that it could not name, and may write until it is switched off", obs.KeyNode, node, "mounter", mounter)
		}
		// What it attaches now it has not come to using, and with the note changed it never will.
		marked, since := note.Value, s.Now().UTC()
		if len(note.Value.Clients) > 0 {
			if err := s.journal(ctx, site, held, name, &note.Value); err != nil {
				return err
			}
			since = held.Record.Fences[node].Since
		}
		marked.Fenced, marked.Attaching = &since, ""
		_, err = notes.Write(ctx, name, note, marked)
		if errors.Is(err, fault.Aborted) && ctx.Err() == nil {
			continue // the node has changed it: look again
		}
		if err != nil || len(note.Value.Clients) == 0 {
			return err
		}
		return s.shutOut(ctx, site, held.Record, node)
	}
}

// journal writes down what is to be shut out, first where the sweep finds it, then in the record.
func (s *Server) journal(ctx context.Context, site clustermap.Site, held *record.Held, name string, note *fence.Note) error {
	fences := fence.Fences(site.Cluster)
	old, err := fences.Read(ctx, name)
	if err != nil {
		return err
	}
	f := fence.NewFence(note, s.Owner, s.Now())
	if old != nil {
		f.Since = old.Value.Since
		f.Clients = append(f.Clients, old.Value.Clients...)
		slices.Sort(f.Clients)
		f.Clients = slices.Compact(f.Clients)
	}
	if _, err := fences.Write(ctx, name, old, f); err != nil {
		return err
	}
	held.Record.SetFence(note.Node, &record.Fence{Clients: f.Clients, Since: f.Since, By: f.By})
	return held.Save(ctx)
}

// shutOut puts the clients of the record's fence on the blocklist, and returns when nothing of them
// can arrive any more.
func (s *Server) shutOut(ctx context.Context, site clustermap.Site, r *record.Record, node storage.NodeID) error {
	f := r.Fences[node]
	for _, client := range f.Clients {
		if err := site.Cluster.Fence(ctx, client, fence.Lasting); err != nil {
			return err
		}
	}
	if err := s.barrier(ctx, site, r); err != nil {
		return err
	}
	s.log(r).Warn("node did not let go of the volume and is fenced", obs.KeyNode, node, "clients", f.Clients)
	s.countFence(false)
	return nil
}

// barrier waits until the OSDs of an image's pools know of a fence. CephFS needs none: the MDS lets
// nobody have what a fenced client had before he has the OSD map that fences it.
func (s *Server) barrier(ctx context.Context, site clustermap.Site, r *record.Record) error {
	if s.Backend.Driver() != storage.RBD {
		return nil
	}
	pools, err := site.Cluster.Pools(ctx)
	if err != nil {
		return err
	}
	names := map[int64]string{}
	for _, p := range pools {
		names[p.ID] = p.Name
	}
	wanted := []string{names[r.PoolID]}
	info, err := site.Cluster.Images(wanted[0], r.Context["radosNamespace"]).Info(ctx, r.BackendName())
	if errors.Is(err, fault.NotFound) || wanted[0] == "" {
		return nil // removed by hand: there is nothing to write to
	}
	if err != nil {
		return err
	}
	if data := names[info.DataPool]; data != "" && data != wanted[0] {
		wanted = append(wanted, data)
	}
	for _, pool := range wanted {
		if err := site.Cluster.Barrier(ctx, pool); err != nil {
			return err
		}
	}
	return nil
}

// answered reports whether the node has said that the fenced clients are gone: its note
// names them no more.
func answered(ctx context.Context, site clustermap.Site, node storage.NodeID, volume string, clients []ceph.ClientAddress) (bool, error) {
	note, err := fence.Notes(site.Cluster).Read(ctx, fence.Name(node, volume))
	if err != nil || note == nil {
		return err == nil, err
	}
	for _, c := range note.Value.Addresses() {
		if slices.Contains(clients, c) {
			return false, nil
		}
	}
	return true, nil
}

// lift ends a fence whose node has answered; false while it has not. held is nil when the
// volume is gone.
func (s *Server) lift(ctx context.Context, site clustermap.Site, held *record.Held, node storage.NodeID, volume string) (bool, error) {
	fences := fence.Fences(site.Cluster)
	stored, err := fences.Read(ctx, fence.Name(node, volume))
	if err != nil {
		return false, err
	}
	var clients []ceph.ClientAddress
	if stored != nil {
		clients = append(clients, stored.Value.Clients...)
	}
	if held != nil {
		clients = append(clients, held.Record.Fences[node].Clients...)
	}
	if ok, err := answered(ctx, site, node, volume, clients); err != nil || !ok {
		return false, err
	}
	slices.Sort(clients)
	clients = slices.Compact(clients)
	for _, client := range clients {
		if err := site.Cluster.Unfence(ctx, client); err != nil {
			return false, err
		}
	}
	if held != nil {
		held.Record.SetFence(node, nil)
		if err := held.Save(ctx); err != nil {
			return false, err
		}
	}
	if stored != nil { // last, since the sweep finds the fence by it
		if err := fences.Remove(ctx, stored); err != nil && !errors.Is(err, fault.Aborted) {
			return false, err
		}
	}
	s.Log.Info("node has let go of the volume and is not fenced any more", obs.KeyNode, node, obs.KeyVolume, volume, "clients", clients)
	s.countFence(true)
	return true, nil
}

// fencePause is the time between two looks at the fences there are, mostly none: a listing of one
// small pool.
const fencePause = 10 * time.Second

// WatchFences ends the fences of nodes that are back, until ctx ends.
func (s *Server) WatchFences(ctx context.Context) error {
	ticker := time.NewTicker(fencePause)
	defer ticker.Stop()
	for {
		if err := s.SweepFences(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("fences could not be looked through; they stay", obs.KeyDriver, s.Backend.Driver(), obs.KeyError, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// SweepFences looks once through the fences of all clusters, with the service's own credentials.
func (s *Server) SweepFences(ctx context.Context) error {
	clusters, err := s.Clusters.Clusters()
	if err != nil {
		return err
	}
	var trouble []error
	for _, c := range clusters {
		site, err := s.connect(ctx, c.ID, nil)
		if err != nil {
			trouble = append(trouble, err)
			continue
		}
		list, err := fence.Fences(site.Cluster).List(ctx, "")
		trouble = append(trouble, err)
		for _, f := range list {
			h, err := s.handle(f.Value.Volume)
			if err == nil && h.Cluster == c.ID {
				trouble = append(trouble, s.sweepFence(ctx, site, h, f))
			}
		}
	}
	return errors.Join(trouble...)
}

// sweepFence looks at one fence. That of a volume that is gone lives as long as its node does not
// answer, and no longer than the blocklist keeps the clients; that of a volume is made to last.
func (s *Server) sweepFence(ctx context.Context, site clustermap.Site, h volumeid.Handle, f *fence.Stored[fence.Fence]) error {
	node := f.Value.Node
	age := s.Now().Sub(f.Value.Since)
	// Seldom is there anything to do, so look before the record is locked.
	if ok, err := answered(ctx, site, node, h.String(), f.Value.Clients); err != nil || !ok && age < fence.Lasting/2 {
		return err
	}
	_, err := edit(ctx, s, h, nil, func(ctx context.Context, site clustermap.Site, held *record.Held) (bool, error) {
		lifted, err := s.lift(ctx, site, held, node, h.String())
		if err != nil {
			return false, err
		}
		if !lifted {
			renewed := f.Value
			renewed.Since = s.Now().UTC()
			if _, err := fence.Fences(site.Cluster).Write(ctx, fence.Name(node, h.String()), f, renewed); err != nil {
				return false, err
			}
			return false, s.shutOut(ctx, site, held.Record, node)
		}
		return true, nil
	})
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	lifted, err := s.lift(ctx, site, nil, node, h.String())
	if err == nil && !lifted && age > fence.Lasting {
		err = fence.Fences(site.Cluster).Remove(ctx, f)
	}
	return err
}

// withFences adds to a condition which nodes are fenced. The volume is as well as before.
func withFences(r *record.Record, c *csi.VolumeCondition) *csi.VolumeCondition {
	if fenced := r.Fenced(); fenced != "" {
		c.Message += "; " + fenced
	}
	return c
}
