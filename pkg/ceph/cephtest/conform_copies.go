package cephtest

import (
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// patience is how long the suite waits for what the cluster does on its own.
const patience = 2 * time.Minute

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// newSubvolume makes a subvolume of 1 GiB with a snapshot "s".
func newSubvolume(t *testing.T, group ceph.Subvolumes) string {
	t.Helper()
	name := "hf-conformance-" + rand.Text()
	want(t, "create", group.Create(t.Context(), name, ceph.SubvolumeSpec{Size: storage.GiB, Mode: 0o750}), nil)
	want(t, "snapshot", group.CreateSnapshot(t.Context(), name, "s"), nil)
	return name
}

func wantSubvolumeSnapshots(t *testing.T, group ceph.Subvolumes, name string, expected ...string) {
	t.Helper()
	list, err := group.Snapshots(t.Context(), name)
	want(t, "snapshots", err, nil)
	if !slices.Equal(list, expected) {
		t.Fatalf("snapshots %v, want %v", list, expected)
	}
}

func conformSubvolumeSnapshots(t *testing.T, clients Clients) {
	ctx := t.Context()
	group := clients.A.Subvolumes("cephfs", "csi")
	absent := "hf-conformance-" + rand.Text()
	want(t, "snapshot of an absent subvolume", group.CreateSnapshot(ctx, absent, "s"), fault.NotFound)
	want(t, "removal of a snapshot of an absent subvolume", group.RemoveSnapshot(ctx, absent, "s"), fault.NotFound)
	_, err := group.Snapshots(ctx, absent)
	want(t, "snapshots of an absent subvolume", err, fault.NotFound)

	name := newSubvolume(t, group)
	want(t, "snapshot of a name that is taken", group.CreateSnapshot(ctx, name, "s"), fault.Exists)
	want(t, "second snapshot", group.CreateSnapshot(ctx, name, "t"), nil)
	wantSubvolumeSnapshots(t, group, name, "s", "t")
	want(t, "removal of a subvolume with snapshots", group.Remove(ctx, name), fault.Busy)
	want(t, "removal of an absent snapshot", group.RemoveSnapshot(ctx, name, "u"), fault.NotFound)
	want(t, "removal of a snapshot", group.RemoveSnapshot(ctx, name, "s"), nil)
	want(t, "second removal", group.RemoveSnapshot(ctx, name, "s"), fault.NotFound)
	want(t, "removal of the last snapshot", group.RemoveSnapshot(ctx, name, "t"), nil)
	wantSubvolumeSnapshots(t, group, name)
	status, err := group.CloneStatus(ctx, name)
	want(t, "status of what is no clone", err, nil)
	if status.State != ceph.CloneComplete || status.Percent != -1 {
		t.Fatalf("status %+v", status)
	}
	want(t, "cancel of what is no clone", group.CancelClone(ctx, name), fault.Precondition)
	want(t, "retirement without snapshots", group.Retire(ctx, name), nil)
	_, err = group.Info(ctx, name)
	want(t, "info after it", err, fault.NotFound)
	want(t, "second retirement", group.Retire(ctx, name), fault.NotFound)
}

func conformSubvolumeClones(t *testing.T, clients Clients) {
	ctx := t.Context()
	group := clients.A.Subvolumes("cephfs", "csi")
	source := newSubvolume(t, group)
	from := ceph.SubvolumeSnapshot{Subvolume: source, Snapshot: "s"}
	clone := source + "-c"
	_, err := group.CloneStatus(ctx, clone)
	want(t, "status of an absent clone", err, fault.NotFound)
	want(t, "cancel of an absent clone", group.CancelClone(ctx, clone), fault.NotFound)
	want(t, "clone of an absent snapshot", group.Clone(ctx, clone, ceph.SubvolumeSnapshot{Subvolume: source, Snapshot: "t"}, ceph.SubvolumeSpec{}), fault.NotFound)
	want(t, "clone of an absent subvolume", group.Clone(ctx, clone, ceph.SubvolumeSnapshot{Subvolume: clone + "x", Snapshot: "s"}, ceph.SubvolumeSpec{}), fault.NotFound)
	want(t, "clone onto the source", group.Clone(ctx, source, from, ceph.SubvolumeSpec{}), fault.Exists)
	want(t, "resize of the source", group.Resize(ctx, source, 2*storage.GiB), nil)

	resume := clients.Outside.DelayCopies(t)
	want(t, "clone", group.Clone(ctx, clone, from, ceph.SubvolumeSpec{DataPool: "cephfs.data"}), nil)
	want(t, "second clone of the name", group.Clone(ctx, clone, from, ceph.SubvolumeSpec{}), fault.Exists)
	status, err := group.CloneStatus(ctx, clone)
	want(t, "status", err, nil)
	if !status.State.Running() {
		t.Fatalf("status %+v", status)
	}
	info, err := group.Info(ctx, clone)
	want(t, "info of a copy under way", err, nil)
	if diff := cmp.Diff(ceph.SubvolumeInfo{State: string(status.State)}, info); diff != "" {
		t.Fatal(diff)
	}
	want(t, "removal of a snapshot that is copied", group.RemoveSnapshot(ctx, source, "s"), fault.Busy)
	want(t, "removal of a copy under way", group.Remove(ctx, clone), fault.Busy)
	want(t, "retirement of a copy under way", group.Retire(ctx, clone), fault.Busy)
	want(t, "cancel", group.CancelClone(ctx, clone), nil)
	resume()
	eventually(t, "canceled", func() bool {
		status, err = group.CloneStatus(ctx, clone)
		want(t, "status", err, nil)
		return !status.State.Running()
	})
	if status.State != ceph.CloneCanceled || status.Reason == "" {
		t.Fatalf("status %+v", status)
	}
	want(t, "cancel of a canceled copy", group.CancelClone(ctx, clone), fault.Precondition)
	info, err = group.Info(ctx, clone)
	want(t, "info of a canceled copy", err, nil)
	if diff := cmp.Diff(ceph.SubvolumeInfo{State: string(ceph.CloneCanceled)}, info); diff != "" {
		t.Fatal(diff)
	}
	want(t, "clone of the name of a canceled copy", group.Clone(ctx, clone, from, ceph.SubvolumeSpec{}), fault.Exists)
	want(t, "removal of a canceled copy", group.Remove(ctx, clone), nil)
	want(t, "second removal", group.Remove(ctx, clone), fault.NotFound)

	want(t, "clone", group.Clone(ctx, clone, from, ceph.SubvolumeSpec{}), nil)
	eventually(t, "copied", func() bool {
		status, err = group.CloneStatus(ctx, clone)
		want(t, "status", err, nil)
		return !status.State.Running()
	})
	if status.State != ceph.CloneComplete {
		t.Fatalf("status %+v", status)
	}
	info, err = group.Info(ctx, clone)
	want(t, "info of a clone", err, nil)
	if info.Quota != storage.GiB || info.State != "complete" || info.Path == "" || info.DataPool != "cephfs.data" {
		t.Fatalf("clone %+v", info)
	}
	want(t, "cancel of a complete copy", group.CancelClone(ctx, clone), fault.Precondition)
	want(t, "removal of a clone", group.Remove(ctx, clone), nil)
	want(t, "removal of the snapshot", group.RemoveSnapshot(ctx, source, "s"), nil)
	want(t, "removal of the source", group.Remove(ctx, source), nil)
}

func conformRetired(t *testing.T, clients Clients) {
	ctx := t.Context()
	group := clients.A.Subvolumes("cephfs", "csi")
	name := newSubvolume(t, group)
	clone := name + "-c"
	want(t, "second snapshot", group.CreateSnapshot(ctx, name, "t"), nil)
	want(t, "retirement of an absent subvolume", group.Retire(ctx, clone), fault.NotFound)
	want(t, "retirement", group.Retire(ctx, name), nil)
	want(t, "second retirement", group.Retire(ctx, name), nil)
	info, err := group.Info(ctx, name)
	want(t, "info", err, nil)
	if diff := cmp.Diff(ceph.SubvolumeInfo{State: ceph.SubvolumeRetained}, info); diff != "" {
		t.Fatal(diff)
	}
	names, err := group.List(ctx)
	want(t, "list", err, nil)
	if !contains(names, name) {
		t.Fatalf("list %v lacks %s", names, name)
	}
	want(t, "snapshot of a retired subvolume", group.CreateSnapshot(ctx, name, "u"), fault.NotFound)
	want(t, "snapshot of a taken name", group.CreateSnapshot(ctx, name, "s"), fault.Exists)
	want(t, "resize of a retired subvolume", group.Resize(ctx, name, 2*storage.GiB), fault.NotFound)
	want(t, "removal of a retired subvolume", group.Remove(ctx, name), fault.Busy)
	want(t, "clone onto it", group.Clone(ctx, name, ceph.SubvolumeSnapshot{Subvolume: name, Snapshot: "s"}, ceph.SubvolumeSpec{}), fault.Exists)
	wantSubvolumeSnapshots(t, group, name, "s", "t")
	want(t, "clone of a snapshot of it", group.Clone(ctx, clone, ceph.SubvolumeSnapshot{Subvolume: name, Snapshot: "s"}, ceph.SubvolumeSpec{}), nil)
	eventually(t, "copied", func() bool {
		status, err := group.CloneStatus(ctx, clone)
		want(t, "status", err, nil)
		return status.State == ceph.CloneComplete
	})
	want(t, "snapshot of a clone", group.CreateSnapshot(ctx, clone, "s"), nil)
	want(t, "retirement of a clone", group.Retire(ctx, clone), nil)
	_, err = group.CloneStatus(ctx, clone)
	want(t, "status of a retired clone", err, fault.NotFound)
	want(t, "removal of a snapshot", group.RemoveSnapshot(ctx, name, "s"), nil)
	wantSubvolumeSnapshots(t, group, name, "t")
	want(t, "removal of its last snapshot", group.RemoveSnapshot(ctx, name, "t"), nil)
	want(t, "removal of the clone's last snapshot", group.RemoveSnapshot(ctx, clone, "s"), nil)
	for _, gone := range []string{name, clone} {
		eventually(t, "gone", func() bool {
			_, err := group.Info(ctx, gone)
			return errors.Is(err, fault.NotFound)
		})
		want(t, "removal of a snapshot afterwards", group.RemoveSnapshot(ctx, gone, "t"), fault.NotFound)
		want(t, "removal afterwards", group.Remove(ctx, gone), fault.NotFound)
	}
}
