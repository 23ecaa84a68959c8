package controller

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// A controller that stood still for longer than its lease goes on with the call of Ceph's
// library that it was in, which nothing can stop; one that gave a call up cannot stop it either.
// What such a call makes belongs to nobody if another controller deleted the volume meanwhile,
// its record last. So after every creation that neither came to its end nor was taken back under
// its lease, the maker looks whether the record is still there, and again when late calls
// have ended. A maker that is killed before looks no more: `holdfast volume orphans` finds the rest.

const (
	// looks is how often, at lookAgain's distance: Ceph's own time-outs end a call before the last.
	looks = 4
	// tries bounds those that see nothing because the cluster does not answer: about an hour.
	tries = 120
	// mendLimit bounds what a caller who gets an error waits for besides.
	mendLimit = 10 * time.Second
)

// creation is one that may have lost its lease.
type creation struct {
	key    string
	record record.Record
	// entry is the cluster map's of that time: with another RADOS namespace its record would seem to be gone.
	entry clustermap.Cluster
	// stays: it was there before, and is not taken back whatever becomes of its record.
	stays  bool
	looked int
	failed int // looks
}

// outlived asks for what a creation made after its lease was lost to be taken back.
func (j *janitor) outlived(site clustermap.Site, c creation) {
	j.note(site, func(all *chores) { // once, however often it was asked for
		if known, ok := all.outlived[c.record.Incarnation]; !ok || known.stays || !c.stays {
			all.outlived[c.record.Incarnation] = c
		}
	})
}

// suspect notes a creation that failed, unless it was taken back under its lease, which is let go of.
// What the error is does not matter: that of a call which another controller has spoiled may be any.
func (s *Server) suspect(ctx context.Context, site clustermap.Site, key string, held *record.Held) {
	s.doubt(ctx, site, held, creation{key: key, record: *held.Record})
}

// suspectExpansion notes one that failed likewise.
func (s *Server) suspectExpansion(ctx context.Context, site clustermap.Site, key string, held *record.Held) {
	s.doubt(ctx, site, held, creation{key: key, record: *held.Record, stays: true})
}

func (s *Server) doubt(ctx context.Context, site clustermap.Site, held *record.Held, c creation) {
	if held.Ended() {
		return
	}
	c.entry = site.Entry
	s.janitor.outlived(site, c)
	if s.Backend.Driver() != storage.CephFS || c.record.Kind != record.KindVolume {
		return
	}
	held.Release(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mendLimit)
	defer cancel()
	if err := s.mend(ctx, site, c); err != nil {
		s.Log.Warn("the size of a volume cannot be looked at; it is tried again", obs.KeyDriver, s.Backend.Driver(), obs.KeyName, c.record.Name, obs.KeyError, err)
	}
}

// mend brings a volume back to the size in its record. A manager that is asked late by a controller which was
// overtaken sets the quota that was to be then, though another has raised it since (`fs subvolume resize`, and
// no_shrink looks at what is used). Whoever asked knows best that it may have happened: the manager serves one
// client's commands in turn, so this look comes after it.
func (s *Server) mend(ctx context.Context, site clustermap.Site, c creation) error {
	unlike := func(r *record.Record) bool {
		return r.Incarnation != c.record.Incarnation || r.State != record.Ready || r.ReadOnly
	}
	have, err := s.store(site).Read(ctx, c.key)
	if errors.Is(err, fault.NotFound) || err == nil && unlike(have) {
		return nil
	}
	if err != nil {
		return err
	}
	work, held, err := s.store(site).Hold(ctx, c.key)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Release(ctx)
	if unlike(held.Record) {
		return nil
	}
	_, err = s.Backend.Expand(work, site, held.Record, held.Record.Size)
	return held.Outcome(err)
}

// takeBack removes what the creation made, unless its record is there.
func (s *Server) takeBack(ctx context.Context, site clustermap.Site, c creation) error {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	site.Entry = c.entry
	store, remove := s.store(site), s.Backend.Delete
	if c.record.Kind == record.KindSnapshot {
		store, remove = s.snapshots(site), s.Backend.DeleteSnapshot
	}
	have, err := store.Read(ctx, c.key)
	switch {
	case err == nil && have.Incarnation == c.record.Incarnation:
		// It is that record's owner's business, but for what was done to it late.
		if s.Backend.Driver() == storage.CephFS && c.record.Kind == record.KindVolume {
			err = s.mend(ctx, site, c)
		}
	case c.stays && errors.Is(err, fault.NotFound):
		err = nil
	case !c.stays && (err == nil || errors.Is(err, fault.NotFound)):
		err = remove(ctx, site, &c.record)
		s.janitor.wake(site, c.record.Incarnation)
	}
	if err == nil { // a look that failed has seen nothing, and does not count as one
		c.looked++
	} else {
		c.failed++
	}
	switch {
	case c.failed >= tries:
		s.Log.Warn("what a creation without a lease made is looked for no more: see `holdfast volume orphans`",
			obs.KeyDriver, s.Backend.Driver(), obs.KeyName, c.record.Name, obs.KeyVolume, c.record.BackendName(), obs.KeyError, err)
	case c.looked < looks:
		s.retry(site, err, func() { s.janitor.outlived(site, c) })
	}
	return err
}
