package clustermap_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// cephCSI is an entry with everything that ceph-csi's documentation shows.
const cephCSI = `[{
  "clusterID": "prod", "monitors": ["192.0.2.1:6789", "[v2:192.0.2.2:3300,v1:192.0.2.2:6789]"],
  "rbd": {"netNamespaceFilePath": "/x", "radosNamespace": "tenant", "mirrorDaemonCount": 1},
  "cephFS": {"subvolumeGroup": "group", "netNamespaceFilePath": "/x", "kernelMountOptions": "", "fuseMountOptions": ""},
  "nfs": {"netNamespaceFilePath": ""}, "readAffinity": {"enabled": false, "crushLocationLabels": []}
}, {"clusterID": "plain", "monitors": ["192.0.2.3"]}]`

func TestMapOfCephCSIIsUnderstood(t *testing.T) {
	got, err := clustermap.Parse([]byte(cephCSI))
	if err != nil {
		t.Fatal(err)
	}
	plain := clustermap.CephCSI{Instance: "default", Namespace: "csi"}
	want := []clustermap.Cluster{
		{ID: "prod", Monitors: []string{"192.0.2.1:6789", "[v2:192.0.2.2:3300,v1:192.0.2.2:6789]"}, RadosNamespace: "tenant", SubvolumeGroup: "group", CephCSI: plain},
		{ID: "plain", Monitors: []string{"192.0.2.3"}, SubvolumeGroup: "csi", CephCSI: plain},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestBadMapsAreRefusedWithWords(t *testing.T) {
	for text, words := range map[string]string{
		`{}`:                                     "JSON list",
		`[{"clusterID":"a b","monitors":["x"]}]`: `"a b"`,
		`[{"clusterID":"a","monitors":[]}]`:      "no monitors",
		`[{"clusterID":"a","monitors":["x"]},{"clusterID":"a","monitors":["x"]}]`:                                "twice",
		`[{"clusterID":"a","monitors":["x"],"cephCSI":{"clusterIDs":["b"]}},{"clusterID":"b","monitors":["x"]}]`: "already",
		`[{"clusterID":"a","monitors":["x"],"cephCSI":{"clusterIDs":["b/c"]}}]`:                                  `"b/c"`,
		`[{"clusterID":"` + strings.Repeat("a", 41) + `","monitors":["192.0.2.1:1"]}]`:                           "40",
	} {
		if _, err := clustermap.Parse([]byte(text)); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestAClusterIsFoundByTheNamesThatCephCSIHasForIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	text := `[{"clusterID":"a","monitors":["x"],"cephFS":{"radosNamespace":"ns"},"cephCSI":{"clusterIDs":["rook-ceph","x.y"],"instanceID":"two"}}]`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := clustermap.Open(path, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Cluster("x.y")
	if want := (clustermap.CephCSI{Aliases: []string{"rook-ceph", "x.y"}, Instance: "two", Namespace: "ns"}); err != nil || c.ID != "a" || !cmp.Equal(c.CephCSI, want) {
		t.Fatalf("got %+v, %v", c, err)
	}
}

func TestMapFollowsItsFileAndSurvivesABadEdit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	put := func(text string, at int) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(int64(at), 0)); err != nil {
			t.Fatal(err)
		}
	}
	put(`[{"clusterID":"a","monitors":["x"]}]`, 1)
	m, err := clustermap.Open(path, "")
	if err != nil {
		t.Fatal(err)
	}
	put(`[{"clusterID":"b","monitors":["y"]}]`, 2)
	if _, err := m.Cluster("b"); err != nil {
		t.Fatalf("after an edit: %v", err)
	}
	if _, err := m.Cluster("a"); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "which has b") {
		t.Fatalf("a cluster that is gone: %v", err)
	}
	put(`[{`, 3)
	if _, err := m.Cluster("b"); err != nil {
		t.Fatalf("after a bad edit: %v", err)
	}
	if m.Err() == nil {
		t.Fatal("the bad edit is not told")
	}
	put(`[{"clusterID":"b","monitors":["y"]}]`, 2)
	if _, err := m.Cluster("b"); err != nil || m.Err() != nil {
		t.Fatalf("after the edit was taken back: %v, %v", err, m.Err())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(cephCSI))
	f.Add([]byte(`[null]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		clusters, err := clustermap.Parse(data)
		if err != nil && !errors.Is(err, fault.Invalid) {
			t.Fatalf("class of %v", err)
		}
		for _, c := range clusters {
			if c.SubvolumeGroup == "" || len(c.Monitors) == 0 {
				t.Fatalf("%+v", c)
			}
		}
	})
}
