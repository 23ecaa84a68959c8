package nodetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/attach/keeper"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// RunUserSpace runs what concerns user-space attachers alone.
func RunUserSpace(t *testing.T, env Env) {
	env.RBDMounter, env.FSMounter = attach.FuseLoop, attach.UserFS
	for _, c := range []struct {
		name string
		run  func(*testing.T, Env)
	}{
		{"a restart of node plugin and attach daemon loses no mount", restarts},
		{"a dead qemu-storage-daemon is told, and staging again cures it", deadImageHelper},
		{"lost state does not keep a volume from being unstaged", lostState},
		{"many calls at once on one volume all succeed", storm},
		{"no key is in an argument, a file or a log", noKeys},
		{"a device that is held open does not vanish under the next pod", heldDevice},
		{"a lost record does not end a ceph-fuse that pods have: staging", lostRecordStage},
		{"a lost record does not end a ceph-fuse that pods have: unstaging", lostRecordUnstage},
		{"a lost staging mount is shown again from a pod's", lostStagingMount},
		{"a living ceph-fuse that was cut off is replaced", cutOff},
		{"a dead ceph-fuse is told, and staging again cures it", deadDirectoryHelper},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, env) })
	}
}

// helper returns the process of the only attachment.
func (b *bench) helper() keeper.Status {
	b.t.Helper()
	list, err := keeper.NewClient(b.socket).List(b.t.Context())
	b.must(err)
	if len(list) != 1 {
		b.t.Fatalf("attachments: %+v, want one", list)
	}
	return list[0]
}

// killHelper kills the only attachment's process and waits for its end.
func (b *bench) killHelper() {
	b.t.Helper()
	b.must(syscall.Kill(b.helper().PID, syscall.SIGKILL))
	for b.helper().Alive {
		time.Sleep(10 * time.Millisecond)
	}
}

func restarts(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	image, dir := b.imageVolume(64*storage.MiB), b.directoryVolume(64*storage.MiB)
	ic, dc := mountCap("ext4", rwo), mountCap("", rwx)
	it, dt := b.path("image"), b.path("dir")
	b.must(image.stage(ctx, b.rbd, ic))
	b.must(image.publish(ctx, b.rbd, ic, it, false))
	b.must(dir.stage(ctx, b.cephfs, dc))
	b.must(dir.publish(ctx, b.cephfs, dc, dt, false))
	b.stop()
	for _, path := range []string{it, dt} { // nobody is there, the mounts are
		b.must(os.WriteFile(filepath.Join(path, "a"), []byte("alone"), 0o600))
	}
	b.rbd, b.cephfs = b.newNode("n1", storage.RBD), b.newNode("n1", storage.CephFS)
	if r, err := image.stats(ctx, b.rbd, it); err != nil || !r.GetVolumeCondition().GetAbnormal() {
		t.Errorf("stats without the attach daemon: %v, %v: want an abnormal condition", r, err)
	}
	if err := image.stage(ctx, b.rbd, ic); !errors.Is(err, fault.Unavailable) {
		t.Errorf("stage without the attach daemon: got %v, want unavailable", err)
	}
	b.stop = b.startKeeper()
	b.must(image.stage(ctx, b.rbd, ic))
	b.must(dir.stage(ctx, b.cephfs, dc))
	for _, path := range []string{it, dt} {
		if data, err := os.ReadFile(filepath.Join(path, "a")); err != nil || string(data) != "alone" {
			t.Errorf("after the restart %s: %q, %v", path, data, err)
		}
	}
	b.must(image.unpublish(ctx, b.rbd, it))
	b.must(image.unstage(ctx, b.rbd))
	b.must(dir.unpublish(ctx, b.cephfs, dt))
	b.must(dir.unstage(ctx, b.cephfs))
	b.unwatched(image)
}

func deadImageHelper(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c, target := b.imageVolume(64*storage.MiB), mountCap("ext4", rwo), b.path("pod")
	b.must(v.stage(ctx, b.rbd, c))
	b.must(v.publish(ctx, b.rbd, c, target, false))
	synced(b, filepath.Join(target, "a"))
	var st unix.Stat_t
	b.must(unix.Stat(target, &st)) // of the file system: its device's number
	b.killHelper()
	time.Sleep(1100 * time.Millisecond) // for longer the kernel does not remember a dead FUSE's attributes
	r, err := v.stats(ctx, b.rbd, target)
	b.must(err)
	if !r.GetVolumeCondition().GetAbnormal() || !strings.Contains(r.GetVolumeCondition().GetMessage(), "staged again") {
		t.Errorf("stats with a dead helper: %v", r)
	}
	// Its watch outlives it by 30 s; staging waits for that.
	b.must(v.stage(ctx, b.rbd, c))
	b.must(v.publish(ctx, b.rbd, c, target, false)) // over the dead mount
	if data, err := os.ReadFile(filepath.Join(target, "a")); err != nil || string(data) != "synced" {
		t.Errorf("after the cure: %q, %v", data, err)
	}
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.unstage(ctx, b.rbd))
	b.unwatched(v)
	if backing, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", unix.Minor(st.Dev))); err == nil && strings.HasPrefix(string(backing), "/\n") {
		t.Errorf("the dead loop device %d is left", unix.Minor(st.Dev))
	}
}

func deadDirectoryHelper(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c, target := b.directoryVolume(64*storage.MiB), mountCap("", rwx), b.path("pod")
	b.must(v.stage(ctx, b.cephfs, c))
	b.must(v.publish(ctx, b.cephfs, c, target, false))
	b.killHelper()
	r, err := v.stats(ctx, b.cephfs, target)
	b.must(err)
	if !r.GetVolumeCondition().GetAbnormal() {
		t.Errorf("stats with a dead helper: %v", r)
	}
	// What the dead client held may be in the way for a while: a caller tries again.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for err = v.stage(ctx, b.cephfs, c); errors.Is(err, fault.Unavailable); err = v.stage(ctx, b.cephfs, c) {
		t.Log("stage again: ", err)
		time.Sleep(time.Second)
	}
	b.must(err)
	b.must(v.publish(ctx, b.cephfs, c, target, false))
	if r, err = v.stats(ctx, b.cephfs, target); err != nil || r.GetVolumeCondition().GetAbnormal() {
		t.Errorf("stats after the cure: %v, %v", r, err)
	}
	b.must(v.unpublish(ctx, b.cephfs, target))
	b.must(v.unstage(ctx, b.cephfs))
	// The subvolume is removed now; what the dead client held would be in the way of that
	// for a minute, had it not been fenced.
}

func synced(b *bench, path string) {
	b.t.Helper()
	f, err := os.Create(path)
	b.must(err)
	_, err = f.WriteString("synced")
	b.must(err)
	b.must(f.Sync())
	b.must(f.Close())
}

func lostState(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	image, dir := b.imageVolume(64*storage.MiB), b.directoryVolume(64*storage.MiB)
	b.must(image.stage(ctx, b.rbd, mountCap("ext4", rwo)))
	b.must(dir.stage(ctx, b.cephfs, mountCap("", rwx)))
	b.must(os.RemoveAll(filepath.Join(b.Dir, "node-n1")))
	b.rbd, b.cephfs = b.newNode("n1", storage.RBD), b.newNode("n1", storage.CephFS)
	b.must(image.stage(ctx, b.rbd, mountCap("ext4", rwo))) // adopts what is there
	b.must(os.RemoveAll(filepath.Join(b.Dir, "node-n1")))
	b.rbd, b.cephfs = b.newNode("n1", storage.RBD), b.newNode("n1", storage.CephFS)
	b.must(image.unstage(ctx, b.rbd))
	b.must(dir.unstage(ctx, b.cephfs))
	b.unwatched(image)
	list, err := keeper.NewClient(b.socket).List(ctx)
	b.must(err)
	if len(list) != 0 {
		t.Errorf("attachments are left: %+v", list)
	}
}

// storm runs every call many times at once.
func storm(t *testing.T, env Env) {
	b := newBench(t, env)
	v, c := b.imageVolume(64*storage.MiB), mountCap("ext4", multi)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	parallel := func(call func(i int) error) {
		t.Helper()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if err := call(i); err != nil {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
	}
	target := func(i int) string { return b.path("pod " + string(rune('가'+i%4))) }
	parallel(func(int) error { return v.stage(ctx, b.rbd, c) })
	parallel(func(i int) error { return v.publish(ctx, b.rbd, c, target(i), false) })
	parallel(func(i int) error { _, err := v.stats(ctx, b.rbd, target(i)); return err })
	parallel(func(i int) error { return v.unpublish(ctx, b.rbd, target(i)) })
	parallel(func(int) error { return v.unstage(ctx, b.rbd) })
	b.unwatched(v)
}

// noKeys looks for the key of the node's user wherever others could see it.
func noKeys(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	image, dir := b.imageVolume(64*storage.MiB), b.directoryVolume(64*storage.MiB)
	b.must(image.stage(ctx, b.rbd, mountCap("ext4", rwo)))
	b.must(dir.stage(ctx, b.cephfs, mountCap("", rwx)))
	key := []byte(b.Node.Key.Reveal())
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	b.must(err)
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && bytes.Contains(data, key) {
			t.Errorf("the key is in %s: %q", f, bytes.ReplaceAll(data, key, []byte("KEY")))
		}
	}
	for _, root := range []string{filepath.Join(b.Dir, "k"), filepath.Join(b.Dir, "node-n1")} {
		b.must(filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || e.Name() == "image" {
				return err
			}
			if e.Name() == "mnt" {
				return fs.SkipDir
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, key) {
				t.Errorf("the key is in %s", path)
			}
			return err
		}))
	}
	b.must(image.unstage(ctx, b.rbd))
	b.must(dir.unstage(ctx, b.cephfs))
}
