package vmdk

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

func read(t *testing.T, d content.Disk) []byte {
	t.Helper()
	data := make([]byte, d.Size())
	if n, err := d.ReadAt(data, 0); n < len(data) {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	return data
}

func kinds(t *testing.T, d content.Disk) string {
	t.Helper()
	var list []string
	if err := content.Each(d, func(s content.Span) error {
		list = append(list, s.Kind.String())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

// Grains: data, hole, zeros, data, and holes to the end.
func TestZeroedGrainsAreZerosAndNoHoles(t *testing.T) {
	image := tiny()
	d, err := Open(unclosed{bytes.NewReader(image)}, int64(len(image)), none)
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, d)
	want := make([]byte, 40<<10)
	copy(want, bytes.Repeat([]byte("data"), 1024))
	copy(want[12<<10:], bytes.Repeat([]byte("data"), 1024))
	if !bytes.Equal(got, want) || kinds(t, d) != "data hole zero data hole" {
		t.Errorf("kinds %s", kinds(t, d))
	}

	// Without the flag, entry 1 is a grain in the descriptor.
	binary.LittleEndian.PutUint32(image[atFlags:], flagNewline)
	d, err = Open(unclosed{bytes.NewReader(image)}, int64(len(image)), none)
	if err != nil {
		t.Fatal(err)
	}
	if found := d.Check(3); len(found) != 1 || !strings.Contains(found[0], "grain 2 is at byte 512") {
		t.Errorf("%q", found)
	}
}

// A directory may lead nowhere: all that its table would have is a hole.
func TestATableThatIsNotThereIsAHole(t *testing.T) {
	image := tiny()
	binary.LittleEndian.PutUint32(image[4*SectorSize:], 0)
	d, err := Open(unclosed{bytes.NewReader(image)}, int64(len(image)), none)
	if err != nil {
		t.Fatal(err)
	}
	if got := kinds(t, d); got != "hole" {
		t.Error(got)
	}
}

// An ESX server's snapshot: tables of 4096 grains of one sector.
func TestAnExtentOfAnESXServerIsRead(t *testing.T) {
	folder := t.TempDir()
	const capacity = 5000
	image := make([]byte, 4*SectorSize)
	copy(image, "COWD")
	for at, value := range map[int]uint32{4: 1, 8: 3, 12: capacity, 16: 1, 20: 4, 24: 2} {
		binary.LittleEndian.PutUint32(image[at:], value)
	}
	directory := make([]byte, SectorSize)
	binary.LittleEndian.PutUint32(directory, 5)
	binary.LittleEndian.PutUint32(directory[4:], 5+4096*4/SectorSize)
	image = append(image, directory...)
	tables := make([]byte, 2*4096*4)
	first := uint32(len(image)+len(tables)) / SectorSize
	binary.LittleEndian.PutUint32(tables[4*7:], first)
	binary.LittleEndian.PutUint32(tables[4*4999:], first+1)
	image = append(append(image, tables...), bytes.Repeat([]byte("snap"), 2*SectorSize/4)...)
	if err := os.WriteFile(filepath.Join(folder, "s-delta.vmdk"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	text := []byte("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"vmfsSparse\"\nRW 5000 VMFSSPARSE \"s-delta.vmdk\"\n")
	d, err := Open(unclosed{bytes.NewReader(text)}, int64(len(text)), func(name string) (*os.File, error) { return os.Open(filepath.Join(folder, name)) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	want := make([]byte, capacity*SectorSize)
	copy(want[7*SectorSize:], bytes.Repeat([]byte("snap"), SectorSize/4))
	copy(want[4999*SectorSize:], bytes.Repeat([]byte("snap"), SectorSize/4))
	if !bytes.Equal(read(t, d), want) {
		t.Error("another disk")
	}
}

// A Korean Windows writes names in its own character set, and says which.
func TestNamesAreReadInTheirCharacterSet(t *testing.T) {
	text := append([]byte("# Disk DescriptorFile\nversion=1\nencoding=\"x-windows-949\"\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \""), 0xb5, 0xf0, 0xbd, 0xba, 0xc5, 0xa9)
	text = append(text, "-flat.vmdk\" 0\n"...)
	d, err := parseDescriptor(text)
	if err != nil || d.Extents[0].File != "디스크-flat.vmdk" {
		t.Errorf("%q, %v", d.Extents[0].File, err)
	}
}
