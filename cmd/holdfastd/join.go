package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
)

// joinWithin is how long the coordinators may be away when somebody joins.
const joinWithin = time.Minute

// identify opens the certificate of this process, which is id. Where there is none yet, or it has expired, it is had for a token, which is given
// as such or by the name of a file that holds it. One that has expired is used as long as there is no other: the node's own work goes on.
func identify(ctx context.Context, dir, join string, id certs.Identity, log *slog.Logger) (*certs.Store, error) {
	store, err := certs.Open(dir)
	none := errors.Is(err, fault.NotFound)
	if expired := err == nil && time.Now().After(store.Expires()); join != "" && (none || expired) {
		joined := joinBy(ctx, dir, join, id)
		if none && joined != nil {
			return nil, joined
		}
		if joined != nil {
			log.Error("the certificate has expired, and there is no other", obs.KeyError, joined)
		}
		store, err = certs.Open(dir)
	}
	if err != nil {
		return nil, err
	}
	if store.Identity().Role != id.Role || id.Name != "" && store.Identity() != id {
		return nil, fault.New(fault.Denied, "the certificate in %s is for %s, and this is %s: --node-id or --name says who this is", dir, store.Identity(), id)
	}
	return store, nil
}

func joinBy(ctx context.Context, dir, join string, id certs.Identity) error {
	if !certs.IsToken(join) {
		data, err := os.ReadFile(join)
		if err != nil {
			return fmt.Errorf("--join: neither a token nor a file with one: %w", err)
		}
		join = string(data)
	}
	token, err := certs.ParseToken(join)
	if err != nil {
		return fmt.Errorf("--join: %w", err)
	}
	if id.Name == "" {
		id.Name = token.For.Name
	}
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	return coordinatorapi.Join(ctx, token, id, dir)
}
