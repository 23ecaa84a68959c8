package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
)

// joinWithin is how long the coordinators may be away when somebody joins.
const joinWithin = time.Minute

// identify opens the certificate of this process. Where there is none yet it is had for a token, which is given as such or by the name of a
// file that holds it; addresses are those of the coordinators that the token names.
func identify(ctx context.Context, dir, join string) (store *certs.Store, addresses []string, err error) {
	var token certs.Token
	if join != "" {
		if data, err := os.ReadFile(join); err == nil {
			join = strings.TrimSpace(string(data))
		}
		if token, err = certs.ParseToken(join); err != nil {
			return nil, nil, fmt.Errorf("--join: %w", err)
		}
	}
	store, err = certs.Open(dir)
	if errors.Is(err, fault.NotFound) && join != "" {
		ctx, cancel := context.WithTimeout(ctx, joinWithin)
		defer cancel()
		if err := coordinatorapi.Join(ctx, token, dir); err != nil {
			return nil, nil, err
		}
		store, err = certs.Open(dir)
	}
	return store, token.Addresses, err
}
