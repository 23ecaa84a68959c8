package nodetest

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// snapshotOf takes a snapshot of a directory's subvolume and returns the volume that shows it.
func (b *bench) snapshotOf(v *volume, name string) *volume {
	b.t.Helper()
	of, err := volumeid.ParseContext(v.context)
	b.must(err)
	subvolume := path.Base(path.Dir(of.SubvolumePath))
	subvolumes := b.cluster.Subvolumes(b.Filesystem, b.Entry.SubvolumeGroup)
	b.must(subvolumes.CreateSnapshot(b.t.Context(), subvolume, name))
	b.t.Cleanup(func() {
		if err := subvolumes.RemoveSnapshot(context.WithoutCancel(b.t.Context()), subvolume, name); err != nil {
			b.t.Errorf("remove snapshot: %v", err)
		}
	})
	h := volumeid.Handle{Driver: storage.CephFS, Cluster: b.Entry.ID, Pool: 1, NameHash: random(16), Incarnation: random(16)}
	of.SubvolumePath = path.Join(path.Dir(of.SubvolumePath), ".snap", name, path.Base(of.SubvolumePath))
	of.ReadOnly = "true"
	return &volume{b: b, id: h.String(), context: of.Map(), staging: b.path("staging-" + h.Incarnation[:4]), size: v.size}
}

// shownSnapshot mounts a snapshot itself: it has what the volume had, and cannot be written.
func shownSnapshot(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c := b.directoryVolume(256*storage.MiB), mountCap("", rwx)
	target := b.path("source")
	b.must(v.stage(ctx, b.cephfs, c))
	b.must(v.publish(ctx, b.cephfs, c, target, false))
	file := filepath.Join(target, "문서 📝.txt")
	b.must(os.WriteFile(file, []byte("before"), 0o600))
	shown := b.snapshotOf(v, "스냅샷 1")
	b.must(os.WriteFile(file, []byte("after"), 0o600))

	reader, at := mountCap("", rox), b.path("snapshot")
	check := func(when string) {
		t.Helper()
		if data, err := os.ReadFile(filepath.Join(at, "문서 📝.txt")); err != nil || string(data) != "before" {
			t.Errorf("%s: read %q, %v from the snapshot", when, data, err)
		}
		if err := os.WriteFile(filepath.Join(at, "no"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: write: got %v, want EROFS", when, err)
		}
	}
	for range 2 {
		b.must(shown.stage(ctx, b.cephfs, reader))
		b.must(shown.publish(ctx, b.cephfs, reader, at, true))
	}
	check("mounted")
	b.forget()
	b.must(shown.stage(ctx, b.cephfs, reader))
	b.must(shown.publish(ctx, b.cephfs, reader, at, true))
	check("adopted")
	b.must(v.stage(ctx, b.cephfs, c))
	b.must(v.publish(ctx, b.cephfs, c, target, false))
	b.must(shown.unpublish(ctx, b.cephfs, at))
	b.must(shown.unstage(ctx, b.cephfs))
	b.must(v.unpublish(ctx, b.cephfs, target))
	b.must(v.unstage(ctx, b.cephfs))
}
