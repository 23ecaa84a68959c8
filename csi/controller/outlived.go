package controller

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// A controller that stood still for longer than its lease goes on with the call of Ceph's
// library that it was in, which nothing can stop. What that call makes belongs to nobody if
// another controller deleted the volume meanwhile, its record last. So after a lost lease
// the maker looks whether the record is still there, and again when late calls have ended.

// looks is how often, at lookAgain's distance: Ceph's own time-outs end a call before the last.
const looks = 4

// creation is one that lost its lease.
type creation struct {
	key    string
	record record.Record
	looked int
}

// outlived asks for what a creation made after its lease was lost to be taken back.
func (j *janitor) outlived(site clustermap.Site, c creation) {
	j.note(site, func(all *chores) { all.outlived = append(all.outlived, c) })
}

// suspect notes a creation that ended with err if its lease may have been lost.
func (s *Server) suspect(site clustermap.Site, key string, r *record.Record, err error) {
	if errors.Is(err, fault.Aborted) {
		s.janitor.outlived(site, creation{key: key, record: *r})
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
	if c.looked++; c.looked < looks {
		time.AfterFunc(lookAgain, func() { s.janitor.outlived(site, c) })
	}
	have, err := store.Read(ctx, c.key)
	if err == nil && have.Incarnation == c.record.Incarnation {
		return nil // it is that record's owner's business
	}
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	if err := remove(ctx, site, &c.record); err != nil {
		return err
	}
	s.janitor.wake(site)
	return nil
}
