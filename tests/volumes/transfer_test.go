package volumes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// bigDisk makes a raw disk of 1 GiB with more than 300 MiB in it, and a VMDK of it.
func bigDisk(t *testing.T) (raw, vmdk string) {
	t.Helper()
	folder := t.TempDir()
	raw, vmdk = filepath.Join(folder, "원본.img"), filepath.Join(folder, "원본.vmdk")
	file, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{3})
	block := make([]byte, 1<<20)
	for at := range int64(320) {
		_, _ = random.Read(block)
		if _, err := file.WriteAt(block, at*3<<20); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := file.WriteAt(make([]byte, 20<<20), 965<<20); err != nil { // zeros that are data
		t.Fatal(err)
	}
	if err := file.Truncate(1<<30 + 512); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	b.image(t, "convert", raw, vmdk)
	return raw, vmdk
}

// image runs `holdfast image`.
func (b *bed) image(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.imageCommand(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("holdfast image %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (b *bed) imageCommand(args ...string) *exec.Cmd {
	return exec.Command(b.program, append([]string{"--data-dir", b.Dir, "image"}, args...)...)
}

// refusesImage runs what must fail, and say so.
func (b *bed) refusesImage(t *testing.T, say string, args ...string) {
	t.Helper()
	out, err := b.imageCommand(args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), say) {
		t.Errorf("holdfast image %v: %v, want %q\n%s", args, err, say, out)
	}
}

// imported is what an image's metadata tell of an import.
func (b *bed) imported(image string) (state volumeapi.Import) {
	out, err := exec.Command("rbd", "-c", filepath.Join(b.Dir, "ceph.conf"), "image-meta", "get", image, "holdfast.import").Output()
	if err == nil {
		_ = json.Unmarshal(bytes.TrimSpace(out), &state)
	}
	return state
}

// services is the pid of the process that serves CSI.
func (b *bed) services(t *testing.T) int {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		line, _ := os.ReadFile(path)
		if args := strings.Split(string(line), "\x00"); len(args) > 1 && filepath.Base(args[0]) == "holdfastd" && args[1] == "csi" && strings.Contains(string(line), b.Dir+"/") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no services")
	return 0
}

// until waits for a condition while the command runs; false: the command ended first.
func until(t *testing.T, ended <-chan error, fn func() bool) bool {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		select {
		case <-ended:
			return false
		default:
		}
		if fn() {
			return true
		}
	}
	t.Fatal("nothing moves")
	return false
}

// killedAt starts a command, kills it with SIGKILL when fn says so, and returns how it ended. The command stands still while it
// is looked at.
func killedAt(t *testing.T, cmd *exec.Cmd, fn func() bool) (said string, killed bool) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	reached := until(t, ended, func() bool {
		_ = cmd.Process.Signal(syscall.SIGSTOP)
		if fn() {
			return true
		}
		_ = cmd.Process.Signal(syscall.SIGCONT)
		time.Sleep(25 * time.Millisecond)
		return false
	})
	if !reached {
		return out.String(), false
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	return out.String(), true
}

// sameContent compares an image with a raw disk, behind whose end it holds zeros.
func sameContent(t *testing.T, b *bed, image, raw string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "exported")
	b.Tool(t, "rbd", "export", "--no-progress", image, path)
	if out, err := exec.Command("qemu-img", "compare", "-f", "raw", "-F", "raw", path, raw).CombinedOutput(); err != nil {
		t.Errorf("%s is not %s: %v\n%s", image, raw, err, out)
	}
}

func TestAnImportGoesOnAfterKills(t *testing.T) {
	b := newBed(t)
	raw, vmdk := bigDisk(t)
	image := "rbd/import-" + strconv.Itoa(os.Getpid())
	t.Cleanup(func() {
		for _, name := range []string{image, image + ".partial"} {
			_ = exec.Command("rbd", "-c", filepath.Join(b.Dir, "ceph.conf"), "rm", "--no-progress", name).Run()
		}
	})
	if out := b.image(t, "import", vmdk, "rbd:"+image, "--dry-run"); !strings.Contains(out, "would import") {
		t.Error(out)
	}
	reached := int64(0)
	for range 3 {
		said, killed := killedAt(t, b.imageCommand("import", vmdk, "rbd:"+image), func() bool { return b.imported(image+".partial").Mark.UpTo > reached })
		if !killed {
			t.Fatalf("ended before it was killed:\n%s", said)
		}
		if reached > 0 && !strings.Contains(said, "goes on at") {
			t.Errorf("began anew:\n%s", said)
		}
		reached = b.imported(image + ".partial").Mark.UpTo
	}
	if state := b.imported(image); state.Size != 0 {
		t.Errorf("it has its name: %+v", state)
	}
	b.refusesImage(t, "another disk", "import", raw, "rbd:"+image)

	// The services die under the program, which waits for the new ones.
	cmd := b.imageCommand("import", vmdk, "rbd:"+image, "-o", "json")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if until(t, ended, func() bool { return b.imported(image+".partial").Mark.UpTo > reached }) {
		if err := syscall.Kill(b.services(t), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	var report struct {
		Resumed int64  `json:"resumed_at_bytes"`
		Digest  string `json:"sha256"`
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil || report.Resumed == 0 || report.Digest == "" || !strings.Contains(said.String(), "services went away") {
		t.Errorf("%+v, %v\n%s", report, err, &said)
	}
	sameContent(t, b, image, raw)
	var used struct {
		Images []struct {
			Used int64 `json:"used_size"`
		} `json:"images"`
	}
	if err := json.Unmarshal([]byte(b.Tool(t, "rbd", "du", "--exact", "--format", "json", image)), &used); err != nil || len(used.Images) != 1 || used.Images[0].Used > 730<<20 { // by whole objects, up to the end of what is in them
		t.Errorf("not thin: %+v, %v", used, err)
	}
	if state := b.imported(image); !state.Complete || state.Mark.Digest != report.Digest {
		t.Errorf("%+v", state)
	}
	b.refusesImage(t, "--overwrite", "import", vmdk, "rbd:"+image)
	b.refusesImage(t, "--overwrite", "import", vmdk, "rbd:"+image, "--dry-run")
	exportAfterKills(t, b, image, raw)
}

// exportAfterKills reads the image out again.
func exportAfterKills(t *testing.T, b *bed, image, raw string) {
	t.Helper()
	for _, name := range []string{"다시.img", "again.vmdk"} {
		path := filepath.Join(t.TempDir(), name)
		note := filepath.Join(filepath.Dir(path), "."+name+".partial.json")
		reached := int64(0)
		for range 2 {
			said, killed := killedAt(t, b.imageCommand("export", "rbd:"+image, path), func() bool { return noted(note) > reached })
			if !killed {
				t.Fatalf("ended before it was killed:\n%s", said)
			}
			reached = noted(note)
		}
		b.image(t, "export", "rbd:"+image, path, "--dry-run")
		out := b.image(t, "export", "rbd:"+image, path, "-o", "json")
		if !strings.Contains(out, fmt.Sprintf(`"resumed_at_bytes": %d`, reached)) {
			t.Errorf("goes on elsewhere than at %d:\n%s", reached, out)
		}
		if out, err := exec.Command("qemu-img", "compare", path, "-F", "raw", raw).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if snapshots := b.Tool(t, "rbd", "snap", "ls", "--format", "json", image); strings.TrimSpace(snapshots) != "[]" {
			t.Errorf("left: %s", snapshots)
		}
		b.refusesImage(t, "--overwrite", "export", "rbd:"+image, path)
	}
	b.refusesImage(t, "no image", "export", "rbd:"+image+"x", filepath.Join(t.TempDir(), "x.img"))
	b.refusesImage(t, "rbd:POOL/IMAGE", "export", image, filepath.Join(t.TempDir(), "x.img"))
}

// noted is how far an export is by its note.
func noted(path string) int64 {
	var note struct {
		Mark volumeapi.ImageMark `json:"mark"`
	}
	if text, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(text, &note)
	}
	return note.Mark.UpTo
}

func TestAVolumeIsFilledFurtherAfterAKill(t *testing.T) {
	b := newBed(t)
	raw, vmdk := bigDisk(t)
	create := func() *exec.Cmd {
		return exec.Command(b.program, "--data-dir", b.Dir, "volume", "create", "vm-disk", "--from-image", vmdk)
	}
	t.Cleanup(func() {
		_, _, _ = b.try("umount", "vm-disk")
		_, _, _ = b.try("delete", "vm-disk", "--yes")
	})
	image := ""
	said, killed := killedAt(t, create(), func() bool {
		if image == "" {
			out, _, err := b.try("list", "-o", "json")
			var list []csiclient.Volume
			if err != nil || json.Unmarshal([]byte(out), &list) != nil {
				return false
			}
			for _, v := range list {
				if v.Name == "vm-disk" {
					image = "rbd/" + imageOf(t, b, v)
				}
			}
		}
		return image != "" && b.imported(image).Mark.UpTo > 0
	})
	if !killed {
		t.Fatalf("ended before it was killed:\n%s", said)
	}
	if _, said, err := b.try("create", "vm-disk", "--from-image", raw); err == nil || !strings.Contains(said, "another disk") {
		t.Errorf("filled with another disk: %v\n%s", err, said)
	}
	if _, said, err := b.try("create", "vm-disk", "--from-image", vmdk, "--dry-run"); err != nil || !strings.Contains(said, "go on with") {
		t.Errorf("%v\n%s", err, said)
	}
	if out, err := create().CombinedOutput(); err != nil || !strings.Contains(string(out), "goes on at") {
		t.Fatalf("%v\n%s", err, out)
	}
	sameContent(t, b, image, raw)
	v := read[csiclient.Volume](t, b, "show", "vm-disk")
	if len(v.Nodes) > 0 {
		t.Errorf("still on %v", v.Nodes)
	}
	b.refused(t, []string{"not written over"}, "create", "vm-disk", "--from-image", vmdk)
}

func TestAnEmptyVolumeOfAClaimIsFilled(t *testing.T) {
	b := newBed(t)
	path := filepath.Join(t.TempDir(), "disk.vmdk")
	want := vmdk(t, path)
	v := b.volume(t, "--block", "--size", "100MiB")
	b.run(t, "create", v.Name, "--from-image", path)
	at := filepath.Join(t.TempDir(), "device")
	b.run(t, "mount", v.ID, at, "--block")
	got, err := os.ReadFile(at)
	b.run(t, "umount", v.ID)
	if err != nil || len(got) < len(want) || !bytes.Equal(got[:len(want)], want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	files := b.volume(t)
	b.refused(t, []string{"not written over"}, "create", files.Name, "--from-image", path)
}
