package volumes

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/csiclient"
)

// vmdk makes an image of 64 MiB by QEMU, and returns what is in it.
func vmdk(t *testing.T, path string) []byte {
	t.Helper()
	data := make([]byte, 64<<20)
	random := rand.New(rand.NewPCG(1, 1))
	for at := 5 << 20; at < 9<<20; at++ {
		data[at] = byte(random.Uint32())
	}
	copy(data[len(data)-100:], "the end")
	raw := path + ".raw"
	write(t, raw, data)
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	return data
}

func TestAVolumeIsFilledFromAnImage(t *testing.T) {
	b := newBed(t)
	path := filepath.Join(t.TempDir(), "디스크.vmdk")
	want := vmdk(t, path)
	v := read[csiclient.Volume](t, b, "create", "imported", "--from-image", path, "--size", "80MiB")
	t.Cleanup(func() { _, _, _ = b.try("delete", "imported", "--yes") })
	if v.Bytes != 80<<20 || len(v.Mounts) > 0 {
		t.Errorf("made %+v", v)
	}
	at := filepath.Join(t.TempDir(), "device")
	b.run(t, "mount", "imported", at, "--block")
	got, err := os.ReadFile(at)
	b.run(t, "umount", "imported")
	if err != nil || len(got) != 80<<20 || !bytes.Equal(got[:len(want)], want) || len(bytes.TrimLeft(got[len(want):], "\x00")) > 0 {
		t.Errorf("the device has %d bytes and another content, %v", len(got), err)
	}
	var used struct {
		Images []struct {
			Used int64 `json:"used_size"`
		} `json:"images"`
	}
	if err := json.Unmarshal([]byte(b.Tool(t, "rbd", "du", "--format", "json", "rbd/"+imageOf(t, b, v))), &used); err != nil || len(used.Images) != 1 || used.Images[0].Used > 24<<20 {
		t.Errorf("not thin: %+v, %v", used, err)
	}
	b.refused(t, []string{"not written over"}, "create", "imported", "--from-image", path)
}

// imageOf is the name of the image of a volume.
func imageOf(t *testing.T, b *bed, v csiclient.Volume) string {
	t.Helper()
	for _, name := range images(t, b) {
		if hex, ok := strings.CutPrefix(name, "hf-"); ok && strings.Contains(strings.ReplaceAll(v.ID, "-", ""), hex) {
			return name
		}
	}
	t.Fatalf("no image of %s", v.ID)
	return ""
}

func TestAVolumeThatCannotBeFilledIsNotLeft(t *testing.T) {
	b := newBed(t)
	path := filepath.Join(t.TempDir(), "bad.vmdk")
	vmdk(t, path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[128<<10:], make([]byte, 64<<10)) // grains
	write(t, path, data)
	b.refused(t, []string{"grain"}, "create", "broken", "--from-image", path)
	b.refused(t, []string{"shared file system"}, "create", "broken", "--type", "cephfs", "--from-image", path)
	b.refused(t, []string{"fewer"}, "create", "broken", "--size", "1MiB", "--from-image", path)
	if out := b.run(t, "list"); strings.Contains(out, "broken") {
		t.Errorf("left:\n%s", out)
	}
}
