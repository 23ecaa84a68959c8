package node_test

import (
	"os"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/node/nodetest"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

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
		RBDMounter: attach.FuseLoop, FSMounter: attach.UserFS, GrowsExt4: nodetest.MayGrowExt4(),
	}
	nodetest.Run(t, env)
	nodetest.RunUserSpace(t, env)
}
