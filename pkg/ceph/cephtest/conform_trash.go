package cephtest

import (
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// trashIDs returns the ids of the images of a name in the trash.
func trashIDs(t *testing.T, images ceph.Images, name string) []string {
	t.Helper()
	list, err := images.Trashed(t.Context())
	want(t, "trash", err, nil)
	var ids []string
	for _, found := range list {
		if found.Name == name {
			ids = append(ids, found.ID)
		}
	}
	return ids
}

func conformTrash(t *testing.T, clients Clients) {
	ctx := t.Context()
	images := clients.A.Images("rbd", "")
	source := newImage(t, images)
	from := ceph.ImageSnapshotRef{Pool: "rbd", Image: source, Snapshot: "s"}
	clone := source + "-c"
	want(t, "trash of an absent image", images.Trash(ctx, source+"x"), fault.NotFound)
	want(t, "removal of what is not in the trash", images.RemoveTrashed(ctx, "no-such-id"), fault.NotFound)
	for range 2 {
		want(t, "clone", images.Clone(ctx, clone, from, ceph.ImageSpec{}), nil)
		want(t, "trash of a clone", images.Trash(ctx, clone), nil)
	}
	_, err := images.Info(ctx, clone)
	want(t, "info of an image in the trash", err, fault.NotFound)
	info, err := images.Info(ctx, source)
	want(t, "info", err, nil)
	want(t, "removal of the snapshot", images.RemoveSnapshot(ctx, source, "s"), nil)
	want(t, "trash of an image that clones need", images.Trash(ctx, source), nil)
	want(t, "second trash", images.Trash(ctx, source), fault.NotFound)
	want(t, "clone of an image in the trash", images.Clone(ctx, clone, from, ceph.ImageSpec{}), fault.NotFound)
	want(t, "snapshot of an image in the trash", images.CreateSnapshot(ctx, source, "t"), fault.NotFound)
	if ids := trashIDs(t, images, source); len(ids) != 1 || ids[0] != info.ID {
		t.Fatalf("trash %v lacks %s", ids, info.ID)
	}
	ids := trashIDs(t, images, clone)
	if len(ids) != 2 {
		t.Fatalf("trash has %v", ids)
	}
	want(t, "removal of an image that clones need", images.RemoveTrashed(ctx, info.ID), fault.Busy)
	for _, id := range ids {
		want(t, "removal of a clone", images.RemoveTrashed(ctx, id), nil)
		want(t, "second removal", images.RemoveTrashed(ctx, id), fault.NotFound)
	}
	want(t, "removal of what no clone needs", images.RemoveTrashed(ctx, info.ID), nil)
}

func conformRestore(t *testing.T, clients Clients) {
	ctx := t.Context()
	images := clients.A.Images("rbd", "")
	source, other := newImage(t, images), newImage(t, images) // with a snapshot "s" each
	want(t, "restore of what is not in the trash", images.Restore(ctx, "no-such-id", source+"-r"), fault.NotFound)
	want(t, "trash of an image with a snapshot", images.Trash(ctx, source), nil)
	id := trashIDs(t, images, source)[0]
	want(t, "removal of an image with a snapshot", images.RemoveTrashed(ctx, id), fault.Precondition)
	want(t, "restore under a name that is taken", images.Restore(ctx, id, other), fault.Exists)
	want(t, "restore under another name", images.Restore(ctx, id, source+"-r"), nil)
	want(t, "second restore", images.Restore(ctx, id, source+"-s"), fault.NotFound)
	for _, name := range []string{source + "-r", other} {
		want(t, "removal of the snapshot", images.RemoveSnapshot(ctx, name, "s"), nil)
		want(t, "removal", images.Remove(ctx, name), nil)
	}
}

func conformUse(t *testing.T, clients Clients) {
	ctx := t.Context()
	images := clients.A.Images("rbd", "")
	source := newImage(t, images)
	clone := source + "-c"
	from := ceph.ImageSnapshotRef{Pool: "rbd", Image: source, Snapshot: "s"}
	want(t, "clone", images.Clone(ctx, clone, from, ceph.ImageSpec{}), nil)
	for _, name := range []string{source, clone} {
		device := clients.Outside.Open(t, "rbd", "", name)
		device.Write(t, 0, 4096)
		want(t, "removal of a snapshot that is not there", images.RemoveSnapshot(ctx, name, "u"), fault.NotFound)
		want(t, "unwatched, in use", images.Unwatched(ctx, name), fault.Busy)
		want(t, "trash of an image in use", images.Trash(ctx, name), fault.Busy)
		want(t, "flatten of an image in use", images.Flatten(ctx, name, nil), nil)
		want(t, "snapshot of an image in use", images.CreateSnapshot(ctx, name, "u"), nil)
		device.Write(t, 0, 4096)
		want(t, "resize of an image in use", images.Resize(ctx, name, 128*storage.MiB), nil)
		want(t, "sparsify of an image in use", images.Sparsify(ctx, name), nil)
		want(t, "removal of its snapshot", images.RemoveSnapshot(ctx, name, "u"), nil)
		if name == source {
			want(t, "removal of the other", images.RemoveSnapshot(ctx, name, "s"), nil)
		}
		device.Write(t, 0, 4096)
		device.Close(t)
	}
	for _, name := range []string{source, clone} {
		device := clients.Outside.Open(t, "rbd", "", name)
		device.Write(t, 0, 4096)
		want(t, "removal of an image in use", images.Remove(ctx, name), fault.Busy)
		device.Close(t)
		want(t, "trash", images.Trash(ctx, name), nil)
		for _, id := range trashIDs(t, images, name) {
			want(t, "removal", images.RemoveTrashed(ctx, id), nil)
		}
	}
}

func conformRename(t *testing.T, clients Clients) {
	ctx := t.Context()
	images := clients.A.Images("rbd", "")
	name, other := newImage(t, images), newImage(t, images)
	info, err := images.Info(ctx, name)
	want(t, "info", err, nil)
	to := name + "-to"
	want(t, "rename of an absent image", images.Rename(ctx, name+"x", to), fault.NotFound)
	want(t, "rename to a name that is taken", images.Rename(ctx, name, other), fault.Exists)
	want(t, "rename", images.Rename(ctx, name, to), nil)
	want(t, "rename back", images.Rename(ctx, to, name), nil)
	clients.Outside.HalfRename(t, "rbd", name, to)
	want(t, "rename to another name that is taken", images.Rename(ctx, name, other), fault.Exists)
	want(t, "rename after one that was cut off", images.Rename(ctx, name, to), nil)
	_, err = images.Info(ctx, name)
	want(t, "info under the old name", err, fault.NotFound)
	renamed, err := images.Info(ctx, to)
	want(t, "info under the new name", err, nil)
	if renamed.ID != info.ID {
		t.Fatalf("id %s became %s", info.ID, renamed.ID)
	}
	names, err := images.List(ctx)
	want(t, "list", err, nil)
	if contains(names, name) || !contains(names, to) {
		t.Fatalf("listed are %v, want %s and not %s", names, to, name)
	}
	want(t, "the old name is free", images.Create(ctx, name, ceph.ImageSpec{Size: storage.MiB}), nil)
	want(t, "removal of that", images.Remove(ctx, name), nil)
	for _, image := range []string{to, other} {
		want(t, "removal of the snapshot", images.RemoveSnapshot(ctx, image, "s"), nil)
		want(t, "removal", images.Remove(ctx, image), nil)
	}
}
