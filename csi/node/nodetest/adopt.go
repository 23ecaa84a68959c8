package nodetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// published is a CephFS volume with a pod that has a file open.
func (b *bench) published() (v *volume, target string, file *os.File) {
	b.t.Helper()
	ctx := b.t.Context()
	v, target = b.directoryVolume(64*storage.MiB), b.path("pod")
	b.must(v.stage(ctx, b.cephfs, mountCap("", rwx)))
	b.must(v.publish(ctx, b.cephfs, mountCap("", rwx), target, false))
	f, err := os.Create(filepath.Join(target, "열린 파일"))
	b.must(err)
	b.t.Cleanup(func() { _ = f.Close() })
	return v, target, f
}

// forget takes the node's records away; the service starts anew.
func (b *bench) forget() {
	b.t.Helper()
	b.must(os.RemoveAll(filepath.Join(b.Dir, "node-n1")))
	b.rbd, b.cephfs = b.newNode("n1", storage.RBD), b.newNode("n1", storage.CephFS)
}

// worksOn says that the pod's open file and the staging path are the same living mount.
func (b *bench) worksOn(v *volume, target string, f *os.File, pid int) {
	b.t.Helper()
	if _, err := f.WriteString("계속"); err != nil {
		b.t.Fatalf("a pod's open file: %v", err)
	}
	b.must(f.Sync())
	if now := b.helper().PID; now != pid {
		b.t.Errorf("the volume has another ceph-fuse, %d, not %d", now, pid)
	}
	var one, two unix.Stat_t
	b.must(unix.Stat(target, &one))
	b.must(unix.Stat(v.staging, &two))
	if one.Dev != two.Dev {
		b.t.Error("pod and staging path are on different mounts")
	}
	b.must(os.WriteFile(filepath.Join(v.staging, "쓰기"), nil, 0o600))
}

// end takes the volume away; nothing may be left of it.
func (b *bench) end(v *volume, f *os.File, targets ...string) {
	b.t.Helper()
	b.must(f.Close())
	for _, target := range targets {
		b.must(v.unpublish(b.t.Context(), b.cephfs, target))
	}
	b.must(v.unstage(b.t.Context(), b.cephfs))
}

func lostRecordStage(t *testing.T, env Env) {
	b := newBench(t, env)
	v, target, f := b.published()
	pid := b.helper().PID
	b.forget()
	b.must(v.stage(t.Context(), b.cephfs, mountCap("", rwx)))
	b.worksOn(v, target, f, pid)
	b.must(v.publish(t.Context(), b.cephfs, mountCap("", rwx), b.path("another pod"), false))
	b.worksOn(v, b.path("another pod"), f, pid)
	b.end(v, f, target, b.path("another pod"))
}

func lostStagingMount(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, target, f := b.published()
	reader := b.path("a reader, listed after")
	b.must(v.publish(ctx, b.cephfs, mountCap("", rwx), reader, true))
	pid := b.helper().PID
	b.must(unix.Unmount(v.staging, 0))
	b.must(v.stage(ctx, b.cephfs, mountCap("", rwx)))
	b.worksOn(v, target, f, pid)
	if err := v.unstage(ctx, b.cephfs); !errors.Is(err, fault.Precondition) {
		t.Errorf("unstage what is published since before: got %v, want a precondition", err)
	}
	// The reader's mount alone is left to take it from.
	b.must(f.Close())
	b.must(v.unpublish(ctx, b.cephfs, target))
	b.must(unix.Unmount(v.staging, 0))
	f, err := os.Open(filepath.Join(reader, "쓰기"))
	b.must(err)
	b.must(v.stage(ctx, b.cephfs, mountCap("", rwx)))
	b.must(os.WriteFile(filepath.Join(v.staging, "다시"), nil, 0o600))
	if err := os.WriteFile(filepath.Join(reader, "no"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write through the read-only target: got %v, want EROFS", err)
	}
	b.end(v, f, reader)
}

func lostRecordUnstage(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, target, f := b.published()
	pid := b.helper().PID
	b.forget()
	if err := v.unstage(ctx, b.cephfs); !errors.Is(err, fault.Busy) {
		t.Errorf("unstage while a pod has the volume: got %v, want busy", err)
	}
	// A pod that only its own mount namespace knows is not in the mount table: the helper's
	// life tells.
	b.must(unix.Unmount(target, unix.MNT_DETACH))
	if err := v.unstage(ctx, b.cephfs); !errors.Is(err, fault.Busy) {
		t.Errorf("unstage while a file is open: got %v, want busy", err)
	}
	if _, err := f.WriteString("계속"); err != nil || b.helper().PID != pid || !b.helper().Alive {
		t.Errorf("the pod's open file: %v", err)
	}
	b.end(v, f, target)
}

// cutOff: the cluster no longer talks to a ceph-fuse that still runs.
func cutOff(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v, target, f := b.published()
	old := b.helper()
	blocklist := func(verb string) error {
		_, err := b.cluster.Mon(ctx, map[string]any{"prefix": "osd blocklist", "blocklistop": verb, "addr": old.Client}, nil)
		return err
	}
	if err := blocklist("add"); errors.Is(err, fault.Denied) {
		t.Skip("the provisioner may not fence here")
	} else {
		b.must(err)
	}
	_ = f.Close()
	for {
		r, err := v.stats(ctx, b.cephfs, target)
		b.must(err)
		if r.GetVolumeCondition().GetAbnormal() {
			t.Log(r.GetVolumeCondition().GetMessage())
			break
		}
		time.Sleep(time.Second)
	}
	err := v.stage(ctx, b.cephfs, mountCap("", rwx))
	for ; errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Busy); err = v.stage(ctx, b.cephfs, mountCap("", rwx)) {
		t.Log("stage again: ", err)
		time.Sleep(time.Second)
	}
	b.must(err)
	b.must(v.publish(ctx, b.cephfs, mountCap("", rwx), target, false))
	b.must(os.WriteFile(filepath.Join(target, "새로"), nil, 0o600))
	b.must(v.unpublish(ctx, b.cephfs, target))
	b.must(v.unstage(ctx, b.cephfs))
}
