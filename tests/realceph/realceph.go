// Package realceph gives tests the real Ceph cluster that the test run started:
// HOLDFAST_TEST_CLUSTER names its data directory (`make test` sets it). Without one
// a test is skipped, and in CI it fails: a skipped tier is a hole.
package realceph

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

// Cluster is where the cluster is and who may talk to it.
type Cluster struct {
	Dir         string
	Config      string // path of the cluster map
	Entry       clustermap.Cluster
	Credentials ceph.Credentials // the CSI provisioner's
}

// Need returns the cluster or skips the test.
func Need(t testing.TB) Cluster {
	t.Helper()
	dir := os.Getenv("HOLDFAST_TEST_CLUSTER")
	if dir == "" {
		Missing(t, "needs a real Ceph cluster: run `make test`, or `holdfast up` and set HOLDFAST_TEST_CLUSTER to its data directory")
	}
	return open(t, dir)
}

func open(t testing.TB, dir string) Cluster {
	t.Helper()
	config := filepath.Join(dir, "csi", "config.json")
	clusters, err := clustermap.Open(config, filepath.Join(dir, "csi", "credentials"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := clusters.Clusters()
	if err != nil || len(list) != 1 {
		t.Fatalf("cluster map %s: %v, %v", config, list, err)
	}
	credentials, err := clusters.Credentials(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	return Cluster{Dir: dir, Config: config, Entry: list[0], Credentials: credentials}
}

// Missing skips the test for want of something; in CI it fails it.
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Binary returns the path of a program of this tree, built by `make build`.
func Binary(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("HOLDFAST_BIN")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "..", "..", "bin")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		Missing(t, "needs bin/"+name+": run `make build`")
	}
	return path
}
