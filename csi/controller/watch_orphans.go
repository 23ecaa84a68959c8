package controller

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// OrphanObserver is told how many orphans of each kind there are.
type OrphanObserver interface {
	Orphans(driver storage.Driver, byKind map[string]int)
}

const (
	// orphanRounds is the pause between two searches: each looks at every image once.
	orphanRounds = 6 * time.Hour
	// firstOrphans bounds the wait for the first one.
	firstOrphans = 10 * time.Minute
)

// census is what the last search found.
type census struct {
	mu   sync.Mutex
	last volumeapi.Summary
}

// Summary tells what the last search found, without another one.
func (s *Server) Summary() volumeapi.Summary {
	s.census.mu.Lock()
	defer s.census.mu.Unlock()
	return s.census.last
}

// WatchOrphans searches from time to time until ctx ends, and deletes nothing.
func (s *Server) WatchOrphans(ctx context.Context) error {
	timer := time.NewTimer(rand.N(firstOrphans)) //nolint:gosec // spreads load, hides nothing
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if _, err := s.Orphans(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("orphans cannot be looked for", obs.KeyDriver, s.Backend.Driver(), obs.KeyError, err)
		}
		timer.Reset(orphanRounds)
	}
}

// count keeps what a search found.
func (s *Server) count(list []volumeapi.Orphan) {
	byKind := map[string]int{}
	for _, kind := range volumeapi.OrphanKinds() {
		byKind[kind] = 0
	}
	for _, o := range list {
		byKind[o.Kind]++
	}
	s.census.mu.Lock()
	s.census.last = volumeapi.Summary{At: s.Now().UTC(), Orphans: byKind}
	s.census.mu.Unlock()
	if s.OrphanCounts != nil {
		s.OrphanCounts.Orphans(s.Backend.Driver(), byKind)
	}
}
