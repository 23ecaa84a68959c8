package controller

import (
	"context"
	"errors"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/flight"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// Rewrap wraps the key of an encrypted volume or snapshot anew, by the passphrase that the secrets
// or the KMS hold now. The image comes before the record: cut off in between, another
// rewrap with both passphrases finishes it.
func (s *Server) Rewrap(ctx context.Context, id string, secrets map[string]string) (volumeapi.Rewrapped, error) {
	var done volumeapi.Rewrapped
	h, err := s.handle(id)
	if err != nil {
		return done, err
	}
	return flight.Do(ctx, s.flights, h.NameHash, func(ctx context.Context) (volumeapi.Rewrapped, error) {
		site, err := s.connect(ctx, h.Cluster, secrets)
		if err != nil {
			return done, err
		}
		work, held, err := s.storeOf(ctx, site, h).Hold(ctx, h.NameHash)
		if err != nil {
			return done, err
		}
		defer held.Release(ctx)
		r := held.Record
		if err := isOf(r, h); err != nil {
			return done, err
		}
		if r.State != record.Ready {
			return done, fault.New(fault.Precondition, "%s %q is %s", r.Kind, r.Name, r.State)
		}
		if err := s.Backend.Rewrap(work, site, r); err != nil {
			return done, held.Outcome(err)
		}
		if err := held.Finish(work); err != nil {
			return done, held.Outcome(err)
		}
		s.log(r).Info("key wrapped anew", "kms", r.Encryption.KMS)
		return volumeapi.Rewrapped{Name: r.Name, Kind: r.Kind, KMS: r.Encryption.KMS}, nil
	})
}

// storeOf returns the records among which the handle's is.
func (s *Server) storeOf(ctx context.Context, site clustermap.Site, h volumeid.Handle) *record.Store {
	if _, err := s.store(site).Read(ctx, h.NameHash); errors.Is(err, fault.NotFound) {
		return s.snapshots(site)
	}
	return s.store(site)
}
