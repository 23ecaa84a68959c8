package inside_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/inside"
)

// loop makes a loop device for as long as the test runs, or until detach.
func loop(t testing.TB, path string) (device string, detach func()) {
	t.Helper()
	device = strings.TrimSpace(run(t, "", "losetup", "--find", "--show", path))
	done := false
	detach = func() {
		if !done {
			done = true
			if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil { // also when the test's context has ended
				t.Errorf("%v\n%s", err, out)
			}
		}
	}
	t.Cleanup(detach)
	return device, detach
}

// lvm runs LVM's tools on one device, without device-mapper.
func lvm(t testing.TB, device string, argv ...string) string {
	t.Helper()
	config := fmt.Sprintf(`devices{filter=["a|^%[1]s$|","r|.*|"] global_filter=["a|^%[1]s$|","r|.*|"] use_devicesfile=0} global{locking_dir=%[2]q} backup{backup=0 archive=0}`, device, t.TempDir())
	return run(t, "", append([]string{"env", "LVM_SUPPRESS_FD_WARNINGS=1", "lvm", argv[0], "--driverloaded", "n", "--config", config}, argv[1:]...)...)
}

func needsLVM(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for loop devices")
	}
	if _, err := exec.LookPath("lvm"); err != nil {
		t.Skip("needs lvm2")
	}
}

// volumes makes a physical volume of so many bytes in a file: swap of 20 MiB, root of 160 MiB with what is in from, and a third
// volume behind it, so that root cannot grow in one piece.
func volumes(t testing.TB, path string, size int64, kind, from string) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
	device, detach := loop(t, path)
	lvm(t, device, "pvcreate", device)
	lvm(t, device, "vgcreate", "vg0", device)
	for _, v := range [][2]string{{"swap", "20M"}, {"root", "160M"}, {"third", "12M"}} {
		lvm(t, device, "lvcreate", "-an", "-Zn", "-Wn", "-n", v[0], "-L", v[1], "vg0")
	}
	detach()
	fs := path + ".fs"
	must(t, os.WriteFile(fs, nil, 0o600))
	must(t, os.Truncate(fs, 160*mib))
	if kind == "ext4" {
		run(t, "", "mke2fs", "-q", "-t", kind, "-d", from, fs)
	} else {
		run(t, "", "mkfs."+kind, "-q", fs)
	}
	run(t, "", "dd", "if="+fs, "of="+path, "bs=1M", "seek=21", "conv=notrunc,sparse")
}

func sum(t testing.TB, path string) [32]byte {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	h := sha256.New()
	_, err = io.Copy(h, file)
	must(t, err)
	return [32]byte(h.Sum(nil))
}

// A group of the same name is on a device of this machine, and stays as it is.
func TestAVolumeOfLVMGrowsWithItsPartition(t *testing.T) {
	needsLVM(t)
	folder := t.TempDir()
	want := file(t, folder)
	pv := filepath.Join(t.TempDir(), "pv")
	volumes(t, pv, 250*mib, "ext4", folder)
	twin := filepath.Join(t.TempDir(), "twin")
	volumes(t, twin, 250*mib, "ext4", folder)
	loop(t, twin)
	before := sum(t, twin)

	path := filepath.Join(t.TempDir(), "disk.img")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 252*mib))
	run(t, "label: dos\nstart=2048, size=512000, type=8e\n", "sfdisk", "--quiet", path)
	run(t, "", "dd", "if="+pv, "of="+path, "bs=1M", "seek=1", "conv=notrunc,sparse")

	const larger = 700 * mib
	overlay := content.NewOverlay(content.Resized(open(t, path), larger))
	layout, err := inside.GrowPartition(overlay, 252*mib, 0)
	must(t, err)
	part, err := layout.Find(0)
	must(t, err)
	if part.Group == nil || part.Group.Name != "vg0" || len(part.Group.Volumes) != 3 {
		t.Fatalf("%+v", part.Group)
	}
	if out := layout.Picture(larger); !strings.Contains(out, "160 MiB    vg0/root ext4") || !strings.Contains(out, "free in vg0") {
		t.Errorf("the picture:\n%s", out)
	}
	work := filepath.Join(t.TempDir(), "part.img")
	must(t, vdisk.Convert(t.Context(), content.Section(overlay, part.Start, part.Size), vdisk.Target{Path: work, Format: vdisk.Raw}, nil))
	growth, err := inside.Tool{Run: command.System{}}.GrowFileSystem(t.Context(), work, part)
	if must(t, err); !growth.Done || growth.Kind != "ext4 in lvm2" {
		t.Fatalf("%+v", growth)
	}
	if sum(t, twin) != before {
		t.Error("the group of the same name was changed")
	}

	image := open(t, work)
	group, err := inside.ReadGroup(image)
	must(t, err)
	root, err := group.Pick("root")
	if must(t, err); root.Size != 664*mib || group.Free != 0 {
		t.Errorf("root has %d MiB, and %d are free", root.Size/mib, group.Free/mib)
	}
	fs := filepath.Join(t.TempDir(), "root.img")
	must(t, vdisk.Convert(t.Context(), group.Disk(image, root), vdisk.Target{Path: fs, Format: vdisk.Raw}, nil))
	run(t, "", "e2fsck", "-f", "-n", fs)
	at := filepath.Join(t.TempDir(), "out")
	run(t, "", "debugfs", "-R", "dump /파일 "+at, fs)
	got, err := os.ReadFile(at)
	if must(t, err); !bytes.Equal(got, want) {
		t.Error("the file in it has changed")
	}
	if out := run(t, "", "dumpe2fs", "-h", fs); !strings.Contains(out, fmt.Sprintf("Block count:              %d", root.Size/4096)) && !strings.Contains(out, fmt.Sprintf("Block count:              %d", root.Size/1024)) {
		t.Errorf("the file system does not fill the volume:\n%s", out)
	}
	device, _ := loop(t, work)
	lvm(t, device, "vgck", "vg0")
	if out := lvm(t, device, "lvs", "--noheadings", "--segments", "vg0/root"); strings.Count(out, "root") != 2 {
		t.Errorf("segments:\n%s", out)
	}
}

// noLoop is a machine that has no loop devices.
type noLoop struct{ command.Runner }

func (n noLoop) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	if c.Name == "losetup" {
		return command.Result{}, &command.ExitError{Cmd: "losetup", Code: 1}
	}
	return n.Runner.Run(ctx, c)
}

func TestWhereLVMCannotGrowTheCommandIsSaid(t *testing.T) {
	needsLVM(t)
	folder := t.TempDir()
	file(t, folder)
	pv := filepath.Join(t.TempDir(), "pv")
	volumes(t, pv, 250*mib, "ext4", folder)
	part := inside.Part{Content: "lvm2"}
	part.Number = 3
	growth, err := inside.Tool{Run: noLoop{command.System{}}}.GrowFileSystem(t.Context(), pv, part)
	if err != nil || growth.Done || growth.Why == "" || !strings.Contains(growth.AtBoot, "pvresize /dev/sdX3 && lvextend") {
		t.Errorf("%+v, %v", growth, err)
	}
	growth, err = inside.Tool{Run: command.System{}, Volume: "none"}.GrowFileSystem(t.Context(), pv, part)
	if err != nil || growth.Done || !strings.Contains(growth.Why, "none") {
		t.Errorf("%+v, %v", growth, err)
	}
}

func FuzzReadGroup(f *testing.F) {
	head := make([]byte, 2<<20)
	if os.Geteuid() == 0 {
		if _, err := exec.LookPath("lvm"); err == nil {
			pv := filepath.Join(f.TempDir(), "pv")
			volumes(f, pv, 250*mib, "ext4", f.TempDir())
			file, err := os.Open(pv)
			must(f, err)
			_, err = io.ReadFull(file, head)
			must(f, err)
			must(f, file.Close())
			f.Add(head[512:1024], head[4096:4096+512], head[4096+512:4096+512+8192])
		}
	}
	f.Fuzz(func(t *testing.T, label, area, text []byte) {
		disk := make([]byte, 1<<20)
		copy(disk[512:1024], label)
		copy(disk[4096:4096+512], area)
		copy(disk[4096+512:], text)
		group, err := inside.ReadGroup(memory(disk))
		if err != nil {
			return
		}
		for _, v := range group.Volumes {
			if v.Linear {
				_, _ = group.Disk(memory(disk), v).ReadAt(make([]byte, 512), 0)
			}
		}
		group.Extend("root", 1<<30)
	})
}

// memory is a disk that is all data.
type memory []byte

func (m memory) Size() int64                             { return int64(len(m)) }
func (memory) Close() error                              { return nil }
func (m memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

func (m memory) Span(off int64) (content.Span, error) {
	return content.Span{Offset: off, Length: m.Size() - off}, nil
}

// groupOf is a physical volume whose group has these logical volumes, by LVM's text, and an empty ext4 at its begin.
func groupOf(volumes string) memory {
	disk := make(memory, 4*mib)
	id := strings.Repeat("i", 32)
	label := disk[512:1024]
	copy(label, "LABELONE")
	binary.LittleEndian.PutUint32(label[20:], 32)
	copy(label[24:], "LVM2 001"+id)
	for i, at := range []uint64{mib, 0, 0, 0, 4096, mib - 4096} { // data, the list's end, metadata
		binary.LittleEndian.PutUint64(label[72+8*i:], at)
	}
	text := `vg0 {
extent_size = 2048
physical_volumes { pv0 { id = "` + id + `" pe_start = 2048 pe_count = 3 } }
logical_volumes { ` + volumes + ` }
}`
	area := disk[4096:]
	copy(area[4:], " LVM2 x[5A%r0N*>")
	binary.LittleEndian.PutUint64(area[32:], mib-4096)
	binary.LittleEndian.PutUint64(area[40:], 512)
	binary.LittleEndian.PutUint64(area[48:], uint64(len(text)))
	copy(area[512:], text)
	super := disk[mib+1024:]
	binary.LittleEndian.PutUint16(super[56:], 0xEF53)
	binary.LittleEndian.PutUint32(super[92:], 4)    // a journal
	binary.LittleEndian.PutUint32(super[96:], 0x40) // extents: ext4
	return disk
}

func logical(name, status string, from int) string {
	return fmt.Sprintf(`%s { status = [%s] segment_count = 1 segment1 { start_extent = 0 extent_count = 1 type = "striped" stripe_count = 1 stripes = [ "pv0", %d ] } } `, name, status, from)
}

func TestVolumesThatAreNotOnesOwnDoNotGrow(t *testing.T) {
	const visible, hidden = `"READ", "WRITE", "VISIBLE"`, `"READ", "WRITE"`
	snapshot := `snapshot0 { status = [` + hidden + `] segment1 { start_extent = 0 extent_count = 1 type = "snapshot" chunk_size = 8 origin = "root" cow_store = "snap" } } `
	for _, c := range []struct{ volumes, name, say string }{
		{logical("root", visible, 0), "", ""},
		{logical("root_rimage_0", hidden, 0), "", "no volume"},
		{logical("root_rimage_0", hidden, 0), "root_rimage_0", "no volume root_rimage_0"},
		{logical("root", visible, 0) + logical("snap", visible, 1) + snapshot, "", "vg0/root does not grow here: it has the snapshot snap"},
		{logical("root", visible, 0) + logical("snap", visible, 1) + snapshot, "vg0/root", "it has the snapshot snap"},
		{logical("root", visible, 0) + logical("snap", visible, 1) + snapshot, "snap", "it is a snapshot of root"},
	} {
		group, err := inside.ReadGroup(groupOf(c.volumes))
		must(t, err)
		v, err := group.Pick(c.name)
		if c.say == "" && (err != nil || v.Name != "root" || v.Content != "ext4") || c.say != "" && (err == nil || !strings.Contains(err.Error(), c.say)) {
			t.Errorf("pick %q of %s: %+v, %v; want %q", c.name, c.volumes, v, err, c.say)
		}
	}
}

// noTool is a machine without one of the tools.
type noTool struct {
	command.Runner
	name string
}

func (n noTool) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	if c.Name == n.name {
		return command.Result{}, fmt.Errorf("%s: %w", n.name, exec.ErrNotFound)
	}
	return n.Runner.Run(ctx, c)
}

func TestWhereTheVolumeHasGrownTheFileSystemsCommandIsSaid(t *testing.T) {
	needsLVM(t)
	folder := t.TempDir()
	file(t, folder)
	pv := filepath.Join(t.TempDir(), "pv")
	volumes(t, pv, 250*mib, "ext4", folder)
	growth, err := inside.Tool{Run: noTool{command.System{}, "e2fsck"}}.GrowFileSystem(t.Context(), pv, inside.Part{Content: "lvm2"})
	if err != nil || growth.Done || growth.AtBoot != "resize2fs /dev/vg0/root" {
		t.Errorf("%+v, %v", growth, err)
	}
}
