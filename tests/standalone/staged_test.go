package standalone

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"

	"golang.org/x/sys/unix"
)

// TestAForeignStagingPathHoldsDownBack stages a CephFS volume as kubelet does, at a path
// of the caller's own: outside the cluster's directory, and published nowhere.
func TestAForeignStagingPathHoldsDownBack(t *testing.T) {
	c := newCluster(t)
	c.must("up", "--osds", "1", "--osd-size", "1GiB")
	conn, err := grpc.NewClient("unix://"+filepath.Join(c.dir, "csi", "cephfs.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var secrets map[string]map[string]string
	var parameters map[string]string
	for name, into := range map[string]any{"secrets.yaml": &secrets, "cephfs-params.yaml": &parameters} {
		data, err := os.ReadFile(filepath.Join(c.dir, "csi", name))
		if err == nil {
			err = yaml.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	capability := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
	controller, node := csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	made, err := controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name: "foreign", Parameters: parameters, Secrets: secrets["CreateVolumeSecret"],
		CapacityRange: &csi.CapacityRange{RequiredBytes: 64 << 20}, VolumeCapabilities: []*csi.VolumeCapability{capability},
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	id, point := made.GetVolume().GetVolumeId(), t.TempDir()
	published, err := controller.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: id, NodeId: info.GetNodeId(), VolumeCapability: capability,
		VolumeContext: made.GetVolume().GetVolumeContext(), Secrets: secrets["ControllerPublishVolumeSecret"],
	})
	if err != nil {
		t.Fatal(err)
	}
	stage := &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: point, VolumeCapability: capability, PublishContext: published.GetPublishContext(),
		VolumeContext: made.GetVolume().GetVolumeContext(), Secrets: secrets["NodeStageVolumeSecret"],
	}
	if _, err := node.NodeStageVolume(t.Context(), stage); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(point, "f"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}

	c.refused([]string{"in use", point, "--force"}, "down")
	c.refused([]string{"in use", point, "--force"}, "down", "--wipe", "--yes")
	if data, err := os.ReadFile(filepath.Join(point, "f")); err != nil || string(data) != "kept" {
		t.Errorf("after the refusals: %q, %v", data, err)
	}
	t.Run("also with its mount out of sight", func(t *testing.T) {
		open, err := os.Open(filepath.Join(point, "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		c.refused([]string{"in use", "ceph-fuse", "--force"}, "down")
	})
	t.Run("by force it is taken away", func(t *testing.T) {
		if _, err := node.NodeStageVolume(t.Context(), stage); err != nil {
			t.Fatal(err)
		}
		c.must("down", "--force")
		if left := c.left(); len(left) > 0 {
			t.Errorf("processes are left: %v", left)
		}
	})
}
