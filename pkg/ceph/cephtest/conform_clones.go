package cephtest

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func conformClones(t *testing.T, clients Clients) {
	ctx := t.Context()
	images := clients.A.Images("rbd", "")
	elsewhere := clients.A.Images("rbd", clients.Outside.Namespace(t, "rbd"))
	first := newImage(t, images)
	source := first + "-r"
	from := ceph.ImageSnapshotRef{Pool: "rbd", Image: source, Snapshot: "s"}
	clone := source + "-c"
	want(t, "rename of the source", images.Rename(ctx, first, source), nil)
	absent, noPool := from, from
	absent.Snapshot, noPool.Pool = "t", "no-such-pool"
	want(t, "clone of an absent snapshot", images.Clone(ctx, clone, absent, ceph.ImageSpec{}), fault.NotFound)
	want(t, "clone from an absent pool", images.Clone(ctx, clone, noPool, ceph.ImageSpec{}), fault.Precondition)
	want(t, "clone into an absent pool", clients.A.Images("no-such-pool", "").Clone(ctx, clone, from, ceph.ImageSpec{}), fault.Precondition)
	want(t, "resize of the source", images.Resize(ctx, source, 128*storage.MiB), nil)
	want(t, "clone", images.Clone(ctx, clone, from, ceph.ImageSpec{Size: storage.GiB, Metadata: map[string]string{"no": "no"}}), nil)
	want(t, "second clone of the name", images.Clone(ctx, clone, from, ceph.ImageSpec{}), fault.Exists)
	want(t, "clone into a namespace", elsewhere.Clone(ctx, clone, from, ceph.ImageSpec{}), nil)

	for _, at := range []ceph.Images{images, elsewhere} {
		info, err := at.Info(ctx, clone)
		want(t, "info of a clone", err, nil)
		if info.Parent != from || info.Size != 64*storage.MiB {
			t.Fatalf("clone %+v", info)
		}
		size, err := at.Size(ctx, clone)
		want(t, "size of a clone", err, nil)
		if size != info.Size {
			t.Fatalf("size %d, by its info %d", size, info.Size)
		}
		pairs, err := at.Metadata(ctx, clone)
		want(t, "metadata of a clone", err, nil)
		if diff := cmp.Diff(map[string]string{"key": "v"}, pairs); diff != "" {
			t.Fatal(diff)
		}
	}
	want(t, "removal of a snapshot with clones", images.RemoveSnapshot(ctx, source, "s"), nil)
	wantSnapshots(t, images, source, ceph.ImageSnapshot{Size: 64 * storage.MiB, Removed: true})
	want(t, "second removal", images.RemoveSnapshot(ctx, source, "s"), fault.NotFound)
	wantSnapshots(t, images, source, ceph.ImageSnapshot{Size: 64 * storage.MiB, Removed: true})
	want(t, "clone of a removed snapshot", images.Clone(ctx, clone+"2", from, ceph.ImageSpec{}), fault.NotFound)
	info, err := images.Info(ctx, clone)
	want(t, "info of a clone of a removed snapshot", err, nil)
	if info.Parent.Image != source || info.Parent.Snapshot == "s" || info.Parent.Snapshot == "" {
		t.Fatalf("clone %+v", info)
	}
	byItsName := from
	byItsName.Snapshot = info.Parent.Snapshot
	want(t, "clone by Ceph's own name", images.Clone(ctx, clone+"2", byItsName, ceph.ImageSpec{}), fault.NotFound)
	want(t, "removal by Ceph's own name", images.RemoveSnapshot(ctx, source, info.Parent.Snapshot), fault.NotFound)
	want(t, "the name anew", images.CreateSnapshot(ctx, source, "s"), nil)
	want(t, "its removal", images.RemoveSnapshot(ctx, source, "s"), nil)
	want(t, "removal of the source", images.Remove(ctx, source), fault.Busy)
	want(t, "emptying of the source", images.Resize(ctx, source, 0), nil)

	soon, cancel := context.WithCancel(ctx)
	want(t, "flatten that is canceled", images.Flatten(soon, clone, func(uint64, uint64) { cancel() }), context.Canceled)
	cancel()
	var done, total uint64
	want(t, "flatten", images.Flatten(ctx, clone, func(d, of uint64) { done, total = d, of }), nil)
	if total != 16 || done != total {
		t.Fatalf("progress ended at %d of %d", done, total)
	}
	want(t, "second flatten", images.Flatten(ctx, clone, nil), nil)
	want(t, "flatten of an absent image", images.Flatten(ctx, clone+"x", nil), fault.NotFound)
	info, err = images.Info(ctx, clone)
	want(t, "info of a flat image", err, nil)
	if info.Parent != (ceph.ImageSnapshotRef{}) {
		t.Fatalf("flat image %+v", info)
	}
	want(t, "removal of the source with one clone", images.Remove(ctx, source), fault.Busy)
	want(t, "removal of the last clone", elsewhere.Remove(ctx, clone), nil)
	wantSnapshots(t, images, source)
	want(t, "remove the source", images.Remove(ctx, source), nil)
	want(t, "sparsify", images.Sparsify(ctx, clone), nil)
	want(t, "remove the flat image", images.Remove(ctx, clone), nil)
}
