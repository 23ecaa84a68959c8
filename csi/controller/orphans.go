package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/fence"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/flight"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// An orphan is a thing on the cluster that no record knows, or a record of a thing that is gone or
// that nobody finishes.
//
// Why a create under way is never taken for one: its record is made before anything that it
// describes and removed after all of it, and the name of what it describes is random and never used
// again. A search lists the things first and reads the records after that. What was seen then
// and has no record now had lost it, or never had one, and no create can give it one any more. A
// deletion does not rely on an earlier search: it lists and reads again, in that order. What a
// controller makes after it lost its lease, its record gone, is an orphan indeed.
//
// A record that cannot be read may be that of anything, so while there is one nothing is deleted but
// what has a record itself.

// settled is how long nobody must have worked on a record, or an image must have been in the trash,
// for it to count: callers come back, and background work takes its time.
const settled = 10 * time.Minute

// orphan is one that was found, with what its deletion needs.
type orphan struct {
	volumeapi.Orphan
	site    clustermap.Site
	holding *record.Holding
	kept    *kept
}

// Orphans looks for orphans on every cluster of the map.
func (s *Server) Orphans(ctx context.Context) (volumeapi.Orphans, error) {
	var found volumeapi.Orphans
	list, problems, err := s.search(ctx)
	for _, o := range list {
		found.Orphans = append(found.Orphans, o.Orphan)
	}
	found.Problems = problems
	if err == nil {
		s.count(found.Orphans)
	}
	return found, err
}

// DeleteOrphans deletes those of ids that are orphans of this driver still.
func (s *Server) DeleteOrphans(ctx context.Context, ids []string) ([]volumeapi.Deletion, error) {
	var done []volumeapi.Deletion
	mine := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !strings.HasPrefix(id, string(s.Backend.Driver())+"/") })
	if len(mine) == 0 {
		return nil, nil
	}
	list, _, err := s.search(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b orphan) int { return order(a) - order(b) })
	for _, id := range mine {
		if !slices.ContainsFunc(list, func(o orphan) bool { return o.ID == id }) {
			done = append(done, volumeapi.Deletion{ID: id, Error: "it is no orphan any more, or gone"})
		}
	}
	for _, o := range list {
		if !slices.Contains(mine, o.ID) {
			continue
		}
		outcome := volumeapi.Deletion{ID: o.ID}
		if err := s.deleteOrphan(ctx, o); err != nil {
			outcome.Error = err.Error()
		} else {
			s.Log.Info("orphan deleted", obs.KeyDriver, o.Driver, "kind", o.Kind, obs.KeyName, o.Name, "where", o.Where)
		}
		done = append(done, outcome)
	}
	s.recount(list, done)
	return done, nil
}

// recount takes what was deleted out of the last count.
func (s *Server) recount(list []orphan, done []volumeapi.Deletion) {
	var left []volumeapi.Orphan
	for _, o := range list {
		if !slices.ContainsFunc(done, func(d volumeapi.Deletion) bool { return d.ID == o.ID && d.Error == "" }) {
			left = append(left, o.Orphan)
		}
	}
	s.count(left)
}

// order puts snapshots before what they are of.
func order(o orphan) int {
	if o.Kind == volumeapi.OrphanSnapshot {
		return 0
	}
	return 1
}

// survey is what was found on one site.
type survey struct {
	site     clustermap.Site
	fsid     string
	holdings record.Holdings
	records  reading
}

// search looks for orphans and says what it could not look at.
func (s *Server) search(ctx context.Context) (list []orphan, problems []string, err error) {
	var surveys []*survey
	problems, err = s.eachSite(ctx, func(site clustermap.Site) (err error) {
		v := &survey{site: site}
		if v.fsid, err = site.Cluster.FSID(ctx); err != nil {
			return err
		}
		v.holdings, err = s.Backend.Holdings(ctx, site)
		surveys = append(surveys, v)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for _, v := range surveys { // after all holdings: see above
		if v.records, err = s.read(ctx, v.site); err != nil {
			return nil, nil, err
		}
		problems = append(problems, v.records.damaged...)
		for _, what := range v.holdings.Refused {
			problems = append(problems, fmt.Sprintf("%s: cluster %s: no right to look into %s", s.Backend.Driver(), v.site.Entry.ID, what))
		}
	}
	for _, v := range surveys {
		unknown, err := s.unknown(ctx, v, surveys, problems)
		if err != nil {
			return nil, nil, err
		}
		stale, err := s.stale(ctx, v)
		if err != nil {
			return nil, nil, err
		}
		list = append(append(list, unknown...), stale...)
	}
	slices.SortFunc(list, func(a, b orphan) int { return strings.Compare(a.ID, b.ID) })
	// Two entries of the cluster map may lead to one cluster.
	return slices.CompactFunc(list, func(a, b orphan) bool { return a.ID == b.ID }), problems, nil
}

// unknown are the holdings of one survey that no record of any knows: entries of the cluster map that
// lead to one cluster may keep their records apart, and subvolumes in one group.
func (s *Server) unknown(ctx context.Context, v *survey, surveys []*survey, problems []string) ([]orphan, error) {
	known := func(incarnation string) bool {
		return slices.ContainsFunc(surveys, func(o *survey) bool { return o.fsid == v.fsid && o.records.involved[incarnation] })
	}
	var list []orphan
	var users map[string]string
	for i := range v.holdings.List {
		h := &v.holdings.List[i]
		if known(h.Incarnation) || h.Kind == record.HoldingVolume && h.Kept {
			continue // or a tombstone: the janitor frees it with its last snapshot
		}
		if h.Kind == record.HoldingTrash && s.Now().Sub(h.Since) < settled {
			continue // it is being freed
		}
		if err := s.Backend.Look(ctx, v.site, h); err != nil {
			return nil, err
		}
		if h.Gone || h.Kept {
			continue // deleted since it was listed
		}
		if users == nil {
			var err error
			if users, err = noted(ctx, v.site.Cluster); err != nil {
				return nil, err
			}
		}
		o := s.orphanOf(v, h)
		switch node := users[h.Incarnation]; {
		case len(problems) > 0:
			o.Kept = "not everything could be looked at, and a record of it may be there: " + problems[0]
		case len(h.Clients) > 0:
			o.Kept = "clients have it open: " + strings.Join(h.Clients, ", ")
		case node != "":
			o.Kept = "node " + node + " says that it has it: unmount it there"
		}
		list = append(list, o)
	}
	return list, nil
}

// noted are the nodes that say of volumes that they have them, by incarnation.
func noted(ctx context.Context, cluster ceph.Cluster) (map[string]string, error) {
	list, err := fence.Notes(cluster).List(ctx, "")
	if err != nil {
		return nil, err
	}
	users := map[string]string{}
	for _, note := range list {
		if h, err := volumeid.Parse(note.Value.Volume); err == nil && note.Value.Fenced == nil {
			users[h.Incarnation] = string(note.Value.Node)
		}
	}
	return users, nil
}

func (s *Server) orphanOf(v *survey, h *record.Holding) orphan {
	o := volumeapi.Orphan{
		Driver: s.Backend.Driver(), Cluster: v.site.Entry.ID, Name: h.Name, Where: h.Location.String(), Bytes: h.Size,
		Why: "no record knows it", Touched: h.Since,
	}
	switch h.Kind {
	case record.HoldingSnapshot:
		o.Kind, o.Name, o.Effect = volumeapi.OrphanSnapshot, h.Of+"@"+h.Name, "removes the snapshot; volumes made from it live on"
	case record.HoldingTrash:
		o.Kind, o.Why, o.Effect = volumeapi.OrphanTrash, "it is in the trash, and background work has not freed it", "frees its space"
	default:
		switch {
		case h.Broken:
			o.Kind, o.Why, o.Effect = volumeapi.OrphanName, "it is listed and cannot be opened: its creation or removal was cut off", "clears the name"
		case o.Driver == storage.CephFS:
			o.Kind, o.Effect = volumeapi.OrphanSubvolume, "deletes the subvolume and all files in it; its snapshots stay"
		default:
			o.Kind, o.Effect = volumeapi.OrphanImage, "deletes the image and all data in it; if it has snapshots, they stay"
		}
	}
	where := h.Location.String() + "/"
	if h.ID != "" {
		where += h.ID + "/"
	}
	o.ID = strings.Join([]string{string(o.Driver), o.Kind, v.fsid, where + o.Name}, "/")
	return orphan{Orphan: o, site: v.site, holding: h}
}

// stale are the records of what is gone, and those that nobody finishes.
func (s *Server) stale(ctx context.Context, v *survey) ([]orphan, error) {
	site, there := v.site, map[string]bool{}
	for _, h := range v.holdings.List {
		if h.Kind != record.HoldingTrash {
			there[h.Name] = true
		}
	}
	var list []orphan
	for _, k := range v.records.list {
		if !ofCluster(k.record, site.Entry.ID) {
			continue
		}
		why, effect, err := s.staleness(ctx, k, there)
		if err != nil {
			return nil, err
		}
		if why == "" {
			continue
		}
		lease, err := k.store.Lease(ctx, k.key)
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		o := volumeapi.Orphan{
			Kind: volumeapi.OrphanRecord, Driver: k.record.Driver, Cluster: site.Entry.ID, Name: k.record.Name, Where: record.Pool,
			Why: why, Effect: effect, Claim: claimOf(k.record), Touched: lease.Changed.UTC(), Bytes: k.record.Size,
		}
		o.ID = strings.Join([]string{string(o.Driver), o.Kind, string(o.Cluster), k.record.Kind, k.record.Incarnation}, "/")
		if lease.Held || s.Now().Sub(lease.Changed) < settled {
			continue // somebody is at it, or may come back
		}
		o.Kept = occupied(k.record)
		list = append(list, orphan{Orphan: o, site: site, kept: &k})
	}
	return list, nil
}

// occupied says why a record must stay, "" if it need not.
func occupied(r *record.Record) string {
	switch {
	case len(r.Published) > 0:
		return "it is published to " + strings.Join(publishedNodes(r), ", ") + ": unpublish it first"
	case len(r.Users) > 0:
		return fmt.Sprintf("%d read-only volumes show it: delete them first", len(r.Users))
	}
	return ""
}

// staleness says why a record is one of nothing, "" if it is not. there are the names that were
// listed before it was read; what is not among them is looked for again.
func (s *Server) staleness(ctx context.Context, k kept, there map[string]bool) (why, effect string, err error) {
	switch r := k.record; {
	case r.State == record.Creating:
		return "it was begun, and nobody goes on with it", "removes what was made of it, and the record; who still wants it asks again", nil
	case r.State == record.Deleting:
		return "its deletion was begun, and nobody goes on with it", "finishes the deletion" + foreignLoss(r), nil
	case r.ReadOnly || there[r.BackendName()]:
		return "", "", nil
	}
	missing, err := s.missing(ctx, k)
	if err != nil || !missing {
		return "", "", err
	}
	return k.record.BackendName() + " is missing: it was removed behind Holdfast's back, and its data is lost",
		"removes the record; a PersistentVolume or VolumeSnapshotContent that names it is to be deleted too", nil
}

// foreignLoss says what finishing the deletion of a volume or snapshot of ceph-csi's deletes: it may be whole, and in use
// by ceph-csi again.
func foreignLoss(r *record.Record) string {
	switch {
	case r.Foreign == nil:
		return ""
	case r.Kind == record.KindSnapshot:
		return fmt.Sprintf(": deletes ceph-csi's snapshot %s of %s, if ceph-csi's journal still has it", r.Foreign.Image, r.Foreign.Source)
	}
	return fmt.Sprintf(": deletes %s, which ceph-csi made, and all data in it, if ceph-csi's journal still has it; do not, if the volume was moved back to ceph-csi", r.Foreign.Image)
}

// missing looks for what a ready record describes, and reports that it is gone though the record
// is still there and as it was.
func (s *Server) missing(ctx context.Context, k kept) (bool, error) {
	there, err := s.Backend.Present(ctx, k.site, []*record.Record{k.record})
	if err != nil || there[0] {
		return false, err
	}
	now, err := k.store.Read(ctx, k.key)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil && now.Incarnation == k.record.Incarnation && now.State == record.Ready, err
}

// deleteOrphan deletes one that was found a moment ago.
func (s *Server) deleteOrphan(ctx context.Context, o orphan) error {
	if o.Kept != "" {
		return fault.New(fault.Busy, "%s", o.Kept)
	}
	if o.kept != nil {
		return s.deleteStale(ctx, *o.kept)
	}
	// Nobody can make a record for it any more; that no client has it open the backend looks at
	// once more.
	if err := s.Backend.Discard(ctx, o.site, *o.holding); err != nil {
		return err
	}
	s.janitor.wake(o.site, o.holding.Incarnation)
	return nil
}

// deleteStale takes a record to nothing under its lease, if it is as it was.
func (s *Server) deleteStale(ctx context.Context, k kept) error {
	lease, err := k.store.Lease(ctx, k.key)
	if err == nil && lease.Held {
		return fault.New(fault.Busy, "%s works on it", lease.Holder)
	}
	if err == nil {
		_, err = flight.Do(ctx, s.flights, k.key, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.undoStale(ctx, k) })
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func (s *Server) undoStale(ctx context.Context, k kept) error {
	work, held, err := k.store.Hold(ctx, k.key)
	if err != nil {
		return err
	}
	defer held.Release(ctx)
	r := held.Record
	if r.Incarnation != k.record.Incarnation || r.State != k.record.State {
		return fault.New(fault.Aborted, "somebody has gone on with it: it is %s now", r.State)
	}
	if why := occupied(r); why != "" {
		return fault.New(fault.Busy, "%s", why)
	}
	if r.State == record.Ready {
		missing, err := s.missing(work, k)
		if err != nil {
			return err
		}
		if !missing {
			return fault.New(fault.Aborted, "%s is there again", r.BackendName())
		}
	}
	if r.Kind == record.KindSnapshot {
		return held.Outcome(s.dropSnapshot(work, k.site, held))
	}
	return held.Outcome(s.finishDelete(work, k.site, held))
}
