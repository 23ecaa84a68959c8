package transfer

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// each calls do for the numbers from begin to end, several at once, and then passed for each in order, one at a time.
func (c *Copier) each(ctx context.Context, begin, end int, do func(context.Context, int) error, passed func(int) error) error {
	workers := c.Workers
	if workers <= 0 {
		workers = defaultWorkers
	}
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	next.Store(int64(begin))
	waiting := map[int]bool{} // done, and one before them is not
	at := begin
	for range min(workers, end-begin) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= end {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := do(ctx, i); err != nil {
					return err
				}
				if err := c.pass(waiting, &at, i, passed); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// pass notes that i is done, and calls passed for all that have their turn.
func (c *Copier) pass(waiting map[int]bool, at *int, i int, passed func(int) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting[i] = true
	for waiting[*at] {
		delete(waiting, *at)
		*at++
		if err := passed(*at - 1); err != nil {
			return err
		}
	}
	return nil
}
