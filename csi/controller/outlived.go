package controller

import (
	"context"
	"errors"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// A controller that stood still for longer than its lease goes on with the call of Ceph's
// library that it was in, which nothing can stop; one that gave a call up cannot stop it either.
// What such a call makes belongs to nobody if another controller deleted the volume meanwhile,
// its record last. So after every creation that neither came to its end nor was taken back under
// its lease, the maker looks whether the record is still there, and again when late calls
// have ended. A maker that is killed before looks no more: `holdfast volume orphans` finds the rest.

// looks is how often, at lookAgain's distance: Ceph's own time-outs end a call before the last.
const looks = 4

// creation is one that may have lost its lease.
type creation struct {
	key    string
	record record.Record
	looked int
}

// outlived asks for what a creation made after its lease was lost to be taken back.
func (j *janitor) outlived(site clustermap.Site, c creation) {
	j.note(site, func(all *chores) { all.outlived[c.record.Incarnation] = c }) // once, however often it was asked for
}

// suspect notes a creation that failed, unless it was taken back under its lease. What the
// error is does not matter: that of a call which another controller has spoiled may be any.
func (s *Server) suspect(site clustermap.Site, key string, held *record.Held) {
	if !held.Ended() {
		s.janitor.outlived(site, creation{key: key, record: *held.Record})
	}
}

// takeBack removes what the creation made, unless its record is there.
func (s *Server) takeBack(ctx context.Context, site clustermap.Site, c creation) error {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	store, remove := s.store(site), s.Backend.Delete
	if c.record.Kind == record.KindSnapshot {
		store, remove = s.snapshots(site), s.Backend.DeleteSnapshot
	}
	have, err := store.Read(ctx, c.key)
	switch {
	case err == nil && have.Incarnation == c.record.Incarnation:
		// It is that record's owner's business.
	case err == nil || errors.Is(err, fault.NotFound):
		err = remove(ctx, site, &c.record)
		s.janitor.wake(site, c.record.Incarnation)
	}
	if err == nil { // a look that failed has seen nothing, and does not count
		c.looked++
	}
	if c.looked < looks {
		s.retry(site, err, func() { s.janitor.outlived(site, c) })
	}
	return err
}
