package attach

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func testImage() Image {
	return Image{
		Volume: "v", FSID: "f", Endpoint: ceph.Endpoint{Monitors: []string{"[v2:10.0.0.1:1,v1:10.0.0.1:2]", "[v2:10.0.0.2:1,v1:10.0.0.2:2]"}},
		Credentials: ceph.Credentials{User: "node", Key: storage.NewSecret("KEY==")}, Pool: "rbd", Namespace: "팀", Name: "hf-1",
	}
}

func TestTheLineForTheKernelHasEverything(t *testing.T) {
	img := testImage()
	img.ReadOnly, img.MapOptions = true, "krbd:queue_depth=64,lock_on_read;nbd:try-netlink"
	got, err := krbdLine(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	want := "10.0.0.1:2,10.0.0.2:2 name=node,secret=KEY==,noshare,ro,_pool_ns=팀,mount_timeout=30,queue_depth=64,lock_on_read rbd hf-1 -"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestMapOptionsThatChangeWhoMapsAreRefused(t *testing.T) {
	for _, options := range []string{"name=admin", "krbd:secret=x", "noshare", "a b"} {
		if _, err := krbdOptions(options); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), options) {
			t.Errorf("%q: got %v, want invalid that quotes it", options, err)
		}
	}
}

func TestNamesThatWouldBreakTheLineAreRefused(t *testing.T) {
	img := testImage()
	img.Pool = "two words"
	if _, err := krbdLine(t.Context(), img); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v, want invalid", err)
	}
}

func TestAnErrnoOfTheKernelBecomesAClassWithoutTheKey(t *testing.T) {
	for errno, class := range map[unix.Errno]error{
		unix.ENOENT: fault.NotFound, unix.EPERM: fault.Denied, unix.EINVAL: fault.Invalid,
		unix.ENXIO: fault.Unsupported, unix.ETIMEDOUT: fault.Unavailable,
	} {
		err := krbdError(testImage(), &os.PathError{Op: "write", Path: "x", Err: errno})
		if !errors.Is(err, class) || strings.Contains(err.Error(), "KEY") {
			t.Errorf("%v: got %v, want class %v and no key", errno, err, class)
		}
	}
}

// fakeSys is a tree as /sys/bus/rbd has it, with one mapped image.
func fakeSys(t *testing.T) *krbd {
	t.Helper()
	k := &krbd{sys: t.TempDir(), dev: t.TempDir()}
	k.put = func(path, line string) error {
		if filepath.Base(path) == "remove_single_major" {
			id, _, _ := strings.Cut(line, " ")
			if err := os.RemoveAll(k.bus("devices", id)); err != nil {
				return err
			}
		}
		return writeLine(path, line)
	}
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(k.sys, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("bus/rbd/add_single_major", "")
	write("bus/rbd/remove_single_major", "")
	write("bus/rbd/supported_features", "0x1fd\n")
	for name, value := range map[string]string{"pool": "rbd", "pool_ns": "팀", "name": "hf-1", "current_snap": "-", "cluster_fsid": "f"} {
		write("bus/rbd/devices/3/"+name, value+"\n")
	}
	write("block/rbd3/ro", "0\n")
	write("block/rbd3/size", "2048\n")
	if err := os.WriteFile(filepath.Join(k.dev, "rbd3"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAMappedImageIsFoundAndNotMappedAgain(t *testing.T) {
	k := fakeSys(t)
	path, err := k.attach(t.Context(), testImage())
	if err != nil || filepath.Base(path) != "rbd3" {
		t.Fatalf("got %s, %v", path, err)
	}
	if data, _ := os.ReadFile(k.bus("add_single_major")); len(data) != 0 {
		t.Errorf("mapped again: %q", data)
	}
	for name, change := range map[string]func(*Image){
		"another cluster": func(i *Image) { i.FSID = "other" }, "another namespace": func(i *Image) { i.Namespace = "" },
	} {
		img := testImage()
		change(&img)
		if _, found, err := k.find(img.FSID, img.Pool, img.Namespace, img.Name); found || err != nil {
			t.Errorf("%s: found %t, %v", name, found, err)
		}
	}
	d := Device{Mounter: Krbd, Path: path, FSID: "f", Pool: "rbd", Namespace: "팀", Image: "hf-1", UnmapOption: "krbd:force"}
	if err := k.check(d); err != nil {
		t.Error(err)
	}
	if err := k.detach(t.Context(), d); err != nil {
		t.Error(err)
	}
	if data, _ := os.ReadFile(k.bus("remove_single_major")); string(data) != "3 force" {
		t.Errorf("unmapped by %q", data)
	}
	d.Image = "hf-2"
	if err := k.check(d); !errors.Is(err, ErrLost) {
		t.Errorf("an image that is not mapped: got %v, want lost", err)
	}
}

func TestGrowthThatDoesNotComeIsTold(t *testing.T) {
	k := fakeSys(t)
	if err := os.WriteFile(k.bus("devices", "3", "refresh"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := Device{Path: filepath.Join(k.dev, "rbd3")}
	if size, err := k.grow(t.Context(), d, storage.MiB); err != nil || size != storage.MiB {
		t.Errorf("got %s, %v", size, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := k.grow(ctx, d, storage.GiB); !errors.Is(err, fault.Precondition) {
		t.Errorf("got %v, want a precondition", err)
	}
}

func TestFeaturesThatTheKernelLacksAreNamed(t *testing.T) {
	k := fakeSys(t)
	if got := k.lacks([]string{"layering", "exclusive-lock", "striping", "from-the-future"}); strings.Join(got, " ") != "striping from-the-future" {
		t.Errorf("got %v", got)
	}
}

func TestAMapThatWasGivenUpOnLeavesNoSecondMapping(t *testing.T) {
	k := fakeSys(t)
	put, busy := k.put, map[string]bool{}
	again := func(id string) {
		t.Helper()
		if err := os.CopyFS(k.bus("devices", id), os.DirFS(k.bus("devices", "3"))); err != nil {
			t.Fatal(err)
		}
	}
	k.put = func(path, line string) error {
		if busy[line] {
			return &os.PathError{Op: "write", Path: path, Err: unix.EBUSY}
		}
		return put(path, line)
	}
	d := Device{Mounter: Krbd, Path: filepath.Join(k.dev, "rbd3"), FSID: "f", Pool: "rbd", Namespace: "팀", Image: "hf-1"}
	again("1")
	busy["3"] = true // mounted
	if err := k.check(d); err != nil {
		t.Errorf("the mapping in use with another beside it: %v", err)
	}
	path, err := k.attach(t.Context(), testImage())
	if list, _ := k.all("f", "rbd", "팀", "hf-1"); err != nil || path != d.Path || len(list) != 1 {
		t.Errorf("got %s, %v, with the mappings %v: want the one in use alone", path, err, list)
	}
	again("1")
	busy["1"] = true
	if _, err := k.attach(t.Context(), testImage()); !errors.Is(err, fault.Busy) {
		t.Errorf("two mappings in use: got %v, want busy", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := k.detach(ctx, d); !errors.Is(err, fault.Busy) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("detach of what is open: got %v, want busy and no slowness", err)
	}
	clear(busy)
	if err := k.detach(t.Context(), d); err != nil {
		t.Error(err)
	}
	if list, _ := k.all("f", "rbd", "팀", "hf-1"); len(list) != 0 {
		t.Errorf("mappings are left: %v", list)
	}
}
