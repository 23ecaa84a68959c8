package crash

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// entry is an RPC under test. All functions are given a controller to call; call alone
// is given one that dies.
type entry struct {
	rpc   string
	setUp func(context.Context, csi.ControllerClient, *subject) error // before the call
	call  func(context.Context, csi.ControllerClient, *subject) error
	check func(context.Context, *subject) error                       // after a call that succeeded
	undo  func(context.Context, csi.ControllerClient, *subject) error // takes all away, from any state
}

// entries are the RPCs that change something.
func (b *bed) entries() []entry {
	gone := func(ctx context.Context, s *subject) error {
		if _, err := b.record(ctx, s); !isNotFound(err) {
			return fmt.Errorf("%s has a record still (%v)", s.name, err)
		}
		return nil
	}
	published := func(want bool) func(context.Context, *subject) error {
		return func(ctx context.Context, s *subject) error {
			r, err := b.record(ctx, s)
			if err != nil {
				return err
			}
			if _, there := r.Published[nodeID]; there != want {
				return fmt.Errorf("%s: published to the node is %v", s.name, there)
			}
			return b.whole(ctx, s)
		}
	}
	return []entry{
		{rpc: "CreateVolume", call: b.create, check: b.whole, undo: b.away},
		{rpc: "DeleteVolume", setUp: b.create, call: b.delete, check: gone, undo: b.away},
		{
			rpc: "ControllerExpandVolume", setUp: b.create, undo: b.away,
			call: func(ctx context.Context, c csi.ControllerClient, s *subject) error { return b.expand(ctx, c, s, grown) },
			check: func(ctx context.Context, s *subject) error {
				if s.size != grown {
					return fmt.Errorf("%s has %d bytes, want %d", s.name, s.size, grown)
				}
				return b.whole(ctx, s)
			},
		},
		{rpc: "ControllerPublishVolume", setUp: b.create, call: b.publish, check: published(true), undo: b.away},
		{
			rpc: "ControllerUnpublishVolume", call: b.unpublish, check: published(false), undo: b.away,
			setUp: func(ctx context.Context, c csi.ControllerClient, s *subject) error {
				return errors.Join(b.create(ctx, c, s), b.publish(ctx, c, s))
			},
		},
	}
}
