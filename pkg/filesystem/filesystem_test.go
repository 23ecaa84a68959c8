package filesystem_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/filesystem"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func file(t testing.TB, size storage.Bytes) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "device")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(int64(size)), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSizesAreThoseThatWereMade(t *testing.T) {
	for _, kind := range []string{filesystem.Ext4, filesystem.XFS} {
		if _, err := exec.LookPath("mkfs." + kind); err != nil {
			t.Logf("no mkfs.%s here", kind)
			continue
		}
		const size = 400 * storage.MiB
		path := file(t, size)
		if info, err := filesystem.Probe(path); err != nil || info.Type != "" {
			t.Errorf("blank: %+v, %v", info, err)
		}
		if err := (filesystem.Tool{Run: command.System{}}).Make(t.Context(), kind, path); err != nil {
			t.Fatal(err)
		}
		if info, err := filesystem.Probe(path); err != nil || info.Type != kind || info.Size != size {
			t.Errorf("%s: %+v, %v", kind, info, err)
		}
	}
	if err := (filesystem.Tool{}).Make(t.Context(), "ntfs", "x"); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if there, err := filesystem.MountedFrom("/dev/null", "/nowhere/at/all"); there || err != nil {
		t.Error(there, err)
	}
	if there, err := filesystem.MountedFrom("/dev/null", t.TempDir()); there || err != nil {
		t.Error(there, err)
	}
	if there, err := filesystem.MountedFrom("/dev/null", "/proc"); there || !errors.Is(err, fault.Precondition) {
		t.Errorf("something else is mounted there: %v, %v", there, err)
	}
}

func FuzzProbe(f *testing.F) {
	f.Add([]byte("XFSB\x00\x00\x10\x00\x00\x00\x00\x00\x00\x01\x00\x00"), 0)
	f.Add([]byte("\x53\xef"), 1024+0x38)
	path := file(f, 8192)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		buf := make([]byte, 8192)
		if at >= 0 && at < len(buf) {
			copy(buf[at:], data)
		}
		if err := os.WriteFile(path, buf, 0o600); err != nil {
			t.Fatal(err)
		}
		if info, err := filesystem.Probe(path); err != nil || info.Size < 0 {
			t.Fatal(info, err)
		}
	})
}
