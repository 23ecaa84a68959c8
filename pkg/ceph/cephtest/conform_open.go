package cephtest

import (
	"bytes"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// conformOpen reads and writes an image that is kept open, and a snapshot of it.
func conformOpen(t *testing.T, clients Clients) {
	ctx := t.Context()
	images := clients.A.Images("rbd", "")
	name := newImage(t, images)
	_, err := images.Open(ctx, name+"x", "")
	want(t, "opening of an absent image", err, fault.NotFound)
	_, err = images.Open(ctx, name, "no")
	want(t, "opening of an absent snapshot", err, fault.NotFound)
	_, err = clients.A.Images("no-such-pool", "").Open(ctx, name, "")
	want(t, "opening in an absent pool", err, fault.Precondition)

	image, err := images.Open(ctx, name, "")
	want(t, "open", err, nil)
	size := uint64(image.Size())
	var group errgroup.Group
	for at := uint64(0); at < 8; at++ {
		group.Go(func() error {
			return image.WriteAt(ctx, bytes.Repeat([]byte{byte(at + 1)}, 6000), at*100_000)
		})
	}
	want(t, "writes at once", group.Wait(), nil)
	want(t, "write over the end", image.WriteAt(ctx, make([]byte, 2), size-1), fault.Range)
	want(t, "write far behind the end", image.WriteAt(ctx, make([]byte, 2), 1<<63), fault.Range)
	want(t, "snapshot", images.CreateSnapshot(ctx, name, "opened"), nil)
	want(t, "write at the end", image.WriteAt(ctx, []byte{9}, size-1), nil)
	want(t, "write over what is there", image.WriteAt(ctx, []byte{9}, 1), nil)
	same := func(what string, got []byte, expected ...byte) {
		t.Helper()
		if !bytes.Equal(got, expected) {
			t.Fatalf("%s: %v, want %v", what, got, expected)
		}
	}
	p := []byte{7, 7, 7, 7}
	want(t, "read", image.ReadAt(ctx, p, 105_998), nil)
	same("around the end of what was written", p, 2, 2, 0, 0)
	want(t, "read", image.ReadAt(ctx, p, size-4), nil)
	same("the end", p, 0, 0, 0, 9)
	want(t, "read", image.ReadAt(ctx, p, 0), nil)
	same("the begin", p, 1, 9, 1, 1)
	want(t, "read over the end", image.ReadAt(ctx, p, size-3), fault.Range)
	want(t, "close", image.Close(), nil)

	snapshot, err := images.Open(ctx, name, "opened")
	want(t, "open the snapshot", err, nil)
	want(t, "read the snapshot", snapshot.ReadAt(ctx, p, 0), nil)
	same("the begin of the snapshot", p, 1, 1, 1, 1)
	want(t, "write to the snapshot", snapshot.WriteAt(ctx, p, 0), fault.Unsupported)
	want(t, "close the snapshot", snapshot.Close(), nil)
	for _, s := range []string{"opened", "s"} {
		want(t, "remove the snapshot", images.RemoveSnapshot(ctx, name, s), nil)
	}
	want(t, "remove", images.Remove(ctx, name), nil)
}
