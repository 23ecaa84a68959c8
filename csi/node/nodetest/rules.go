package nodetest

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func uintptrOf(p *[2]uint64) uintptr { return uintptr(unsafe.Pointer(p)) }

func readerNeverFormats(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v := b.imageVolume(64 * storage.MiB)
	if err := v.stage(ctx, b.rbd, mountCap("ext4", rox)); !errors.Is(err, fault.Precondition) {
		t.Errorf("stage an empty image for reading: got %v, want a precondition", err)
	}
	b.unwatched(v)
	writer := mountCap("ext4", rwo)
	b.must(v.stage(ctx, b.rbd, writer))
	b.must(os.WriteFile(v.staging+"/a", []byte("a"), 0o600))
	b.must(v.unstage(ctx, b.rbd))
	reader, target := mountCap("ext4", rox), b.path("reader")
	b.must(v.stage(ctx, b.rbd, reader))
	b.must(v.publish(ctx, b.rbd, reader, target, true))
	if data, err := os.ReadFile(target + "/a"); err != nil || string(data) != "a" {
		t.Errorf("a reader reads %q, %v", data, err)
	}
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.unstage(ctx, b.rbd))
}

// formatRule walks the states of mkfs.
func formatRule(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	c, raw := mountCap("ext4", rwo), blockCap(rwo)
	state := func(v *volume) string {
		t.Helper()
		meta, err := b.images().Metadata(ctx, v.image)
		b.must(err)
		return meta["holdfast.mkfs.state"]
	}
	// onDevice runs a command on the raw device of a volume.
	onDevice := func(v *volume, name string, args ...string) {
		t.Helper()
		target := b.path("raw")
		b.must(v.stage(ctx, b.rbd, raw))
		b.must(v.publish(ctx, b.rbd, raw, target, false))
		_, err := command.System{}.Run(ctx, command.Cmd{Name: name, Args: append(args, target)})
		b.must(err)
		b.must(v.unpublish(ctx, b.rbd, target))
		b.must(v.unstage(ctx, b.rbd))
	}
	setState := func(v *volume, state string) {
		t.Helper()
		b.must(b.images().SetMetadata(ctx, v.image, map[string]string{"holdfast.mkfs.state": state, "holdfast.mkfs.fs": "ext4", "holdfast.mkfs.image": v.image}))
	}

	v := b.imageVolume(64 * storage.MiB)
	b.must(v.stage(ctx, b.rbd, c))
	if s := state(v); s != "done" {
		t.Errorf("after the first staging the state is %q, want done", s)
	}
	b.must(v.unstage(ctx, b.rbd))
	onDevice(v, "wipefs", "-qa")
	if err := v.stage(ctx, b.rbd, c); !errors.Is(err, fault.Precondition) {
		t.Errorf("stage an image that lost its file system: got %v, want a precondition", err)
	}
	b.unwatched(v)

	v = b.imageVolume(64 * storage.MiB)
	onDevice(v, "mkfs.ext4", "-qF") // as if killed before it said done
	setState(v, "started")
	b.must(v.stage(ctx, b.rbd, c))
	if s := state(v); s != "done" {
		t.Errorf("after an interrupted mkfs was redone the state is %q, want done", s)
	}
	b.must(v.unstage(ctx, b.rbd))

	v = b.imageVolume(64 * storage.MiB)
	onDevice(v, "mkswap")
	if err := v.stage(ctx, b.rbd, c); !errors.Is(err, fault.Precondition) {
		t.Errorf("stage an image that carries swap: got %v, want a precondition", err)
	}
	setState(v, "started")
	if err := v.stage(ctx, b.rbd, c); !errors.Is(err, fault.Precondition) {
		t.Errorf("stage it with an mkfs begun: got %v, want a precondition", err)
	}
	b.must(v.stage(ctx, b.rbd, raw)) // a person has it now
	b.must(v.unstage(ctx, b.rbd))
	if s := state(v); s != "none" {
		t.Errorf("after the image was given out raw the state is %q, want none", s)
	}
}

func accessModes(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c := b.imageVolume(64*storage.MiB), mountCap("", rwop)
	one, two := b.path("one"), b.path("two")
	if err := v.publish(ctx, b.rbd, c, one, false); !errors.Is(err, fault.Precondition) {
		t.Errorf("publish before staging: got %v, want a precondition", err)
	}
	b.must(v.stage(ctx, b.rbd, c))
	b.must(v.publish(ctx, b.rbd, c, one, false))
	if err := v.publish(ctx, b.rbd, c, two, false); !errors.Is(err, fault.Precondition) {
		t.Errorf("a second target of a single writer: got %v, want a precondition", err)
	}
	if err := v.stage(ctx, b.rbd, mountCap("", rox)); !errors.Is(err, fault.Exists) {
		t.Errorf("stage again with another access mode: got %v, want exists", err)
	}
	if _, err := v.stats(ctx, b.rbd, b.path("nowhere")); !errors.Is(err, fault.NotFound) {
		t.Errorf("stats of an unknown path: got %v, want not found", err)
	}
	b.must(v.unpublish(ctx, b.rbd, one))
	b.must(v.unstage(ctx, b.rbd))
	if err := v.stage(ctx, b.rbd, mountCap("ext4", rwx)); !errors.Is(err, fault.Invalid) {
		t.Errorf("a file system on an image for many writers: got %v, want invalid", err)
	}
}

// MayGrowExt4 reports whether this process has CAP_SYS_RESOURCE.
func MayGrowExt4() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
