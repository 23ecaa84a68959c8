//go:build umlguest

package disks

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/osd"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml/handover"
)

// guestNode is a node of the host's cluster: this guest.
func guestNode(t *testing.T, loop string) *osd.Node {
	t.Helper()
	var h handover.Cluster
	data, err := os.ReadFile(os.Getenv(handover.Variable))
	if err == nil {
		err = json.Unmarshal(data, &h)
	}
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := os.ReadFile(filepath.Join(os.Getenv(handover.Keep), "c", "keys", "client.admin.keyring"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := daemon.ParseKeyring(keyring, daemon.Admin)
	if err != nil {
		t.Fatal(err)
	}
	paths := daemon.Paths{Dir: "/run/hf"}
	conf := fmt.Sprintf("[global]\nfsid = %s\nmon host = %s\npublic addr = 10.99.0.2\nkeyring = /run/hf/keys/$name.keyring\nrun dir = /run/hf\nlog file = /run/hf/log/$name.log\n"+
		"[osd]\nosd data = /run/hf/$name\nosd objectstore = bluestore\ncrush location = root=default host=guest\nosd memory target = 939524096\nbluestore cache autotune = false\nbluestore cache size = 33554432\n",
		h.FSID, strings.Join(h.Monitors, ","))
	for _, dir := range []string{paths.Keys(), paths.Log()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(paths.Conf(), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	dialer := native.NewDialer()
	t.Cleanup(dialer.Close)
	cluster, err := dialer.Dial(t.Context(), ceph.Endpoint{Monitors: h.Monitors}, ceph.Credentials{User: "admin", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	scanner := disk.NewScanner(disk.Config{MinSize: 1 << 30, FSID: h.FSID, Asked: []string{loop}})
	return &osd.Node{Cluster: cluster, Daemons: osd.Processes{Paths: paths}, Run: command.System{}, Disks: scanner, FSID: h.FSID, Paths: paths, Wait: 2 * time.Minute, Settle: 4 * time.Second}
}

// TestAnEncryptedOSD makes one, starts it again as after a reboot, grows it and removes it.
func TestAnEncryptedOSD(t *testing.T) {
	l := &lab{t: t, dir: "/tmp/osd"}
	l.mkdir(l.dir)
	file := l.dir + "/disk"
	l.back(file, spec{size: 2 << 30})
	loop := strings.TrimSpace(l.run("losetup", "--find", "--show", file))
	n, id := guestNode(t, loop), storage.DiskID("serial."+file)
	do := func(steps []osd.Step, err error) {
		t.Helper()
		var notes []string
		begin := time.Now()
		if err == nil {
			err = osd.Run(t.Context(), steps, func(what string) { notes = append(notes, what) })
		}
		if err != nil {
			log, _ := os.ReadFile("/run/hf/log/osd.3.out")
			t.Fatalf("%v\n%s", err, log)
		}
		t.Logf("%v: %s", time.Since(begin).Round(100*time.Millisecond), strings.Join(notes, "; "))
	}
	request := osd.Request{UUID: "00000000-0000-4000-8000-000000000001", Disk: id, Encrypt: true}
	do(n.Prepare(request))
	d, err := n.Disks.Find(t.Context(), id)
	if err != nil || !strings.Contains(d.Why(), "of Ceph cluster "+n.FSID+" (version 2, ceph_fsid="+n.FSID+"), which is this one") {
		t.Errorf("the disk is %s, %v", d.Why(), err)
	}
	if head := l.run("head", "-c", "64M", loop); strings.Contains(head, "bluestore block device") {
		t.Error("the disk shows what is on it")
	}
	if err := n.Daemons.Stop(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	l.run("cryptsetup", "close", "hf-osd-"+request.UUID)
	l.run("rm", "-r", "/run/hf/osd.3")
	started, err := n.ActivateAll(t.Context())
	if err != nil || len(started) != 1 || started[0] != 3 {
		t.Fatalf("started %v, %v", started, err)
	}
	if err := os.Truncate(file, 3<<30); err != nil {
		t.Fatal(err)
	}
	l.run("losetup", "--set-capacity", loop)
	growth, err := n.PlanGrowth(t.Context(), 3)
	do(n.Grow(growth), err)
	plan, token, err := n.PlanRemoval(t.Context(), 3, false)
	if err != nil {
		t.Fatal(err)
	}
	plan.Token = token
	do(n.Remove(plan), nil)
	if d, err := n.Disks.Find(t.Context(), id); err != nil || !d.Free() {
		t.Errorf("the disk is %s, %v", d.Why(), err)
	}
}
