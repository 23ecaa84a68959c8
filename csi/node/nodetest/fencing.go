package nodetest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/attach/keeper"
	"github.com/holdfast-storage/holdfast/csi/cephfs"
	"github.com/holdfast-storage/holdfast/csi/controller"
	"github.com/holdfast-storage/holdfast/csi/fence"
	"github.com/holdfast-storage/holdfast/csi/node"
	"github.com/holdfast-storage/holdfast/csi/rbd"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The node suite with a controller, which takes volumes from nodes that still have them.

// authority is a controller on the suite's cluster.
type authority struct {
	*controller.Server
	b *bench
}

func (b *bench) authority(driver storage.Driver) *authority {
	b.t.Helper()
	var backend controller.Backend = &rbd.Backend{}
	if driver == storage.CephFS {
		backend = &cephfs.Backend{}
	}
	s := controller.New(controller.Config{
		Backend: backend, Dialer: b.Dialer, Clusters: oneCluster{b.Entry, b.Credentials}, Owner: "suite", Log: b.log, Now: time.Now,
	})
	b.t.Cleanup(s.Close)
	return &authority{s, b}
}

func (a *authority) secrets() map[string]string {
	return map[string]string{"userID": a.b.Credentials.User, "userKey": a.b.Credentials.Key.Reveal()}
}

// make makes a volume that goes with the test.
func (a *authority) make(size storage.Bytes, c *csi.VolumeCapability) *volume {
	a.b.t.Helper()
	parameters := map[string]string{"fsName": a.b.Filesystem, "mounter": a.b.FSMounter}
	if a.Backend.Driver() == storage.RBD {
		parameters = map[string]string{"pool": a.b.Pool, "mounter": a.b.RBDMounter}
	}
	made, err := a.CreateVolume(a.b.t.Context(), &csi.CreateVolumeRequest{
		Name: "펜스-" + random(8), CapacityRange: &csi.CapacityRange{RequiredBytes: int64(size)}, VolumeCapabilities: []*csi.VolumeCapability{c},
		Parameters: parameters, Secrets: a.secrets(),
	})
	a.b.must(err)
	v := made.GetVolume()
	a.b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := a.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), Secrets: a.secrets()})
		if err == nil {
			_, err = a.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.GetVolumeId(), Secrets: a.secrets()})
		}
		if err != nil {
			a.b.t.Errorf("delete volume: %v", err)
		}
	})
	return &volume{
		b: a.b, id: v.GetVolumeId(), context: v.GetVolumeContext(), image: v.GetVolumeContext()["image"],
		staging: a.b.path("staging-" + random(2)), size: storage.Bytes(v.GetCapacityBytes()),
	}
}

func (a *authority) publish(v *volume, to string, c *csi.VolumeCapability, readOnly bool) map[string]string {
	a.b.t.Helper()
	r, err := a.ControllerPublishVolume(a.b.t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: v.id, NodeId: "hf1:" + to, VolumeCapability: c, Readonly: readOnly, Secrets: a.secrets(),
	})
	a.b.must(err)
	return r.GetPublishContext()
}

func (a *authority) unpublish(v *volume, from string) {
	a.b.t.Helper()
	_, err := a.ControllerUnpublishVolume(a.b.t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: v.id, NodeId: "hf1:" + from, Secrets: a.secrets()})
	a.b.must(err)
}

// condition returns what the controller says of the volume.
func (a *authority) condition(v *volume) string {
	a.b.t.Helper()
	r, err := a.ControllerGetVolume(a.b.t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: v.id})
	a.b.must(err)
	return r.GetStatus().GetVolumeCondition().GetMessage()
}

// noted returns the clients that the node's note names.
func (b *bench) noted(v *volume, of string) []fence.Client {
	b.t.Helper()
	note, err := fence.Notes(b.cluster).Read(b.t.Context(), fence.Name(storage.NodeID("hf1:"+of), v.id))
	b.must(err)
	if note == nil {
		return nil
	}
	return note.Value.Clients
}

// lifted sweeps, and checks that the volume is fenced from nobody any more.
func (a *authority) lifted(v *volume, was []fence.Client) {
	a.b.t.Helper()
	a.b.must(a.SweepFences(a.b.t.Context()))
	if c := a.condition(v); strings.Contains(c, "fenced") {
		a.b.t.Errorf("the node has let go, and still: %s", c)
	}
	data, err := a.b.cluster.Mon(a.b.t.Context(), map[string]any{"prefix": "osd blocklist ls"}, nil)
	a.b.must(err)
	for _, c := range was {
		if strings.Contains(string(data), string(c.Address)) {
			a.b.t.Errorf("client %s is still on the blocklist", c.Address)
		}
	}
}

// content returns the beginning of an image of up to a MiB, as the OSDs have it.
func (b *bench) content(v *volume, size int) []byte {
	b.t.Helper()
	info, err := b.images().Info(b.t.Context(), v.image)
	b.must(err)
	data, err := b.cluster.Objects(b.Pool, b.Entry.RadosNamespace).Read(b.t.Context(), "rbd_data."+info.ID+".0000000000000000")
	b.must(err)
	return data[:min(size, len(data))]
}

// fencedDevice: what a node writes after the volume was taken from it does not reach the image, and
// its neighbour volume is written on.
func fencedDevice(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx, a, c := t.Context(), b.authority(storage.RBD), blockCap(rwo)
	v, neighbour := a.make(storage.MiB, c), a.make(storage.MiB, c)
	devices := map[*volume]string{v: b.path("device"), neighbour: b.path("neighbour")}
	before, after := bytes.Repeat([]byte("전"), 4096), bytes.Repeat([]byte("후"), 4096)
	for _, each := range []*volume{v, neighbour} {
		a.publish(each, "n1", c, false)
		b.must(each.stage(ctx, b.rbd, c))
		b.must(each.publish(ctx, b.rbd, c, devices[each], false))
		b.must(writeDevice(devices[each], before))
	}
	clients := b.noted(v, "n1")
	if len(clients) != 1 {
		t.Fatalf("the note names %v", clients)
	}
	late := make(chan error, 1)
	stopped := b.helperOf(v)
	if stopped != 0 { // the machine stands still, with a write on its way
		b.must(syscall.Kill(stopped, syscall.SIGSTOP))
		go func() { late <- writeDevice(devices[v], after) }()
	}
	start := time.Now()
	a.unpublish(v, "n1")
	t.Logf("fenced in %v: %s", time.Since(start), a.condition(v))
	a.publish(v, "n2", c, false) // now another may have it
	if c := a.condition(v); !strings.Contains(c, "fenced node hf1:n1") || !strings.Contains(c, string(clients[0].Address)) {
		t.Errorf("the condition does not tell: %s", c)
	}
	if stopped != 0 {
		b.must(syscall.Kill(stopped, syscall.SIGCONT))
	} else {
		late <- writeDevice(devices[v], after)
	}
	if err := <-late; err == nil {
		t.Error("a fenced node wrote")
	} else {
		t.Logf("the write of a fenced node: %v", err)
	}
	if got := b.content(v, len(before)); !bytes.Equal(got, before) {
		t.Errorf("what a fenced node wrote reached the image: %.20q", got)
	}
	b.must(writeDevice(devices[neighbour], after))
	if got := b.content(neighbour, len(after)); !bytes.Equal(got, after) {
		t.Errorf("the neighbour holds %.20q", got)
	}
	r, err := v.stats(ctx, b.rbd, devices[v])
	b.must(err)
	if !r.GetVolumeCondition().GetAbnormal() || !strings.Contains(r.GetVolumeCondition().GetMessage(), "fenced") {
		t.Errorf("the node's condition: %v", r.GetVolumeCondition())
	}
	a.unpublish(v, "n2")
	for _, each := range []*volume{v, neighbour} {
		b.must(each.unpublish(ctx, b.rbd, devices[each]))
		b.must(each.unstage(ctx, b.rbd))
	}
	if left := b.noted(v, "n1"); left != nil {
		t.Errorf("unstaged, and the note still names %v", left)
	}
	a.lifted(v, clients)
	a.unpublish(neighbour, "n1")
	if c := a.condition(neighbour); strings.Contains(c, "fenced") {
		t.Errorf("unstaged before it was unpublished, and: %s", c)
	}
}

// helperOf returns the process that has an image open, 0 when it is the kernel.
func (b *bench) helperOf(v *volume) int {
	status, err := keeper.NewClient(b.socket).Describe(b.t.Context(), attach.ID(v.id))
	if err != nil {
		return 0
	}
	return status.PID
}

// fencedMount: a node that is back takes down what was fenced, or stages it anew over it.
func fencedMount(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx, a, c := t.Context(), b.authority(storage.RBD), mountCap("xfs", rwo)
	v := a.make(320*storage.MiB, c)
	target := b.path("pod")
	for range 2 {
		a.publish(v, "n1", c, false)
		b.must(v.stage(ctx, b.rbd, c))
		b.must(v.publish(ctx, b.rbd, c, target, false))
		clients := b.noted(v, "n1")
		synced(b, filepath.Join(target, "a"))
		a.unpublish(v, "n1")
		f, err := os.Create(filepath.Join(target, "b"))
		if err == nil {
			_, err = f.WriteString("fenced")
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if err == nil {
			t.Error("a fenced node wrote")
		}
		b.must(v.unpublish(ctx, b.rbd, target))
		b.must(v.unstage(ctx, b.rbd))
		a.lifted(v, clients)
	}
	// Staged again without having been unstaged: kubelet lost its state.
	a.publish(v, "n1", c, false)
	b.must(v.stage(ctx, b.rbd, c))
	clients := b.noted(v, "n1")
	a.unpublish(v, "n1")
	a.publish(v, "n1", c, false)
	b.must(v.stage(ctx, b.rbd, c))
	a.lifted(v, clients)
	b.must(v.publish(ctx, b.rbd, c, target, false))
	if data, err := os.ReadFile(filepath.Join(target, "a")); err != nil || string(data) != "synced" {
		t.Errorf("after the fences: %q, %v", data, err)
	}
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.unstage(ctx, b.rbd))
	b.unwatched(v)
}

// fencedDirectory: of two nodes that share a directory the fenced one alone cannot write.
func fencedDirectory(t *testing.T, env Env) {
	one := newBench(t, env)
	two := newBench(t, env)
	two.cephfs = two.newNode("n2", storage.CephFS)
	ctx, a, c := t.Context(), one.authority(storage.CephFS), mountCap("", rwx)
	v := a.make(64*storage.MiB, c)
	other := &volume{b: two, id: v.id, context: v.context, staging: two.path("staging"), size: v.size}
	first, second := one.path("pod"), two.path("pod")
	bring := func(v *volume, s *node.Server, to, target string) {
		t.Helper()
		a.publish(v, to, c, false)
		one.must(v.stage(ctx, s, c))
		one.must(v.publish(ctx, s, c, target, false))
	}
	bring(v, one.cephfs, "n1", first)
	bring(other, two.cephfs, "n2", second)
	named := one.nameKernelClient(v, "n1") && two.nameKernelClient(other, "n2")
	clients := one.noted(v, "n1")
	if len(clients) != 1 || len(one.noted(v, "n2")) != 1 || clients[0] == one.noted(v, "n2")[0] {
		t.Fatalf("the notes name %v and %v", clients, one.noted(v, "n2"))
	}
	synced(one, filepath.Join(first, "a"))
	a.unpublish(v, "n1")
	start, late := time.Now(), make(chan error, 1)
	go func() { // the MDS hears of the fence a moment later
		var err error
		for err == nil && time.Since(start) < 30*time.Second {
			var f *os.File
			if f, err = os.Create(filepath.Join(first, "b")); err == nil {
				_, err = f.WriteString("fenced")
				err = errors.Join(err, f.Sync(), f.Close())
			}
		}
		late <- err
	}()
	synced(two, filepath.Join(second, "c"))
	if data, err := os.ReadFile(filepath.Join(second, "a")); err != nil || string(data) != "synced" {
		t.Errorf("the other node reads %q, %v", data, err)
	}
	r, err := v.stats(ctx, one.cephfs, first)
	one.must(err)
	if !strings.Contains(r.GetVolumeCondition().GetMessage(), "fenced") {
		t.Errorf("the node's condition: %v", r.GetVolumeCondition())
	}
	select {
	case err := <-late:
		if err == nil {
			t.Error("a fenced node wrote")
		}
		t.Logf("the write of a fenced node, after %v: %v", time.Since(start), err)
	case <-time.After(time.Minute):
		t.Error("the write of a fenced node does not end")
	}
	one.must(v.unpublish(ctx, one.cephfs, first))
	one.must(v.unstage(ctx, one.cephfs))
	if named {
		one.forgetNote(v, "n1")
	}
	a.lifted(v, clients)
	bring(v, one.cephfs, "n1", first) // it is back
	synced(one, filepath.Join(first, "d"))
	for _, n := range []struct {
		v      *volume
		s      *node.Server
		target string
	}{{v, one.cephfs, first}, {other, two.cephfs, second}} {
		one.must(n.v.unpublish(ctx, n.s, n.target))
		one.must(n.v.unstage(ctx, n.s))
	}
	if named {
		one.forgetNote(v, "n2")
	}
	a.unpublish(v, "")
	if c := a.condition(v); strings.Contains(c, "fenced") {
		t.Errorf("unstaged before it was unpublished, and: %s", c)
	}
}

// nameKernelClient writes into a node's note what a kernel with debugfs would have told; it reports
// whether that was needed.
func (b *bench) nameKernelClient(v *volume, of string) bool {
	b.t.Helper()
	id, notes, name := make([]byte, 64), fence.Notes(b.cluster), fence.Name(storage.NodeID("hf1:"+of), v.id)
	note, err := notes.Read(b.t.Context(), name)
	b.must(err)
	if note == nil || note.Value.Unknown == "" {
		return false
	}
	n, err := unix.Getxattr(v.staging, "ceph.client_id", id)
	b.must(err)
	changed := note.Value
	changed.Unknown, changed.Clients = "", []fence.Client{{Address: b.Session(b.t, string(id[:n])), Mounter: attach.KernelFS}}
	_, err = notes.Write(b.t.Context(), name, note, changed)
	b.must(err)
	return true
}

// forgetNote takes a note away for a node that cannot tell what lives on.
func (b *bench) forgetNote(v *volume, of string) {
	b.t.Helper()
	notes := fence.Notes(b.cluster)
	note, err := notes.Read(b.t.Context(), fence.Name(storage.NodeID("hf1:"+of), v.id))
	b.must(err)
	if note != nil {
		b.must(notes.Remove(b.t.Context(), note))
	}
}

// givenReadOnly: the controller's word reaches the device.
func givenReadOnly(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx, a, c := t.Context(), b.authority(storage.RBD), mountCap("ext4", rwo)
	v, target := a.make(64*storage.MiB, c), b.path("pod")
	for _, readOnly := range []bool{false, true} {
		given := a.publish(v, "n1", c, readOnly)
		b.must(os.MkdirAll(v.staging, 0o750))
		_, err := b.rbd.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: v.id, StagingTargetPath: v.staging, VolumeCapability: c, VolumeContext: v.context, Secrets: v.secrets(), PublishContext: given,
		})
		b.must(err)
		b.must(v.publish(ctx, b.rbd, c, target, false))
		err = os.WriteFile(filepath.Join(target, "a"), nil, 0o600)
		if readOnly != errors.Is(err, syscall.EROFS) || !readOnly && err != nil {
			t.Errorf("published read-only %t, and a write gives %v", readOnly, err)
		}
		b.must(v.unpublish(ctx, b.rbd, target))
		b.must(v.unstage(ctx, b.rbd))
		a.unpublish(v, "n1")
	}
	b.unwatched(v)
}
