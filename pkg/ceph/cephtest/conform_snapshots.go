package cephtest

import (
	"crypto/rand"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// newImage makes an image of 64 MiB with a snapshot "s".
func newImage(t *testing.T, images ceph.Images) string {
	t.Helper()
	name := "hf-conformance-" + rand.Text()
	spec := ceph.ImageSpec{Size: 64 * storage.MiB, Metadata: map[string]string{"key": "v"}}
	want(t, "create", images.Create(t.Context(), name, spec), nil)
	want(t, "snapshot", images.CreateSnapshot(t.Context(), name, "s"), nil)
	return name
}

func wantSnapshots(t *testing.T, images ceph.Images, name string, expected ...ceph.ImageSnapshot) {
	t.Helper()
	list, err := images.Snapshots(t.Context(), name)
	want(t, "snapshots", err, nil)
	ids := map[uint64]bool{0: true}
	for i := range list {
		if ids[list[i].ID] {
			t.Fatalf("a snapshot without an id of its own: %+v", list)
		}
		ids[list[i].ID], list[i].ID = true, 0
		if list[i].Removed {
			list[i].Name = ""
		}
	}
	if diff := cmp.Diff(expected, list); diff != "" {
		t.Fatal(diff)
	}
}

func conformSnapshots(t *testing.T, clients Clients) {
	ctx := t.Context()
	images := clients.A.Images("rbd", "")
	absent := "hf-conformance-" + rand.Text()
	want(t, "snapshot of an absent image", images.CreateSnapshot(ctx, absent, "s"), fault.NotFound)
	want(t, "removal of a snapshot of an absent image", images.RemoveSnapshot(ctx, absent, "s"), fault.NotFound)
	_, err := images.Snapshots(ctx, absent)
	want(t, "snapshots of an absent image", err, fault.NotFound)
	_, err = clients.A.Images("no-such-pool", "").Snapshots(ctx, absent)
	want(t, "snapshots in an absent pool", err, fault.Precondition)

	name := newImage(t, images)
	want(t, "snapshot of a name that is taken", images.CreateSnapshot(ctx, name, "s"), fault.Exists)
	want(t, "resize", images.Resize(ctx, name, 128*storage.MiB), nil)
	want(t, "second snapshot", images.CreateSnapshot(ctx, name, "t"), nil)
	wantSnapshots(t, images, name, ceph.ImageSnapshot{Name: "s", Size: 64 * storage.MiB}, ceph.ImageSnapshot{Name: "t", Size: 128 * storage.MiB})
	want(t, "removal of an image with snapshots", images.Remove(ctx, name), fault.Busy)
	want(t, "removal of an absent snapshot", images.RemoveSnapshot(ctx, name, "u"), fault.NotFound)
	want(t, "removal of a snapshot", images.RemoveSnapshot(ctx, name, "s"), nil)
	want(t, "second removal", images.RemoveSnapshot(ctx, name, "s"), fault.NotFound)

	renamed := name + "-r"
	other := newImage(t, images)
	want(t, "rename to a taken name", images.Rename(ctx, name, other), fault.Exists)
	want(t, "rename of an absent image", images.Rename(ctx, absent, renamed), fault.NotFound)
	want(t, "rename", images.Rename(ctx, name, renamed), nil)
	wantSnapshots(t, images, renamed, ceph.ImageSnapshot{Name: "t", Size: 128 * storage.MiB})
	_, err = images.Info(ctx, name)
	want(t, "info by the old name", err, fault.NotFound)
	want(t, "removal of the last snapshot", images.RemoveSnapshot(ctx, renamed, "t"), nil)
	wantSnapshots(t, images, renamed)
	want(t, "remove", images.Remove(ctx, renamed), nil)
	want(t, "removal of the other snapshot", images.RemoveSnapshot(ctx, other, "s"), nil)
	want(t, "remove the other", images.Remove(ctx, other), nil)
}
