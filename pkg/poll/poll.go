// Package poll waits for what nobody announces. Imports the standard library only.
package poll

import (
	"context"
	"time"
)

// Until calls done at once and then every interval until it reports true or fails, or
// ctx ends (then it returns ctx's error).
func Until(ctx context.Context, interval time.Duration, done func() (bool, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}
