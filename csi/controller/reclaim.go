package controller

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// ReclaimObserver counts what is given back to the cluster.
type ReclaimObserver interface {
	// Reclaimed: bytes of a volume were given back by trim or sparsify, or not because of err.
	Reclaimed(driver storage.Driver, how string, bytes storage.Bytes, err error)
}

// sparsifyLimit bounds the work on one image: librbd reads all that is allocated.
const sparsifyLimit = 6 * time.Hour

// Sparsify gives the zeros of a volume that no node has back to the pool. It does not hold the
// record's lease meanwhile: a node that wants the volume need not wait, and harms nothing.
func (s *Server) Sparsify(ctx context.Context, id string) (volumeapi.Reclaimed, error) {
	done := volumeapi.Reclaimed{How: "sparsify"}
	h, err := s.handle(id)
	if err != nil {
		return done, err
	}
	site, r, err := s.find(ctx, h, nil)
	if err != nil {
		return done, err
	}
	done.Name = r.Name
	ctx, cancel := context.WithTimeout(ctx, sparsifyLimit)
	defer cancel()
	done.Before, done.After, err = s.sparsify(ctx, site, r)
	return done, err
}

func (s *Server) sparsify(ctx context.Context, site clustermap.Site, r *record.Record) (before, after storage.Bytes, err error) {
	if r.State != record.Ready {
		return 0, 0, fault.New(fault.Precondition, "volume %q is %s", r.Name, r.State)
	}
	if nodes := publishedNodes(r); len(nodes) > 0 {
		return 0, 0, fault.New(fault.Busy, "volume %q is in use on %s: reclaim its space there, from its file system", r.Name, strings.Join(nodes, ", "))
	}
	before, err = s.Backend.Allocated(ctx, site, r)
	if err == nil {
		err = s.Backend.Sparsify(ctx, site, r)
	}
	if err == nil {
		after, err = s.Backend.Allocated(ctx, site, r)
	}
	if s.Reclaims != nil {
		s.Reclaims.Reclaimed(s.Backend.Driver(), "sparsify", max(0, before-after), err)
	}
	if err == nil {
		s.log(r).Info("volume sparsified", "before", before.String(), "after", after.String())
	}
	return before, after, err
}

// SparsifyEvery does this for all volumes that no node has, one after the other, every so often
// until ctx ends. The first round begins at a random moment within the first period, so that
// controllers do not do it all at once.
func (s *Server) SparsifyEvery(ctx context.Context, every time.Duration) error {
	if every <= 0 || s.Backend.Driver() != storage.RBD {
		return nil
	}
	timer := time.NewTimer(rand.N(every)) //nolint:gosec // spreads load, hides nothing
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		s.SparsifyAll(ctx)
		timer.Reset(every)
	}
}

// SparsifyAll is one round.
func (s *Server) SparsifyAll(ctx context.Context) {
	_, _ = s.eachSite(ctx, func(site clustermap.Site) error {
		keys, err := s.volumesThat(ctx, site, func(r *record.Record) bool { return idle(r) && ofCluster(r, site.Entry.ID) })
		if err != nil {
			return err
		}
		for _, key := range keys {
			r, err := s.store(site).Read(ctx, key) // it may have been published or deleted meanwhile
			if err == nil && idle(r) {
				bounded, cancel := context.WithTimeout(ctx, sparsifyLimit)
				_, _, err = s.sparsify(bounded, site, r)
				cancel()
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil && !errors.Is(err, fault.NotFound) {
				s.Log.Warn("volume could not be sparsified", obs.KeyDriver, s.Backend.Driver(), "key", key, obs.KeyError, err)
			}
		}
		return nil
	})
}

// idle tells that a volume can be sparsified.
func idle(r *record.Record) bool {
	return r.State == record.Ready && len(r.Published) == 0 && r.Encryption == nil
}

// Allocated is what a volume takes, in bytes.
func (s *Server) Allocated(ctx context.Context, id string) (name string, bytes storage.Bytes, err error) {
	h, err := s.handle(id)
	if err != nil {
		return "", 0, err
	}
	site, r, err := s.find(ctx, h, nil)
	if err != nil {
		return "", 0, err
	}
	bytes, err = s.Backend.Allocated(ctx, site, r)
	return r.Name, bytes, err
}
