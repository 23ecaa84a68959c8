package ceph

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// patience is how long a cluster may take for an election.
const patience = 2 * time.Minute

// tryEvery is the pause before another try.
const tryEvery = time.Second

// Passing reports an error that the cluster may recover from: a monitor election, a manager that is replaced.
func Passing(err error) bool { return errors.Is(err, fault.Unavailable) }

// Patiently tries again, for two minutes, what such an error has kept from working. failed is called after each such try. The error is the
// last one, or that of ctx.
func Patiently(ctx context.Context, failed func(), try func() error) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	err := poll.Until(limited, tryEvery, func() (bool, error) {
		if last = try(); last == nil {
			return true, nil
		}
		if !Passing(last) {
			return false, last
		}
		failed()
		return false, nil
	})
	if err != nil && ctx.Err() == nil && last != nil {
		return last
	}
	return err
}
