package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/moby/sys/mountinfo"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/capability"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// fakeMachine is a node without root: devices are files, mounts a table.
type fakeMachine struct {
	mu       sync.Mutex
	dir      string
	table    map[string]*mountinfo.Info
	attached map[string]attach.Device      // by volume
	clients  map[string]ceph.ClientAddress // by volume
	nonce    int
	trouble  error                    // what Check says
	kept     int                      // calls of Keep
	mounter  string                   // of what is attached; "" krbd
	grow     func(want storage.Bytes) // sees calls of Grow; may be nil
	commands []string
	fail     map[string]error // by program
}

var (
	_ Devices        = (*fakeMachine)(nil)
	_ mounts         = (*fakeMachine)(nil)
	_ command.Runner = (*fakeMachine)(nil)
)

func (m *fakeMachine) Find(_ context.Context, img attach.Image) (attach.Device, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.attached[img.Volume]
	return d, ok && m.trouble == nil, nil
}

func (m *fakeMachine) Attach(_ context.Context, img attach.Image) (attach.Device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	path := filepath.Join(m.dir, img.Name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return attach.Device{}, err
	}
	defer f.Close()
	d := attach.Device{Mounter: cmp.Or(m.mounter, attach.Krbd), Volume: img.Volume, Path: path, Pool: img.Pool, Image: img.Name, ReadOnly: img.ReadOnly}
	if _, there := m.attached[img.Volume]; !there {
		m.nonce++
		m.clients[img.Volume] = ceph.ClientAddress(fmt.Sprintf("10.0.0.9:0/%d", m.nonce))
	}
	m.attached[img.Volume], m.trouble = d, nil
	return d, f.Truncate(64 << 20)
}

func (m *fakeMachine) Detach(_ context.Context, d attach.Device) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path, info := range m.table {
		if info.Source == d.Path {
			return fault.New(fault.Busy, "%s is mounted on %s", d.Path, path)
		}
	}
	delete(m.attached, d.Volume)
	delete(m.clients, d.Volume)
	return nil
}

func (m *fakeMachine) Grow(_ context.Context, _ attach.Device, want storage.Bytes) (storage.Bytes, error) {
	if m.grow != nil {
		m.grow(want)
	}
	return want, nil
}

func (m *fakeMachine) Forget(context.Context, attach.Device) error { return nil }

func (m *fakeMachine) Keep(context.Context, attach.Device) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept++
	return nil
}

func (m *fakeMachine) Check(_ context.Context, d attach.Device) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.attached[d.Volume]; !ok {
		return attach.Lost("not attached")
	}
	return m.trouble
}

func (m *fakeMachine) Guess(_ context.Context, volume, _ string) (attach.Device, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.attached[volume]
	return d, ok, nil
}

func (m *fakeMachine) Client(_ context.Context, d attach.Device) (ceph.ClientAddress, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clients[d.Volume], nil
}

func (m *fakeMachine) Living(_ context.Context, volume, _ string, client ceph.ClientAddress) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clients[volume] == client, nil
}

func (m *fakeMachine) At(path string) (*mountinfo.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.table[path], nil
}

func (m *fakeMachine) Mount(device, target, fs string, _ []string, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table[target] = &mountinfo.Info{Source: device, FSType: fs, Major: 7, Minor: len(m.table), Options: "rw,relatime"}
	return nil
}

func (m *fakeMachine) Bind(source, target string, readOnly bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	info := *m.table[source]
	if readOnly {
		info.Options = "ro,relatime"
	}
	m.table[target] = &info
	return nil
}

func (m *fakeMachine) Unmount(target string) error { return m.Drop(target) }

func (m *fakeMachine) Drop(target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.table, target)
	return nil
}

// Run plays blkid and mkfs on the file: the first bytes name what the device carries.
func (m *fakeMachine) Run(_ context.Context, c command.Cmd) (command.Result, error) {
	m.mu.Lock()
	m.commands = append(m.commands, c.Name)
	err := m.fail[c.Name]
	m.mu.Unlock()
	if err != nil {
		return command.Result{}, err
	}
	device := c.Args[len(c.Args)-1]
	switch {
	case c.Name == "blkid":
		head := make([]byte, 32)
		f, err := os.Open(device)
		if err != nil {
			return command.Result{}, err
		}
		defer f.Close()
		if _, err := io.ReadFull(f, head); err != nil {
			return command.Result{}, err
		}
		if bytes.HasPrefix(head, []byte("XFSB")) {
			head = []byte("blkid:USAGE=filesystem,TYPE=xfs")
		}
		what, known := strings.CutPrefix(string(bytes.TrimRight(head, "\x00")), "blkid:")
		if !known {
			return command.Result{}, &command.ExitError{Cmd: "blkid", Code: 2}
		}
		return command.Result{Stdout: []byte(strings.ReplaceAll(what, ",", "\n"))}, nil
	case strings.HasPrefix(c.Name, "mkfs."):
		return command.Result{}, put(device, "blkid:USAGE=filesystem,TYPE="+strings.TrimPrefix(c.Name, "mkfs."))
	}
	return command.Result{}, nil
}

func put(device, content string) error {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if strings.Contains(content, "TYPE=xfs") {
		super := make([]byte, 16)
		copy(super, "XFSB")
		binary.BigEndian.PutUint32(super[4:], 4096)
		binary.BigEndian.PutUint64(super[8:], 64<<20>>12)
		_, more := f.WriteAt(super, 0)
		err = errors.Join(err, more)
	}
	if strings.Contains(content, "TYPE=ext4") {
		super := make([]byte, 1024) // as large as the device: nothing to grow
		binary.LittleEndian.PutUint32(super[0x4:], 64<<20>>12)
		binary.LittleEndian.PutUint32(super[0x18:], 2)
		binary.LittleEndian.PutUint16(super[0x38:], 0xEF53)
		_, more := f.WriteAt(super, 1024)
		err = errors.Join(err, more)
	}
	return errors.Join(err, f.Close())
}

func (m *fakeMachine) count(program string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, c := range m.commands {
		if c == program {
			n++
		}
	}
	return n
}

// fakeClusters are a map that has every cluster but one, and ceph-csi's name "old" for the cluster "c".
type fakeClusters struct{ lacks storage.ClusterID }

func (f fakeClusters) Cluster(id storage.ClusterID) (clustermap.Cluster, error) {
	switch id {
	case f.lacks:
		return clustermap.Cluster{}, fault.New(fault.Invalid, "clusterID %q is not in the cluster map", id)
	case "old":
		id = "c"
	}
	return clustermap.Cluster{ID: id, Monitors: []string{"10.0.0.1:6789"}}, nil
}

func (fakeClusters) Clusters() ([]clustermap.Cluster, error) {
	return []clustermap.Cluster{{ID: "c"}}, nil
}

func (fakeClusters) Credentials(storage.ClusterID) (ceph.Credentials, error) {
	return ceph.Credentials{User: "node", Key: storage.NewSecret("k")}, nil
}

// rig is a node service on a fake machine and a fake cluster, with one image.
type rig struct {
	*Server
	t        *testing.T
	machine  *fakeMachine
	ceph     *cephtest.Fake
	images   ceph.Images
	volume   string
	image    string
	staging  string
	clusters fakeClusters
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	fake := cephtest.NewFake()
	h := volumeid.Handle{Driver: storage.RBD, Cluster: "c", Pool: 4, NameHash: strings.Repeat("a", 32), Incarnation: strings.Repeat("b", 32)}
	r := &rig{
		t: t, ceph: fake, images: fake.Connect().Images("rbd", ""), volume: h.String(), image: volumeid.BackendName(h.Incarnation),
		machine: &fakeMachine{dir: dir, table: map[string]*mountinfo.Info{}, attached: map[string]attach.Device{}, clients: map[string]ceph.ClientAddress{}, fail: map[string]error{}},
		staging: filepath.Join(dir, "스테이징 📦"),
	}
	if err := r.images.Create(t.Context(), r.image, ceph.ImageSpec{Size: 64 * storage.MiB}); err != nil {
		t.Fatal(err)
	}
	r.restart()
	return r
}

// restart is the node plugin's.
func (r *rig) restart() {
	r.t.Helper()
	s, err := New(Config{
		Driver: storage.RBD, NodeID: "노드-1", Dialer: r.ceph.Dialer(), Clusters: r.clusters, Devices: r.machine,
		Runner: r.machine, StateDir: r.machine.dir, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	s.mounts = r.machine
	r.Server = s
}

func (r *rig) request(c *csi.VolumeCapability) *csi.NodeStageVolumeRequest {
	return &csi.NodeStageVolumeRequest{
		VolumeId: r.volume, StagingTargetPath: r.staging, VolumeCapability: c,
		VolumeContext: map[string]string{"clusterID": "c", "pool": "rbd", "image": r.image},
		Secrets:       map[string]string{"userID": "node", "userKey": "k"},
	}
}

func (r *rig) stageAs(c *csi.VolumeCapability) error {
	_, err := r.NodeStageVolume(r.t.Context(), r.request(c))
	return err
}

func (r *rig) unstageIt() error {
	_, err := r.NodeUnstageVolume(r.t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: r.volume, StagingTargetPath: r.staging})
	return err
}

func (r *rig) publishAt(target string, c *csi.VolumeCapability) error {
	_, err := r.NodePublishVolume(r.t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: r.volume, StagingTargetPath: r.staging, TargetPath: filepath.Join(r.machine.dir, target), VolumeCapability: c,
	})
	return err
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wants(err, class error) {
	r.t.Helper()
	if !errors.Is(err, class) {
		r.t.Errorf("got %v, want class %v", err, class)
	}
}

func mounted(fs string, m capability.Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: m},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fs}},
	}
}
