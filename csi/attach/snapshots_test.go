package attach

import "testing"

func TestAPathIntoASnapshotIsMountedAboveIt(t *testing.T) {
	for _, c := range []struct{ path, mounted, inside string }{
		{"/volumes/csi/v/1", "/volumes/csi/v/1", "/"},
		{"/", "/", "/"},
		{"/volumes/csi/v/.snap/s/1", "/volumes/csi/v", "/.snap/s/1"},
		{"/.snap/s", "/", "/.snap/s"},
		{"/a/.snapshots/b", "/a/.snapshots/b", "/"},
	} {
		if mounted, inside := source(c.path); mounted != c.mounted || inside != c.inside {
			t.Errorf("%s: got %s and %s, want %s and %s", c.path, mounted, inside, c.mounted, c.inside)
		}
	}
}
