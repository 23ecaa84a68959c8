package vdi

import (
	"bytes"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/vdisk/vdisktest"
)

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// tiny is an image of four blocks of 512 bytes, of which the file has two.
func tiny() []byte {
	h := fresh(4*512, UUID{1}, UUID{2})
	h.BlockSize, h.Blocks, h.MapOffset, h.DataOffset, h.Allocated = 512, 4, 512, 1024, 2
	image := append(h.sector(), encode([]uint32{1, free, zeroed, 0})...)
	image = append(image, make([]byte, 1024-len(image))...)
	return append(image, bytes.Repeat([]byte("data"), 256)...)
}

// Whatever the file says, nothing crashes, and a disk that grows keeps what it held.
func FuzzImage(f *testing.F) {
	f.Add(tiny())
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := Open(memory{bytes.NewReader(data)}, int64(len(data)))
		if err != nil {
			return
		}
		_, _ = i.Check(3)
		vdisktest.Walk(i)
		if i.Header.Size > 1<<20 || i.Header.DataOffset > 16<<20 || i.Header.BlockSize > 16<<20 {
			return // the file that crashes is in memory
		}
		file := vdisktest.New(data)
		if Grow(file, int64(len(data)), i.Size()+100*512) != nil {
			return
		}
		grown, err := Open(memory{bytes.NewReader(file.Bytes())}, int64(len(file.Bytes())))
		if err != nil {
			t.Fatalf("grown, it cannot be opened: %v", err)
		}
		was, is := make([]byte, i.Size()), make([]byte, i.Size())
		if _, err := i.ReadAt(was, 0); err != nil {
			return
		}
		if _, err := grown.ReadAt(is, 0); err != nil || !bytes.Equal(was, is) {
			t.Fatalf("grown, it holds something else: %v", err)
		}
	})
}
