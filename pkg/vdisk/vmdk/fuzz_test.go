package vmdk

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vdisktest"
)

// tiny is a sparse disk of 40 KiB with grains of 4 KiB, two of which are there.
func tiny() []byte {
	text := describe("monolithicSparse", "SPARSE", "t.vmdk", 40<<10, 7)
	h := freshHeader(1, flagZeroed, 80)
	h.Grain, h.Entries, h.Directory, h.Overhead, h.DescriptorSize = 8, 16, 4, 8, 2
	image := h.sector()
	binary.LittleEndian.PutUint64(image[atGrain:], 8)
	binary.LittleEndian.PutUint32(image[atEntries:], 16)
	image = append(image, text...)
	image = append(image, make([]byte, 4*SectorSize-len(image))...)
	for _, entry := range []uint32{5} {
		image = binary.LittleEndian.AppendUint32(image, entry)
	}
	image = append(image, make([]byte, 5*SectorSize-len(image))...)
	for _, entry := range []uint32{8, 0, 1, 16} {
		image = binary.LittleEndian.AppendUint32(image, entry)
	}
	image = append(image, make([]byte, 8*SectorSize-len(image))...)
	return append(image, bytes.Repeat([]byte("data"), 2048)...)
}

// stream is a small streamOptimized disk.
func stream(t testing.TB) []byte {
	file := vdisktest.New(nil)
	w, err := NewStream(file, 128<<10, "s.vmdk", 7)
	if err == nil {
		err = w.Put(0, w.Pack(bytes.Repeat([]byte("data"), 32<<8), nil))
	}
	if err == nil {
		_, err = w.Finish()
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func none(string) (*os.File, error) { return nil, fault.New(fault.NotFound, "there are no files here") }

// Whatever the file says, nothing crashes, and a disk that grows keeps what it held.
func FuzzDisk(f *testing.F) {
	f.Add(tiny())
	f.Add(stream(f))
	f.Add([]byte("# Disk DescriptorFile\nversion=1\nCID=123\nparentCID=ffffffff\ncreateType=\"custom\"\nRW 2048 ZERO\nRW 10 FLAT \"a b\" 3\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Open(unclosed{bytes.NewReader(data)}, int64(len(data)), none)
		if err != nil {
			return
		}
		damage := d.Check(3)
		vdisktest.Walk(d)
		if d.Size() > 1<<20 || len(damage) > 0 {
			return
		}
		file := vdisktest.New(data)
		if Grow(file, int64(len(data)), d.Size()+1<<20) != nil {
			return
		}
		grown, err := Open(unclosed{bytes.NewReader(file.Bytes())}, int64(len(file.Bytes())), none)
		if err != nil {
			t.Fatalf("grown, it cannot be opened: %v", err)
		}
		was, is := make([]byte, d.Size()), make([]byte, d.Size())
		if _, err := d.ReadAt(was, 0); err != nil {
			return
		}
		if _, err := grown.ReadAt(is, 0); err != nil || !bytes.Equal(was, is) {
			t.Fatalf("grown, it holds something else: %v", err)
		}
	})
}

func FuzzCOWD(f *testing.F) {
	image := make([]byte, 4*SectorSize+4*cowdEntries)
	copy(image, "COWD")
	for at, value := range map[int]uint32{4: 1, 8: 3, 12: 64, 16: 1, 20: 4, 24: 1, 4 * SectorSize: 5} {
		binary.LittleEndian.PutUint32(image[at:], value)
	}
	f.Add(image)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := openCOWD(unclosed{bytes.NewReader(data)}, int64(len(data)))
		if err == nil {
			vdisktest.Walk(s)
		}
	})
}
