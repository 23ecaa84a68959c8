package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/node/nodetest"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// nodeUser returns the node's own Ceph user, which has less rights than the provisioner
// and other ones; none where the cluster was not made by `holdfast up`.
func nodeUser(t *testing.T, cluster realceph.Cluster) ceph.Credentials {
	t.Helper()
	const user = "hf-csi-node"
	keyring, err := os.ReadFile(filepath.Join(cluster.Dir, "keys", "client."+user+".keyring"))
	if errors.Is(err, os.ErrNotExist) {
		return ceph.Credentials{}
	}
	key := regexp.MustCompile(`key\s*=\s*(\S+)`).FindSubmatch(keyring)
	if err != nil || key == nil {
		t.Fatalf("keyring of %s: %v", user, err)
	}
	return ceph.Credentials{User: user, Key: storage.NewSecret(string(key[1]))}
}

// The suite by user-space attachers alone, which every host with FUSE has. tests/uml
// runs it through the kernel's clients.
func TestNodeSuiteOnThisHost(t *testing.T) {
	cluster := realceph.Need(t)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("mounting needs root")
		}
		t.Skip("mounting needs root")
	}
	dialer := native.NewDialer()
	t.Cleanup(dialer.Close)
	dir, err := os.MkdirTemp("/var/tmp", "hfn") // short: unix sockets live below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	env := nodetest.Env{
		Dialer: dialer, Entry: cluster.Entry, Credentials: cluster.Credentials, Dir: dir, Pool: "rbd", Filesystem: "cephfs",
		Node: nodeUser(t, cluster), RBDMounter: attach.FuseLoop, FSMounter: attach.UserFS, GrowsExt4: nodetest.MayGrowExt4(),
	}
	nodetest.Run(t, env)
	nodetest.RunUserSpace(t, env)
}
