package partition_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/partition"
)

const size = 64 << 20

// image is a disk that sgdisk(8) partitioned.
func image(t *testing.T, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("sgdisk"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs sgdisk: apt-get install gdisk")
		}
		t.Skip("needs sgdisk: apt-get install gdisk")
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "sgdisk", append(args, path)...).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v: %s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestEachCopyOfAGPTIsJudgedByItself(t *testing.T) {
	whole := image(t, "--new=1:2048:4095", "--new=2:4096:8191")
	for name, c := range map[string]struct {
		change          func(d []byte) []byte
		primary, backup partition.State
		used            int
	}{
		"as sgdisk made it":               {func(d []byte) []byte { return d }, partition.Intact, partition.Intact, 2},
		"its primary header is gone":      {func(d []byte) []byte { clear(d[512:1024]); return d }, partition.Absent, partition.Intact, 2},
		"its primary header is damaged":   {func(d []byte) []byte { d[600] ^= 1; return d }, partition.Damaged, partition.Intact, 2},
		"its primary entries are damaged": {func(d []byte) []byte { d[1030] ^= 1; return d }, partition.Damaged, partition.Intact, 2},
		"its backup is gone":              {func(d []byte) []byte { clear(d[size-512:]); return d }, partition.Intact, partition.Absent, 2},
		"the disk has grown":              {func(d []byte) []byte { return append(d, make([]byte, 1<<20)...) }, partition.Intact, partition.Absent, 2},
		"both are damaged":                {func(d []byte) []byte { d[600] ^= 1; d[size-500] ^= 1; return d }, partition.Damaged, partition.Damaged, 0},
	} {
		t.Run(name, func(t *testing.T) {
			data := c.change(bytes.Clone(whole))
			table, err := partition.Read(bytes.NewReader(data), int64(len(data)))
			if err != nil || table.Primary.State != c.primary || table.Backup.State != c.backup || max(table.Primary.Used, table.Backup.Used) != c.used || !table.MBR.Protective {
				t.Errorf("got %+v, %v", table, err)
			}
		})
	}
}

func TestAnMBRIsCounted(t *testing.T) {
	data := image(t, "--new=1:2048:4095", "--new=2:4096:8191", "--gpttombr=1:2")
	table, err := partition.Read(bytes.NewReader(data), size)
	if err != nil || table.MBR.Used != 2 || table.MBR.Protective {
		t.Errorf("got %+v, %v", table, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(append(make([]byte, 512), "EFI PART"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if table, err := partition.Read(bytes.NewReader(data), int64(len(data))); err != nil {
			t.Fatalf("got %+v, %v", table, err)
		}
	})
}
