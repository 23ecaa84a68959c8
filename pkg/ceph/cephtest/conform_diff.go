package cephtest

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func conformDiff(t *testing.T, clients Clients) {
	ctx := t.Context()
	images := clients.A.Images("rbd", "")
	name := newImage(t, images)
	const object = 4 << 20
	device := clients.Outside.Open(t, "rbd", "", name)
	device.Write(t, 0, 8192)
	device.Write(t, 3*object, 4096)
	want(t, "snapshot", images.CreateSnapshot(ctx, name, "t"), nil)
	device.Write(t, object, 4096)
	device.Discard(t, 3*object, object)
	want(t, "snapshot", images.CreateSnapshot(ctx, name, "u"), nil)
	device.Close(t)

	differ := func(image, since, snapshot string, from, to uint64) []ceph.Extent {
		t.Helper()
		var list []ceph.Extent
		want(t, "diff", images.Diff(ctx, image, since, snapshot, from, to, func(e ceph.Extent) error {
			list = append(list, e)
			return nil
		}), nil)
		return list
	}
	same := func(got []ceph.Extent, expected ...ceph.Extent) {
		t.Helper()
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Fatal(diff)
		}
	}
	same(differ(name, "", "s", 0, 0))
	same(differ(name, "", "t", 0, 0), ceph.Extent{Length: 8192}, ceph.Extent{Offset: 3 * object, Length: 4096})
	changes := []ceph.Extent{{Offset: object, Length: 4096}, {Offset: 3 * object, Length: 4096, Zero: true}}
	same(differ(name, "t", "u", 0, 0), changes...)
	same(differ(name, "t", "u", 0, 1<<40), changes...)
	same(differ(name, "t", "u", 2*object, 0), changes[1])
	same(differ(name, "t", "u", object+1024, 2*object), ceph.Extent{Offset: object + 1024, Length: 3072})
	same(differ(name, "u", "u", 0, 0))
	same(differ(name, "u", "", 0, 0))
	same(differ(name, "t", "", 0, 0), changes...)
	same(differ(name, "t", "u", 1<<40, 0))

	none := func(ceph.Extent) error { return nil }
	want(t, "diff of an absent image", images.Diff(ctx, name+"x", "", "u", 0, 0, none), fault.NotFound)
	want(t, "diff of an absent snapshot", images.Diff(ctx, name, "", "x", 0, 0, none), fault.NotFound)
	want(t, "diff since an absent snapshot", images.Diff(ctx, name, "x", "u", 0, 0, none), fault.NotFound)
	want(t, "diff backwards", images.Diff(ctx, name, "u", "t", 0, 0, none), fault.Invalid)
	enough, calls := errors.New("enough"), 0
	want(t, "diff that is ended", images.Diff(ctx, name, "t", "u", 0, 0, func(ceph.Extent) error { calls++; return enough }), enough)
	if calls != 1 {
		t.Fatalf("%d calls after an error", calls)
	}

	clone := name + "-c"
	want(t, "clone", images.Clone(ctx, clone, ceph.ImageSnapshotRef{Pool: "rbd", Image: name, Snapshot: "t"}, ceph.ImageSpec{}), nil)
	want(t, "snapshot of a clone", images.CreateSnapshot(ctx, clone, "a"), nil)
	device = clients.Outside.Open(t, "rbd", "", clone)
	device.Write(t, 4096, 4096)
	want(t, "snapshot of a clone", images.CreateSnapshot(ctx, clone, "b"), nil)
	device.Close(t)
	same(differ(clone, "", "a", 0, 0), ceph.Extent{Length: 8192}, ceph.Extent{Offset: 3 * object, Length: 4096})
	same(differ(clone, "a", "b", 0, 0), ceph.Extent{Offset: 4096, Length: 4096})

	for _, at := range []struct{ image, snapshot string }{{clone, "a"}, {clone, "b"}, {name, "s"}, {name, "t"}, {name, "u"}} {
		want(t, "removal of a snapshot", images.RemoveSnapshot(ctx, at.image, at.snapshot), nil)
	}
	want(t, "remove the clone", images.Remove(ctx, clone), nil)
	want(t, "remove", images.Remove(ctx, name), nil)
}
