//go:build umlguest

// Package suite is what runs inside the guest; package uml builds and starts it.
package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/node/nodetest"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml/handover"
)

func env(t *testing.T, dir string) nodetest.Env {
	t.Helper()
	data, err := os.ReadFile(os.Getenv(handover.Variable))
	if err != nil {
		t.Fatal(err)
	}
	var h handover.Cluster
	if err := json.Unmarshal(data, &h); err != nil {
		t.Fatal(err)
	}
	dialer := native.NewDialer()
	t.Cleanup(dialer.Close)
	return nodetest.Env{
		Dialer:      dialer,
		Entry:       clustermap.Cluster{ID: storage.ClusterID(h.FSID), Monitors: h.Monitors, SubvolumeGroup: clustermap.DefaultSubvolumeGroup},
		Credentials: ceph.Credentials{User: h.Provisioner.User, Key: storage.NewSecret(h.Provisioner.Key)},
		Node:        ceph.Credentials{User: h.Node.User, Key: storage.NewSecret(h.Node.Key)},
		Dir:         dir, Pool: "rbd", Filesystem: "cephfs", RBDMounter: attach.Auto, FSMounter: attach.Auto, GrowsExt4: true,
		Session: session,
	}
}

// session asks the MDS for a client's address: this kernel is built without debugfs, where others tell it.
func session(t *testing.T, number string) ceph.ClientAddress {
	t.Helper()
	conf := filepath.Join(os.Getenv(handover.Keep), "c", "ceph.conf")
	out, err := exec.CommandContext(t.Context(), "ceph", "--conf", conf, "--format", "json", "tell", "mds.*", "session", "ls").Output()
	if err != nil {
		t.Fatalf("list sessions: %v", err)
	}
	instance := regexp.MustCompile(`"client\.` + strings.TrimPrefix(number, "client") + ` (v1:[^"]+|[0-9][^"]+)"`).FindSubmatch(out)
	if instance == nil {
		t.Fatalf("%s has no session: %s", number, out)
	}
	client, err := ceph.ParseClient(string(instance[1]))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestTheKernelsClientsAreChosen(t *testing.T) {
	cfg := attach.Config{Runner: command.System{}}
	if got := attach.NewDevices(cfg).Describe(t.Context()); got != attach.Krbd {
		t.Errorf("images are attached by %s", got)
	}
	if got := attach.NewDirectories(cfg).Describe(t.Context()); got != attach.KernelFS {
		t.Errorf("CephFS is mounted by %s", got)
	}
}

func TestNodeSuite(t *testing.T) { nodetest.Run(t, env(t, "/run/hf")) }

// TestPrepareCrash ends with the guest: the host kills it when the mark is printed.
func TestPrepareCrash(t *testing.T) {
	nodetest.CrashPrepare(t, env(t, filepath.Join(os.Getenv(handover.Keep), "crash")))
	fmt.Println(handover.Ready)
	select {}
}

func TestRecoverFromCrash(t *testing.T) {
	nodetest.CrashRecover(t, env(t, filepath.Join(os.Getenv(handover.Keep), "crash")))
}
