// Package nodetest is the node suite: it runs the node service's RPCs against a real
// Ceph cluster with whatever attachers the machine has. The same suite runs on a plain
// host (FUSE), and in a User Mode Linux guest (krbd and the kernel's CephFS).
package nodetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/attach/keeper"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/csi/node"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Env is what the suite runs on. Root is needed.
type Env struct {
	Dialer      ceph.Dialer
	Entry       clustermap.Cluster
	Credentials ceph.Credentials // a provisioner's: makes the volumes
	Node        ceph.Credentials // a node's; the provisioner's if empty
	Dir         string           // short, empty; everything is made below it
	Pool        string           // of images
	Filesystem  string
	RBDMounter  string // attach.Krbd or attach.FuseLoop
	FSMounter   string // attach.KernelFS or attach.UserFS
	// GrowsExt4 says that this machine lets ext4 grow online.
	GrowsExt4 bool
	// Session asks the MDS for the address of a client by its number ("client4242"), where the
	// kernel does not tell it; may be nil.
	Session func(t *testing.T, number string) ceph.ClientAddress
}

// bench is one test's node with its connection to the cluster.
type bench struct {
	Env
	t       *testing.T
	cluster ceph.Cluster
	rbd     *node.Server
	cephfs  *node.Server
	socket  string
	stop    func() // ends the attach daemon
	log     *slog.Logger
}

// oneCluster is a cluster map of one entry.
type oneCluster struct {
	entry clustermap.Cluster
	creds ceph.Credentials
}

func (c oneCluster) Cluster(storage.ClusterID) (clustermap.Cluster, error) { return c.entry, nil }
func (c oneCluster) Clusters() ([]clustermap.Cluster, error) {
	return []clustermap.Cluster{c.entry}, nil
}
func (c oneCluster) Credentials(storage.ClusterID) (ceph.Credentials, error) {
	return c.creds, nil
}

// newBench starts a keeper and two node services below a directory of the test's own.
func newBench(t *testing.T, env Env) *bench {
	t.Helper()
	env.Dir = filepath.Join(env.Dir, random(2))
	return openBench(t, env)
}

// openBench is newBench on a directory that may have been used before.
func openBench(t *testing.T, env Env) *bench {
	t.Helper()
	if env.Node.User == "" {
		env.Node = env.Credentials
	}
	if err := os.MkdirAll(env.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b := &bench{Env: env, t: t, socket: filepath.Join(env.Dir, "attach.sock"), log: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	var err error
	if b.cluster, err = env.Dialer.Dial(t.Context(), env.Entry.Endpoint(), env.Credentials); err != nil {
		t.Fatal(err)
	}
	b.stop = b.startKeeper()
	t.Cleanup(func() { b.clean(); b.stop() })
	b.rbd, b.cephfs = b.newNode("n1", storage.RBD), b.newNode("n1", storage.CephFS)
	return b
}

// startKeeper runs an attach daemon within the test; the returned function ends it.
func (b *bench) startKeeper() func() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		if err := keeper.Run(ctx, keeper.Config{Socket: b.socket, StateDir: filepath.Join(b.Dir, "k"), OpTimeout: 15 * time.Second, Log: b.log}); err != nil {
			b.t.Errorf("attach daemon: %v", err)
		}
	}()
	client := keeper.NewClient(b.socket)
	for range 100 {
		if _, err := client.Ability(b.t.Context()); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return sync.OnceFunc(func() { cancel(); wg.Wait() })
}

// clean takes away what a test that failed has left: mounts, devices, helpers.
func (b *bench) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mounts, _ := mountinfo.GetMounts(mountinfo.PrefixFilter(b.path("")))
	for _, m := range slices.Backward(mounts) {
		_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
	}
	if !b.t.Failed() && len(mounts) > 0 {
		b.t.Errorf("the test leaves %d mounts", len(mounts))
	}
	cfg := attach.Config{Socket: b.socket, Runner: command.System{}, Log: b.log}
	list, _ := keeper.NewClient(b.socket).List(ctx)
	for _, s := range list {
		if s.Spec.Kind == keeper.KindRBD {
			_ = attach.NewDevices(cfg).Detach(ctx, attach.Device{Mounter: attach.FuseLoop, Volume: s.Spec.Volume})
		} else {
			_ = attach.NewDirectories(cfg).Release(ctx, s.Spec.Volume, attach.UserFS)
		}
	}
}

// newNode returns a node service; again with the same name: the service restarted.
func (b *bench) newNode(name string, driver storage.Driver) *node.Server {
	b.t.Helper()
	cfg := attach.Config{Socket: b.socket, Runner: command.System{}, Log: b.log}
	s, err := node.New(node.Config{
		Driver: driver, NodeID: name, Dialer: b.Dialer, Clusters: oneCluster{b.Entry, b.Node},
		Devices: attach.NewDevices(cfg), Directories: attach.NewDirectories(cfg), Runner: command.System{},
		StateDir: filepath.Join(b.Dir, "node-"+name), MaxVolumes: 110, Log: b.log,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// volume is a volume under test.
type volume struct {
	b       *bench
	id      string
	context map[string]string
	image   string
	staging string
	size    storage.Bytes
	// passphrase of an encrypted volume
	passphrase string
}

// imageVolume makes an RBD image and the handle that a controller would give out.
func (b *bench) imageVolume(size storage.Bytes) *volume {
	b.t.Helper()
	h := volumeid.Handle{Driver: storage.RBD, Cluster: b.Entry.ID, Pool: 1, NameHash: random(16), Incarnation: random(16)}
	image := volumeid.BackendName(h.Incarnation)
	if err := b.images().Create(b.t.Context(), image, ceph.ImageSpec{Size: size}); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.images().Remove(ctx, image); err != nil {
			b.t.Errorf("remove image: %v", err)
		}
	})
	c := volumeid.Context{
		ClusterID: string(b.Entry.ID), Name: "시험 볼륨 📦", Pool: b.Pool, RadosNamespace: b.Entry.RadosNamespace, Image: image, Mounter: b.RBDMounter,
	}
	return &volume{b: b, id: h.String(), context: c.Map(), image: image, staging: b.path("staging-" + h.Incarnation[:4]), size: size}
}

// directoryVolume makes a CephFS subvolume.
func (b *bench) directoryVolume(size storage.Bytes) *volume {
	b.t.Helper()
	h := volumeid.Handle{Driver: storage.CephFS, Cluster: b.Entry.ID, Pool: 1, NameHash: random(16), Incarnation: random(16)}
	name, subvolumes := volumeid.BackendName(h.Incarnation), b.cluster.Subvolumes(b.Filesystem, b.Entry.SubvolumeGroup)
	if err := subvolumes.Create(b.t.Context(), name, ceph.SubvolumeSpec{Size: size, Mode: 0o777}); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := subvolumes.Remove(ctx, name); err != nil {
			b.t.Errorf("remove subvolume: %v", err)
		}
	})
	info, err := subvolumes.Info(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	c := volumeid.Context{ClusterID: string(b.Entry.ID), Name: "시험 볼륨 📂", Filesystem: b.Filesystem, SubvolumePath: info.Path, Mounter: b.FSMounter}
	return &volume{b: b, id: h.String(), context: c.Map(), staging: b.path("staging-" + h.Incarnation[:4]), size: size}
}

func (b *bench) images() ceph.Images { return b.cluster.Images(b.Pool, b.Entry.RadosNamespace) }

// path returns a path with a space, Korean and an emoji in it.
func (b *bench) path(name string) string { return filepath.Join(b.Dir, "볼륨 😀", name) }

func (v *volume) secrets() map[string]string {
	secrets := map[string]string{"userID": v.b.Node.User, "userKey": v.b.Node.Key.Reveal()}
	if v.passphrase != "" {
		secrets[kms.Passphrase] = v.passphrase
	}
	return secrets
}

// stage, publish and the rest call the RPC with what the suite varies.
func (v *volume) stage(ctx context.Context, s *node.Server, c *csi.VolumeCapability) error {
	if err := os.MkdirAll(v.staging, 0o750); err != nil && !errors.Is(err, os.ErrExist) { // a dead mount exists, too
		v.b.t.Fatal(err)
	}
	_, err := s.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging, VolumeCapability: c, VolumeContext: v.context, Secrets: v.secrets(),
	})
	return err
}

func (v *volume) unstage(ctx context.Context, s *node.Server) error {
	_, err := s.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: v.staging})
	return err
}

func (v *volume) publish(ctx context.Context, s *node.Server, c *csi.VolumeCapability, target string, readOnly bool) error {
	_, err := s.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging, TargetPath: target, VolumeCapability: c, Readonly: readOnly, VolumeContext: v.context,
	})
	return err
}

func (v *volume) unpublish(ctx context.Context, s *node.Server, target string) error {
	_, err := s.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: target})
	return err
}

func (v *volume) stats(ctx context.Context, s *node.Server, path string) (*csi.NodeGetVolumeStatsResponse, error) {
	return s.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: v.id, VolumePath: path, StagingTargetPath: v.staging})
}

func (v *volume) expand(ctx context.Context, s *node.Server, path string, size storage.Bytes) error {
	_, err := s.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
		VolumeId: v.id, VolumePath: path, CapacityRange: &csi.CapacityRange{RequiredBytes: int64(size)}, Secrets: v.secrets(),
	})
	return err
}

// mountCap and blockCap are volume capabilities.
func mountCap(fs string, mode csi.VolumeCapability_AccessMode_Mode, flags ...string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fs, MountFlags: flags}},
	}
}

func blockCap(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}, AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

// must fails the test on an error.
func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func random(bytes int) string {
	p := make([]byte, bytes)
	_, _ = rand.Read(p)
	return hex.EncodeToString(p)
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}
