package controller_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// scenario is a call that is cut off at each of its operations on the cluster. prepare
// makes what it needs; act is the call.
type scenario struct {
	name    string
	prepare func(*testing.T, *bench)
	act     func(*testing.T, *bench) error
}

func scenarios() []scenario {
	nothing := func(*testing.T, *bench) {}
	volume := func(t *testing.T, b *bench) { b.make(t, "v") }
	snapshot := func(t *testing.T, b *bench) { b.snapshot(t, "s", b.make(t, "v")) }
	return []scenario{
		{"create", nothing, func(t *testing.T, b *bench) error { return b.create(t, b.request("v", storage.GiB)) }},
		{"delete", volume, func(t *testing.T, b *bench) error { return b.remove(t, b.id("v")) }},
		{"snapshot", volume, func(t *testing.T, b *bench) error {
			request := b.snapshotRequest("s", b.id("v"))
			b.asked.snapshotRequests["s"] = request
			_, err := b.CreateSnapshot(t.Context(), request)
			return err
		}},
		{"delete snapshot", snapshot, func(t *testing.T, b *bench) error { return b.dropSnapshot(t, b.snapshotID("s")) }},
		{"delete a volume that has a snapshot", snapshot, func(t *testing.T, b *bench) error { return b.remove(t, b.id("v")) }},
		{"restore", snapshot, func(t *testing.T, b *bench) error {
			return b.create(t, b.copyRequest("r", 2*storage.GiB, b.snapshotID("s"), ""))
		}},
		{"clone", volume, func(t *testing.T, b *bench) error {
			return b.create(t, b.copyRequest("r", 2*storage.GiB, "", b.id("v")))
		}},
		{"delete a clone", func(t *testing.T, b *bench) {
			b.mustCreate(t, b.copyRequest("r", storage.GiB, "", b.make(t, "v").GetVolumeId()))
		}, func(t *testing.T, b *bench) error { return b.remove(t, b.id("r")) }},
	}
}

// operations counts the operations on the cluster of the scenario's call.
func (c scenario) operations(t *testing.T, driver storage.Driver) int {
	b := newBench(t, driver, cephtest.NewFake())
	c.prepare(t, b)
	count := 0
	b.fake.Hook(func(string) error { count++; return nil })
	b.must(t, c.act(t, b))
	b.fake.Hook(nil)
	return count
}

func TestCutOffAnywhereARetryFinishesAndADeleteLeavesNothing(t *testing.T) {
	for _, driver := range []storage.Driver{storage.RBD, storage.CephFS} {
		for _, c := range scenarios() {
			for n := range c.operations(t, driver) {
				t.Run(fmt.Sprintf("%s/%s/retried after a cut at %d", driver, c.name, n), func(t *testing.T) {
					t.Parallel()
					b := c.cutAt(t, driver, n)
					b.must(t, c.act(t, b))
					b.clear(t)
				})
				t.Run(fmt.Sprintf("%s/%s/given up after a cut at %d", driver, c.name, n), func(t *testing.T) {
					t.Parallel()
					c.cutAt(t, driver, n).clear(t)
				})
			}
		}
	}
}

// cutAt runs the scenario until its call's n-th operation, and returns another controller.
func (c scenario) cutAt(t *testing.T, driver storage.Driver, n int) *bench {
	b := newBench(t, driver, cephtest.NewFake())
	c.prepare(t, b)
	failAt(b.fake, n)
	_ = c.act(t, b)
	b.fake.Hook(nil)
	b.expireLeases()
	return b.another(t)
}

// clear deletes all that there may be, as a provisioner does: what was asked for and never
// answered is asked for again first. Nothing may be left of it.
func (b *bench) clear(t *testing.T) {
	t.Helper()
	for name, request := range b.asked.volumes {
		response, err := b.CreateVolume(t.Context(), request)
		if errors.Is(err, fault.NotFound) && request.GetVolumeContentSource() != nil {
			continue // its source went before
		}
		if err != nil {
			t.Fatalf("ask for volume %s again: %v", name, err)
		}
		b.must(t, b.remove(t, response.GetVolume().GetVolumeId()))
	}
	for name, request := range b.asked.snapshotRequests {
		if _, err := b.CreateSnapshot(t.Context(), request); err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Aborted) {
			t.Fatalf("ask for snapshot %s again: %v", name, err)
		}
	}
	list, err := b.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{})
	b.must(t, err)
	for _, e := range list.GetEntries() {
		b.must(t, b.dropSnapshot(t, e.GetSnapshot().GetSnapshotId()))
	}
	for _, id := range b.asked.snapshots { // those that are half deleted already
		b.must(t, b.dropSnapshot(t, id))
	}
	if left := b.left(t); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
}
