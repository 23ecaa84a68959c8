package crash

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/record"
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
			return fmt.Errorf("%s has a record still (%w)", s.name, err)
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
		{rpc: "CreateSnapshot", setUp: b.create, call: b.snap, check: b.snapped, undo: b.awayWithSnapshot},
		{
			rpc: "DeleteSnapshot", setUp: b.createAndSnap, undo: b.awayWithSnapshot,
			call: func(ctx context.Context, c csi.ControllerClient, s *subject) error {
				_, err := c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: s.snapshot, Secrets: b.secrets})
				return err
			},
			check: func(ctx context.Context, s *subject) error {
				if _, err := b.recordOf(ctx, s.driver, record.KindSnapshot, s.name); !isNotFound(err) {
					return fmt.Errorf("the snapshot of %s has a record still (%w)", s.name, err)
				}
				return b.whole(ctx, s)
			},
		},
		{rpc: "CreateVolume from a snapshot", setUp: b.fromSnapshot, call: b.create, check: b.cloned, undo: b.awayWithSource},
		{rpc: "CreateVolume from a volume", setUp: b.fromVolume, call: b.create, check: b.cloned, undo: b.awayWithSource},
		{
			rpc: "DeleteVolume with a snapshot", setUp: b.createAndSnap, call: b.delete, undo: b.awayWithSnapshot,
			check: func(ctx context.Context, s *subject) error {
				r, err := b.recordOf(ctx, s.driver, record.KindSnapshot, s.name)
				if err == nil && r.State != record.Ready {
					err = fmt.Errorf("the snapshot of %s is %s", s.name, r.State)
				}
				return errors.Join(err, gone(ctx, s))
			},
		},
	}
}

// snap takes a snapshot of the subject, by its name.
func (b *bed) snap(ctx context.Context, c csi.ControllerClient, s *subject) (err error) {
	s.snapshot, err = b.takeSnapshot(ctx, c, s, s.name)
	return err
}

func (b *bed) createAndSnap(ctx context.Context, c csi.ControllerClient, s *subject) error {
	if err := b.create(ctx, c, s); err != nil {
		return err
	}
	return b.snap(ctx, c, s)
}

// withSource makes the volume that the subject is to be made from.
func (b *bed) withSource(ctx context.Context, c csi.ControllerClient, s *subject) error {
	if s.source == nil {
		s.source = &subject{driver: s.driver, features: s.features, name: s.name + " source"}
	}
	return b.create(ctx, c, s.source)
}

func (b *bed) fromVolume(ctx context.Context, c csi.ControllerClient, s *subject) error {
	if err := b.withSource(ctx, c, s); err != nil {
		return err
	}
	s.content = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: s.source.id},
	}}
	return nil
}

func (b *bed) fromSnapshot(ctx context.Context, c csi.ControllerClient, s *subject) error {
	if err := b.withSource(ctx, c, s); err != nil {
		return err
	}
	if err := b.snap(ctx, c, s.source); err != nil {
		return err
	}
	s.content = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: s.source.snapshot},
	}}
	return nil
}

func (b *bed) awayWithSnapshot(ctx context.Context, c csi.ControllerClient, s *subject) error {
	return errors.Join(b.dropSnapshot(ctx, c, s.driver, s.name), b.away(ctx, c, s))
}

func (b *bed) awayWithSource(ctx context.Context, c csi.ControllerClient, s *subject) error {
	if err := b.away(ctx, c, s); err != nil || s.source == nil {
		return err
	}
	return b.awayWithSnapshot(ctx, c, s.source)
}
