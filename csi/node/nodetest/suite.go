package nodetest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const (
	rwo   = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	rwop  = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	multi = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	rox   = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	rwx   = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
)

// Run runs the whole suite.
func Run(t *testing.T, env Env) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Env)
	}{
		{"an ext4 volume lives its life", func(t *testing.T, e Env) { mountedImage(t, e, "ext4") }},
		{"an xfs volume lives its life", func(t *testing.T, e Env) { mountedImage(t, e, "xfs") }},
		{"a raw block volume is the device itself", rawBlock},
		{"a device grows while it is read", growUnderLoad},
		{"an encrypted volume shows its content to the node alone", encryptedImage},
		{"an encrypted raw device has the size that was asked for", encryptedBlock},
		{"a CephFS volume is shared by two nodes", sharedDirectory},
		{"a snapshot of a directory is shown without a copy", shownSnapshot},
		{"discarded blocks go back to the pool", discard},
		{"an image without a file system is never formatted for a reader", readerNeverFormats},
		{"mkfs is done once, and never over anything", formatRule},
		{"one target path is all that a single writer gets", accessModes},
		{"a second node is refused while the first has the image", secondNode},
		{"a node that keeps a device is fenced, and its neighbour volume is not", fencedDevice},
		{"a node that was fenced is usable again", fencedMount},
		{"of two nodes with a directory one is fenced", fencedDirectory},
		{"a volume that is given read-only is attached so", givenReadOnly},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, env) })
	}
}

// mountedImage takes an image with a file system through every RPC.
func mountedImage(t *testing.T, env Env, fs string) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c := b.imageVolume(384*storage.MiB), mountCap(fs, multi, "noatime")
	one, two := b.path("pod one"), b.path("pod two")
	for range 2 { // every call twice
		b.must(v.stage(ctx, b.rbd, c))
		b.must(v.publish(ctx, b.rbd, c, one, false))
		b.must(v.publish(ctx, b.rbd, c, two, true))
	}
	file := filepath.Join(one, "문서 📝.txt")
	b.must(os.WriteFile(file, []byte("안녕"), 0o600))
	if err := os.WriteFile(filepath.Join(two, "no"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write through a read-only target: got %v, want EROFS", err)
	}
	if err := v.publish(ctx, b.rbd, c, one, true); !errors.Is(err, fault.Exists) {
		t.Errorf("publish the same target read-only: got %v, want exists", err)
	}
	if err := v.unstage(ctx, b.rbd); !errors.Is(err, fault.Precondition) {
		t.Errorf("unstage while published: got %v, want a precondition", err)
	}
	before := b.total(v, one)
	b.grow(v, fs, one, 512*storage.MiB)
	if env.GrowsExt4 || fs == "xfs" {
		if after := b.total(v, one); after < before+100<<20 {
			t.Errorf("grown online from %d to %d bytes, want 128 MiB more", before, after)
		}
	}

	b.rbd = b.newNode("n1", storage.RBD) // the plugin restarts; nothing is lost
	b.must(v.stage(ctx, b.rbd, c))
	for range 2 {
		b.must(v.unpublish(ctx, b.rbd, one))
		b.must(v.unpublish(ctx, b.rbd, two))
	}
	for range 2 {
		b.must(v.unstage(ctx, b.rbd))
	}
	if _, err := os.Lstat(one); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the target path is still there: %v", err)
	}
	b.must(b.images().Resize(ctx, v.image, 768*storage.MiB)) // and nobody tells the node
	b.must(v.stage(ctx, b.rbd, c))
	b.must(v.publish(ctx, b.rbd, c, one, false))
	if after := b.total(v, one); after < before+350<<20 {
		t.Errorf("after a restage the file system has %d bytes, before growth it had %d: want 384 MiB more", after, before)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "안녕" {
		t.Errorf("read back %q, %v", data, err)
	}
	b.must(v.unpublish(ctx, b.rbd, one))
	b.must(v.unstage(ctx, b.rbd))
	b.unwatched(v)
}

// grow expands image and file system; where ext4 may not grow online the error says why.
func (b *bench) grow(v *volume, fs, path string, size storage.Bytes) {
	b.t.Helper()
	b.must(b.images().Resize(b.t.Context(), v.image, size))
	err := v.expand(b.t.Context(), b.rbd, path, size)
	if fs == "ext4" && !b.GrowsExt4 {
		if !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE") {
			b.t.Errorf("online growth of ext4: got %v, want the missing capability named", err)
		}
		return
	}
	b.must(err)
	b.must(v.expand(b.t.Context(), b.rbd, path, size)) // again
}

// total returns the bytes of the volume as NodeGetVolumeStats tells them.
func (b *bench) total(v *volume, path string) int64 {
	b.t.Helper()
	r, err := v.stats(b.t.Context(), b.rbd, path)
	b.must(err)
	if r.GetVolumeCondition().GetAbnormal() || len(r.GetUsage()) != 2 {
		b.t.Fatalf("stats: %v", r)
	}
	return r.GetUsage()[0].GetTotal()
}

// unwatched fails if a client still has the image open.
func (b *bench) unwatched(v *volume) {
	b.t.Helper()
	watchers, err := b.images().Watchers(b.t.Context(), v.image)
	b.must(err)
	if len(watchers) != 0 {
		b.t.Errorf("image is still open by %v", watchers)
	}
}

func rawBlock(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c := b.imageVolume(64*storage.MiB), blockCap(rwo)
	target := b.path("device 🧱")
	for range 2 {
		b.must(v.stage(ctx, b.rbd, c))
		b.must(v.publish(ctx, b.rbd, c, target, false))
	}
	content := bytes.Repeat([]byte("Holdfast"), 1<<17)
	b.must(writeDevice(target, content))
	b.must(b.images().Resize(ctx, v.image, 96*storage.MiB))
	b.must(v.expand(ctx, b.rbd, target, 96*storage.MiB))
	r, err := v.stats(ctx, b.rbd, target)
	b.must(err)
	if len(r.GetUsage()) != 1 || r.GetUsage()[0].GetTotal() != int64(96*storage.MiB) || r.GetVolumeCondition().GetAbnormal() {
		t.Errorf("stats of a grown raw device: %v", r)
	}
	if err := v.stage(ctx, b.rbd, mountCap("ext4", rwo)); !errors.Is(err, fault.Exists) {
		t.Errorf("stage a raw device as a file system: got %v, want exists", err)
	}
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.publish(ctx, b.rbd, c, target, true))
	if err := writeDevice(target, content); !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EROFS) {
		t.Errorf("write to a device published read-only: got %v", err)
	}
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.unstage(ctx, b.rbd))
	// Data that is no file system is a file system's end: mkfs refuses.
	if err := v.stage(ctx, b.rbd, mountCap("ext4", rwo)); !errors.Is(err, fault.Precondition) {
		t.Errorf("mount a raw device with data on it: got %v, want a precondition", err)
	}
	b.must(v.stage(ctx, b.rbd, c))
	b.must(v.publish(ctx, b.rbd, c, target, false))
	f, err := os.Open(target)
	b.must(err)
	got := make([]byte, len(content))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the raw device lost its data: %v", err)
	}
	b.must(f.Close())
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.unstage(ctx, b.rbd))
	b.unwatched(v)
}

// growUnderLoad: a kernel that hears of I/O and of the new size at once must not keep the old one.
func growUnderLoad(t *testing.T, env Env) {
	const start, end, step = 16 * storage.MiB, 64 * storage.MiB, 4 * storage.MiB
	b := newBench(t, env)
	v, c := b.imageVolume(start), blockCap(rwo)
	target := b.path("busy device")
	b.must(v.stage(t.Context(), b.rbd, c))
	b.must(v.publish(t.Context(), b.rbd, c, target, false))
	device, err := os.OpenFile(target, os.O_RDWR|unix.O_DIRECT, 0)
	b.must(err)
	load, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for page := alignedPage(); load.Err() == nil; {
				if _, err := device.ReadAt(page, int64(start)/2); err != nil {
					t.Errorf("read while it grows: %v", err)
					return
				}
			}
		})
	}
	for size := start + step; size <= end; size += step {
		b.must(b.images().Resize(t.Context(), v.image, size))
		b.must(v.expand(t.Context(), b.rbd, target, size))
		if _, err := device.ReadAt(alignedPage(), int64(size)-int64(os.Getpagesize())); err != nil {
			t.Errorf("read the last page of %v: %v", size, err)
		}
	}
	stop()
	readers.Wait()
	b.must(device.Close())
	b.must(v.unpublish(t.Context(), b.rbd, target))
	b.must(v.unstage(t.Context(), b.rbd))
}

// alignedPage returns memory that direct I/O takes.
func alignedPage() []byte {
	size := os.Getpagesize()
	page := make([]byte, 2*size)
	skip := size - int(uintptr(unsafe.Pointer(&page[0]))%uintptr(size))
	return page[skip : skip+size]
}

func writeDevice(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	return errors.Join(err, f.Sync(), f.Close())
}

func sharedDirectory(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c := b.directoryVolume(256*storage.MiB), mountCap("", rwx)
	one, two := b.path("pod 가"), b.path("pod 나")
	for range 2 {
		b.must(v.stage(ctx, b.cephfs, c))
		b.must(v.publish(ctx, b.cephfs, c, one, false))
		b.must(v.publish(ctx, b.cephfs, c, two, true))
	}
	b.must(os.WriteFile(filepath.Join(one, "공유 🤝"), []byte("함께"), 0o600))
	if data, err := os.ReadFile(filepath.Join(two, "공유 🤝")); err != nil || string(data) != "함께" {
		t.Errorf("the other pod reads %q, %v", data, err)
	}
	if err := os.WriteFile(filepath.Join(two, "no"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write through a read-only target: got %v, want EROFS", err)
	}
	r, err := v.stats(ctx, b.cephfs, one)
	b.must(err)
	if r.GetVolumeCondition().GetAbnormal() || len(r.GetUsage()) != 2 || r.GetUsage()[0].GetTotal() != int64(v.size) {
		t.Errorf("stats: %v, want a total of the quota %d", r, v.size)
	}
	b.must(v.expand(ctx, b.cephfs, one, 512*storage.MiB))
	b.must(v.unpublish(ctx, b.cephfs, two))
	b.must(v.unpublish(ctx, b.cephfs, one))
	for range 2 {
		b.must(v.unstage(ctx, b.cephfs))
	}
	b.must(v.stage(ctx, b.cephfs, c))
	b.must(v.publish(ctx, b.cephfs, c, one, false))
	if data, err := os.ReadFile(filepath.Join(one, "공유 🤝")); err != nil || string(data) != "함께" {
		t.Errorf("after a restage: %q, %v", data, err)
	}
	b.must(v.unpublish(ctx, b.cephfs, one))
	b.must(v.unstage(ctx, b.cephfs))
}

// discard counts the image's objects before and after its blocks are given back.
func discard(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c := b.imageVolume(128*storage.MiB), blockCap(rwo)
	target := b.path("device")
	b.must(v.stage(ctx, b.rbd, c))
	b.must(v.publish(ctx, b.rbd, c, target, false))
	b.must(writeDevice(target, bytes.Repeat([]byte{7}, 64<<20)))
	full := b.objects(v)
	f, err := os.OpenFile(target, os.O_RDWR, 0)
	b.must(err)
	span := [2]uint64{0, 64 << 20}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptrOf(&span)); errno != 0 {
		t.Errorf("discard: %v", errno)
	}
	b.must(f.Sync())
	b.must(f.Close())
	if empty := b.objects(v); full < 16 || empty != 0 {
		t.Errorf("64 MiB in %d objects; after a discard %d are left, want 16 and 0", full, empty)
	}
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.unstage(ctx, b.rbd))
}

// objects counts the data objects of an image.
func (b *bench) objects(v *volume) int {
	b.t.Helper()
	info, err := b.images().Info(b.t.Context(), v.image)
	b.must(err)
	names, err := b.cluster.Objects(b.Pool, b.Entry.RadosNamespace).List(b.t.Context())
	b.must(err)
	count := 0
	for _, n := range names {
		if strings.HasPrefix(n, "rbd_data."+info.ID+".") {
			count++
		}
	}
	return count
}

func secondNode(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c := b.imageVolume(64*storage.MiB), mountCap("ext4", rwo)
	b.must(v.stage(ctx, b.rbd, c))
	watchers, err := b.images().Watchers(ctx, v.image)
	b.must(err)
	if len(watchers) == 0 {
		t.Fatal("a staged image has no watcher")
	}
	// The same machine with another identity cannot see the first one's device in this
	// test, so the rule itself is asked.
	if err := b.rbd.AwaitFree(ctx, b.images(), v.image, 2*time.Second); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), watchers[0].Address) {
		t.Errorf("got %v, want a precondition that names %s", err, watchers[0].Address)
	}
	b.must(v.unstage(ctx, b.rbd))
	b.unwatched(v)
}
