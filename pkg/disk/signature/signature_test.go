package signature_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/disk/signature"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// sparse is a disk of size bytes with some written pieces.
type sparse struct {
	size   int64
	pieces map[int64][]byte
	broken func(at, n int64) bool
}

func (s sparse) ReadAt(buf []byte, at int64) (int, error) {
	if s.broken != nil && s.broken(at, int64(len(buf))) {
		return 0, errors.New("input/output error")
	}
	clear(buf)
	for start, piece := range s.pieces {
		from, to := max(start, at), min(start+int64(len(piece)), at+int64(len(buf)))
		if from < to {
			copy(buf[from-at:], piece[from-start:to-start])
		}
	}
	if at+int64(len(buf)) > s.size {
		return int(max(0, s.size-at)), io.EOF
	}
	return len(buf), nil
}

const size = 8 << 30

func TestABlankDiskCarriesNothing(t *testing.T) {
	for _, n := range []int64{0, 1, 511, 512, 4096, 100_000, 300_000, 1 << 20, 1<<20 + 100_000, size} {
		if found, err := signature.Probe(sparse{size: n}, n); err != nil || len(found) > 0 {
			t.Errorf("%d bytes: %v, %v", n, found, err)
		}
	}
}

func TestMagicsAreFoundWhereTheyLie(t *testing.T) {
	for _, c := range []struct {
		kind   string
		offset int64
		bytes  string
	}{
		{"xfs", 0, "XFSB"}, {"btrfs", 65600, "_BHRfS_M"}, {"btrfs", 64<<20 + 64, "_BHRfS_M"}, {"ext2", 1080, "\x53\xef"}, {"crypto_LUKS", 0x4000, "SKUL\xba\xbe"},
		{"ext2", 1<<20 + 1080, "\x53\xef"}, {"lvm2", 1<<20 + 512, "LABELONE"}, {"imsm", size - 1024, "Intel Raid ISM Cfg Sig. "}, {"ddf", size - 512, "\xde\x11\xde\x11"},
		{"md", size - 128<<10 + 64<<10, "\xfc\x4e\x2b\xa9\x00\x00\x00\x00"}, {"md", size - 8192, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"}, {"md", 4096, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"},
		{"drbd", size - 4096 + 60, "\x83\x74\x02\x6d"}, {"zfs_member", size - 256<<10 + 16<<10, "\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"},
		{"bluestore", 1 << 30, "bluestore block device\n"}, {"gpt", size - 512, "EFI PART"}, {"gpt", size - 4096, "EFI PART"}, {"gpt", 4096, "EFI PART"},
		{"data", 130_000, "x"}, {"data", size - 1, "\x01"}, {"data", 1<<20 + 5, "?"}, {"dos", 510, "\x55\xaa"}, {"vmfs_member", 1 << 20, "\x0d\xd0\x01\xc0"},
	} {
		found, err := signature.Probe(sparse{size: size, pieces: map[int64][]byte{c.offset: []byte(c.bytes)}}, size)
		if err != nil || len(found) == 0 || found[0].Kind != c.kind {
			t.Errorf("%s at %d: got %v, %v", c.kind, c.offset, found, err)
		}
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	for _, at := range []int64{0, 100_000, 1 << 20, 1 << 30, size - 1} {
		broken := func(from, n int64) bool { return from <= at && at < from+n }
		if _, err := signature.Probe(sparse{size: size, broken: broken}, size); err == nil {
			t.Errorf("byte %d cannot be read, and nobody says so", at)
		}
	}
}

// The label is the first 4 KiB of what ceph-osd 16.2 --mkfs made.
func TestABlueStoreLabelTellsTheClusterAndTheOSD(t *testing.T) {
	label, err := os.ReadFile("testdata/bluestore-16.2.label")
	if err != nil {
		t.Fatal(err)
	}
	found, err := signature.Probe(sparse{size: size, pieces: map[int64][]byte{0: label}}, size)
	want := storage.OSD{FSID: "99999999-8888-4777-8666-555555555555", ID: "7", UUID: "11111111-2222-4333-8444-555555555555", Size: 1 << 30, Ready: true}
	if err != nil || len(found) != 1 || *found[0].OSD != want || found[0].Detail != "" {
		t.Errorf("got %+v, %v", found, err)
	}
	label[0x158] ^= 1
	found, err = signature.Probe(sparse{size: size, pieces: map[int64][]byte{0: label}}, size)
	if err != nil || found[0].Detail != "its label's checksum is wrong" {
		t.Errorf("got %+v, %v", found, err)
	}
}

func FuzzProbe(f *testing.F) {
	if label, err := os.ReadFile("testdata/bluestore-16.2.label"); err == nil {
		f.Add(label, []byte{}, int64(1<<20))
	}
	f.Add([]byte("XFSB"), []byte("EFI PART"), int64(1<<20))
	f.Add(append([]byte("bluestore block device\n"), make([]byte, 500)...), []byte{}, int64(1<<30))
	f.Fuzz(func(t *testing.T, head, tail []byte, n int64) {
		if n < 0 || n < int64(len(head)) || n < int64(len(tail)) || n > 1<<42 {
			return
		}
		disk := sparse{size: n, pieces: map[int64][]byte{0: head, n - int64(len(tail)): tail}}
		found, err := signature.Probe(disk, n)
		touched := len(bytes.Trim(head, "\x00")) > 0 && len(head) <= signature.Head
		if err != nil || touched && len(found) == 0 {
			t.Fatalf("got %v, %v", found, err)
		}
	})
}
