package inside_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
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

const mib = 1 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, stdin string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// file is one that is in the file systems, larger than a group of blocks is short.
func file(t testing.TB, folder string) []byte {
	t.Helper()
	data := make([]byte, 3*mib+123)
	_, _ = rand.Read(data)
	must(t, os.WriteFile(filepath.Join(folder, "파일"), data, 0o600))
	return data
}

// disk is a raw file with the partitions of sfdisk's script, and ext4 of size bytes with a file at byte start.
func disk(t testing.TB, size int64, script string, start, length int64, make string, from string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
	run(t, script, "sfdisk", "--quiet", path)
	argv := []string{"mke2fs", "-q", "-t", make, "-d", from, "-E", fmt.Sprintf("offset=%d", start), path, fmt.Sprintf("%dk", length>>10)}
	run(t, "", argv...)
	return path
}

func open(t testing.TB, path string) *vdisk.Image {
	t.Helper()
	i, err := vdisk.Open(path, vdisk.Options{})
	must(t, err)
	t.Cleanup(func() { _ = i.Close() })
	return i
}

// Each is grown on its way from one format to another, and the file system is checked and read by e2fsprogs.
func TestAnExt4GrowsWithItsPartition(t *testing.T) {
	const size, larger = 200 * mib, 700 * mib
	for name, c := range map[string]struct {
		script        string
		start, length int64
		number        int
		kind          string
	}{
		"boot2docker: a swap partition first": {"label: dos\nstart=2048, size=102400, type=82\nstart=104448, type=83, bootable\n", 51 * mib, 149 * mib, 0, "ext4"},
		"GPT":                                 {"label: gpt\nsize=20M, type=uefi\ntype=linux\n", 21 * mib, 170 * mib, 2, "ext4"},
		"a logical partition":                 {"label: dos\nsize=20M, type=82\ntype=5\n,\n", 22 * mib, 170 * mib, 5, "ext3"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			want := file(t, folder)
			path := disk(t, size, c.script, c.start, c.length, c.kind, folder)
			overlay := content.NewOverlay(content.Resized(open(t, path), larger))
			layout, err := inside.GrowPartition(overlay, size, c.number)
			must(t, err)
			part, err := layout.Find(c.number)
			must(t, err)
			if part.Start != c.start || part.Content != c.kind || part.End() < larger-2*mib {
				t.Fatalf("%+v", part)
			}
			work, grown := filepath.Join(t.TempDir(), "part.img"), filepath.Join(t.TempDir(), "grown.img")
			must(t, vdisk.Convert(t.Context(), content.Section(overlay, part.Start, part.Size), vdisk.Target{Path: work, Format: vdisk.Raw}, nil))
			growth, err := inside.Tool{Run: command.System{}}.GrowFileSystem(t.Context(), work, part)
			if must(t, err); !growth.Done || growth.AtBoot != "" {
				t.Errorf("%+v", growth)
			}
			must(t, vdisk.Convert(t.Context(), content.Spliced(overlay, part.Start, open(t, work)), vdisk.Target{Path: grown, Format: vdisk.Raw}, nil))
			where := fmt.Sprintf("%s?offset=%d", grown, part.Start)
			run(t, "", "e2fsck", "-f", "-n", where)
			at := filepath.Join(t.TempDir(), "out")
			run(t, "", "debugfs", "-R", "dump /파일 "+at, where)
			got, err := os.ReadFile(at)
			if must(t, err); !bytes.Equal(got, want) {
				t.Error("the file in it has changed")
			}
			if out := run(t, "", "dumpe2fs", "-h", where); !strings.Contains(out, fmt.Sprintf("Block count:              %d", part.Size/1024)) &&
				!strings.Contains(out, fmt.Sprintf("Block count:              %d", part.Size/4096)) {
				t.Errorf("the file system does not fill %d bytes:\n%s", part.Size, out)
			}
			if out := run(t, "", "sfdisk", "--verify", grown); !strings.Contains(out, "No errors") {
				t.Error(out)
			}
		})
	}
}

func TestWhatDoesNotGrowHereIsSaid(t *testing.T) {
	for kind, want := range map[string]inside.Way{"ext4": inside.InFile, "xfs": inside.Mounted, "btrfs": inside.Mounted, "lvm2": inside.Mounted, "swap": inside.Never, "": inside.Nothing} {
		way, atBoot := inside.WayOf(kind, "/dev/sda3")
		if way != want || (atBoot == "") != (want == inside.Never || want == inside.Nothing) {
			t.Errorf("%s: %s, %q", kind, way, atBoot)
		}
	}
}

// The picture is what a person decides by.
func TestThePictureShowsBothEnds(t *testing.T) {
	path := disk(t, 200*mib, "label: dos\nstart=2048, size=102400, type=82\nstart=104448, type=83, bootable\n", 51*mib, 149*mib, "ext4", t.TempDir())
	before, err := inside.Look(open(t, path))
	must(t, err)
	want := `[1               ][2 ext4                                              ]  200 MiB
  1  50 MiB     at 1 MiB      type 82
  2  149 MiB    at 51 MiB     ext4 boot
`
	if got := before.Picture(200 * mib); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

type missing struct{}

func (missing) Run(context.Context, command.Cmd) (command.Result, error) {
	return command.Result{}, exec.ErrNotFound
}

func TestWithoutItsToolsAFileSystemIsLeftToItsMachine(t *testing.T) {
	part := inside.Part{Content: "ext4"}
	part.Number = 2
	growth, err := inside.Tool{Run: missing{}}.GrowFileSystem(t.Context(), "x", part)
	if err != nil || growth.Done || growth.Why == "" || growth.AtBoot != "resize2fs /dev/sdX2" {
		t.Errorf("%+v, %v", growth, err)
	}
}

// The primary GPT is damaged, and its backup at the end of the disk as it was.
func TestADamagedGPTIsMendedBeforeTheDiskGrows(t *testing.T) {
	path := disk(t, 200*mib, "label: gpt\nsize=20M, type=uefi\ntype=linux\n", 21*mib, 170*mib, "ext4", t.TempDir())
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = file.WriteAt(make([]byte, 512), 512)
	must(t, err)
	must(t, file.Close())
	overlay := content.NewOverlay(content.Resized(open(t, path), 700*mib))
	layout, err := inside.GrowPartition(overlay, 200*mib, 0)
	must(t, err)
	if part, err := layout.Find(2); err != nil || part.Content != "ext4" || part.End() < 698*mib || len(layout.Table.Trouble) > 0 {
		t.Errorf("%+v, %v, %v", part, layout.Table.Trouble, err)
	}
	grown := filepath.Join(t.TempDir(), "grown.img")
	must(t, vdisk.Convert(t.Context(), overlay, vdisk.Target{Path: grown, Format: vdisk.Raw}, nil))
	if out := run(t, "", "sgdisk", "--verify", grown); !strings.Contains(out, "No problems found") {
		t.Error(out)
	}
}
