package clustermap

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestCredentialsAreFoundInADirectoryAndInTheKeysOfASecret(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.json")
	files := map[string]string{
		config:                                  `[{"clusterID":"a","monitors":["m"]},{"clusterID":"b","monitors":["m"]}]`,
		filepath.Join(dir, "own/a/userID"):      "alice\n",
		filepath.Join(dir, "own/a/userKey"):     "key-a",
		filepath.Join(dir, "own", "b.userID"):   "bob",
		filepath.Join(dir, "own", "b.userKey"):  "key-b\n",
		filepath.Join(dir, "own", "c.userName"): "other",
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := Open(config, filepath.Join(dir, "own"))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string][2]string{"a": {"alice", "key-a"}, "b": {"bob", "key-b"}} {
		got, err := m.Credentials(storage.ClusterID(id))
		if err != nil {
			t.Fatal(err)
		}
		if got.User != want[0] || got.Key.Reveal() != want[1] {
			t.Errorf("cluster %s has user %q", id, got.User)
		}
	}
	if _, err := m.Credentials(storage.ClusterID("c")); !errors.Is(err, fault.Denied) {
		t.Errorf("a cluster without credentials gives %v", err)
	}
}
