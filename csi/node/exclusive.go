package node

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// lastWord is how long work whose context has ended may take to say why it did not get done.
const lastWord = 100 * time.Millisecond

// exclusive runs work as the only one on the volume. What it calls can hang in the kernel, where
// nothing interrupts it: umount(2) writes back what is dirty, closing a block device does, too. So
// work has a goroutine of its own, and the caller is answered when ctx ends. The volume stays locked
// until work has ended: those who come meanwhile wait, and are answered likewise.
func (s *Server) exclusive(ctx context.Context, volume string, work func() error) error {
	unlock, err := s.locks.Lock(ctx, volume)
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Unavailable, "another call for the volume is still under way on this node: if the cluster does not answer "+
			"(`ceph status`, network), it goes on by itself when it does; ask again: %v", err)
	}
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	s.work.Go(func() {
		defer unlock()
		done <- work()
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(lastWord):
		return fault.New(fault.Unavailable, "the kernel has not come to an end with it, as a rule because the cluster does not take what is to be written back: "+
			"look at `ceph status` and the network; it goes on by itself when the cluster answers; ask again: %v", ctx.Err())
	}
}

// Wait returns when all work has ended, also what its callers gave up on. No call may come after.
func (s *Server) Wait() { s.work.Wait() }
