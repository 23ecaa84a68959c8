package volumes

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A volume that shows a snapshot (backingSnapshot) is read on a node after the snapshot's source was deleted, and
// what was in it is purged: whether it was mounted before that, or made afterwards.
func TestAShownSnapshotIsReadWhenItsSourceIsDeleted(t *testing.T) {
	b := newBed(t)
	s := newSession(t, b)
	const text = "그림자 🗄\n"
	source := s.create(t, "source", nil, nil)
	at := s.mount(t, source, csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
	if err := os.MkdirAll(filepath.Join(at, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	files := []string{"data", filepath.Join("a", "b", "data")}
	for _, name := range files {
		write(t, filepath.Join(at, name), []byte(text))
	}
	snapshot, err := s.controller.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: s.name + "s", SourceVolumeId: source.GetVolumeId(), Secrets: s.provisioner})
	if err != nil {
		t.Fatal(err)
	}
	id := snapshot.GetSnapshot().GetSnapshotId()
	t.Cleanup(func() {
		if _, err := s.controller.DeleteSnapshot(context.Background(), &csi.DeleteSnapshotRequest{SnapshotId: id, Secrets: s.provisioner}); err != nil {
			t.Error(err)
		}
	})
	s.unmount(t, source)
	shown := map[string]string{"backingSnapshot": "true"}
	content := &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
	before := s.mount(t, s.create(t, "before", shown, content), csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY)
	s.delete(t, source)
	s.purged(t)
	after := s.mount(t, s.create(t, "after", shown, content), csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY)
	for what, root := range map[string]string{"mounted before its source was deleted": before, "made after its source was deleted": after} {
		for _, name := range files {
			if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != text {
				t.Errorf("%s, %s: %q, %v", what, name, got, err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "mine"), nil, 0o600); err == nil {
			t.Errorf("%s: it can be written", what)
		}
	}
}

// session speaks to the CSI services of the cluster for CephFS.
type session struct {
	*bed
	name              string // of all that it makes
	controller        csi.ControllerClient
	node              csi.NodeClient
	provisioner, user map[string]string
}

func newSession(t *testing.T, b *bed) *session {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(b.Dir, "csi", "cephfs.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	secrets := b.Secrets(t)
	return &session{
		bed: b, name: "shown" + strings.ToLower(rand.Text()[:8]), controller: csi.NewControllerClient(conn), node: csi.NewNodeClient(conn),
		provisioner: secrets["CreateVolumeSecret"], user: secrets["NodeStageVolumeSecret"],
	}
}

func capability(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

// create makes a volume that goes with the test; a shown one is read only.
func (s *session) create(t *testing.T, name string, more map[string]string, content *csi.VolumeContentSource) *csi.Volume {
	t.Helper()
	mode := csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	if content != nil {
		mode = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	}
	parameters := s.Parameters(t, "cephfs")
	maps.Copy(parameters, more)
	response, err := s.controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name: s.name + name, Parameters: parameters, Secrets: s.provisioner, VolumeContentSource: content,
		CapacityRange: &csi.CapacityRange{RequiredBytes: 64 << 20}, VolumeCapabilities: []*csi.VolumeCapability{capability(mode)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.delete(t, response.GetVolume()) })
	return response.GetVolume()
}

func (s *session) delete(t *testing.T, v *csi.Volume) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	_, err := s.controller.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), Secrets: s.provisioner})
	if err == nil {
		_, err = s.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.GetVolumeId(), Secrets: s.provisioner})
	}
	if err != nil {
		t.Error(err)
	}
}

// mount publishes the volume to a pod's directory until the test ends.
func (s *session) mount(t *testing.T, v *csi.Volume, mode csi.VolumeCapability_AccessMode_Mode) (target string) {
	t.Helper()
	staging, target := s.places(t, v)
	for _, dir := range []string{staging, filepath.Dir(target)} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	info, err := s.node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	published, err := s.controller.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: v.GetVolumeId(), NodeId: info.GetNodeId(), VolumeCapability: capability(mode), Secrets: s.provisioner, VolumeContext: v.GetVolumeContext(),
		Readonly: v.GetContentSource() != nil,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.unmount(t, v) })
	if _, err := s.node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: v.GetVolumeId(), StagingTargetPath: staging, VolumeCapability: capability(mode), VolumeContext: v.GetVolumeContext(),
		PublishContext: published.GetPublishContext(), Secrets: s.user,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: v.GetVolumeId(), StagingTargetPath: staging, TargetPath: target, VolumeCapability: capability(mode), VolumeContext: v.GetVolumeContext(),
		PublishContext: published.GetPublishContext(), Readonly: v.GetContentSource() != nil,
	}); err != nil {
		t.Fatal(err)
	}
	return target
}

func (s *session) places(t *testing.T, v *csi.Volume) (staging, target string) {
	dir := filepath.Join(os.TempDir(), s.name, v.GetVolumeContext()["name"])
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Join(os.TempDir(), s.name)) })
	return filepath.Join(dir, "staging"), filepath.Join(dir, "pod", "mount")
}

func (s *session) unmount(t *testing.T, v *csi.Volume) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	staging, target := s.places(t, v)
	_, err := s.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), TargetPath: target})
	if err == nil {
		_, err = s.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: staging})
	}
	if err != nil {
		t.Error(err)
	}
}

// purged waits until the manager has removed the files of deleted subvolumes: it keeps a link to each that it has to.
func (s *session) purged(t *testing.T) {
	t.Helper()
	var left int
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		var inodes []struct {
			Fragments []struct {
				Entries []struct {
					Linked bool `json:"is_primary"`
				} `json:"dentries"`
			} `json:"dirfrags"`
		}
		out := s.Tool(t, "ceph", "tell", "mds.a", "dump", "tree", "/volumes/_deleting", "1")
		if err := json.Unmarshal([]byte(out), &inodes); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		left = 0
		for _, fragment := range inodes[0].Fragments {
			for _, entry := range fragment.Entries {
				if entry.Linked {
					left++
				}
			}
		}
		if left == 0 {
			return
		}
	}
	t.Fatalf("%d subvolumes wait to be purged", left)
}
