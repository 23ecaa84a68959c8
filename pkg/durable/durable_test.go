package durable_test

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/durable"
)

func TestAFileIsReplacedAsAWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	for _, text := range []string{"old", "the new one"} {
		if err := durable.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != text {
			t.Errorf("%q, %v", data, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, err := durable.Leftovers(path); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestAFailureLeavesWhatWasThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil { // nothing can be renamed to it
		t.Fatal(err)
	}
	first, again := durable.WriteFile(path, []byte("new"), 0o600), durable.WriteFile(path, []byte("new"), 0o600)
	if first == nil || again == nil || first.Error() != again.Error() {
		t.Errorf("a directory was replaced, or the error changes: %v, %v", first, again)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestAFullDiskLeavesWhatWasThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if err := durable.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	const allowed = 4096 // bytes a file may have: a write beyond fails as on a full disk
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: allowed, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	err := durable.WriteFile(path, make([]byte, 2*allowed), 0o600)
	if restored := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); restored != nil {
		t.Fatal(restored)
	}
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("%v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
	if left, err := durable.Leftovers(path); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestWhatWasCutOffIsFound(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state [1].json")
	for _, name := range []string{".state [1].json.123", "state [1].json", ".other.json.123", ".state [1].json.old"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := durable.IsLeftover(path, name); got != (name == ".state [1].json.123") {
			t.Errorf("%s: %v", name, got)
		}
	}
	if left, err := durable.Leftovers(path); err != nil || len(left) != 1 || left[0] != filepath.Join(dir, ".state [1].json.123") {
		t.Errorf("%v, %v", left, err)
	}
}
