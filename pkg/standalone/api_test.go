package standalone

import (
	"os"
	"testing"
)

func TestTheAPISocketIsPrivateFromTheFirst(t *testing.T) {
	s := supervisorOf(t.TempDir())
	if err := os.MkdirAll(s.paths.Run(), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := listenPrivate(t.Context(), s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	info, err := os.Stat(listener.Addr().String())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
