package csiclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// mounted is what this directory has mounted of one volume: DIR/mounts/<hash>/mounts.json,
// beside the staging path.
type mounted struct {
	Block    bool     `json:"block,omitempty"`
	ReadOnly bool     `json:"readOnly,omitempty"`
	Targets  []string `json:"targets"`
}

func (c *Client) place(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(c.dir, "mounts", hex.EncodeToString(sum[:8]))
}

func (c *Client) staging(id string) string { return filepath.Join(c.place(id), "stage") }

// lock keeps two programs from working on one volume's mounts at once.
func (c *Client) lock(id string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(c.dir, "mounts"), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of mounts: %w", err)
	}
	file, err := os.OpenFile(c.place(id)+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the volume's mounts: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock the volume's mounts: %w", err)
	}
	return func() { _ = file.Close() }, nil
}

func (c *Client) mounts(id string) mounted {
	var m mounted
	if data, err := os.ReadFile(filepath.Join(c.place(id), "mounts.json")); err == nil {
		_ = json.Unmarshal(data, &m) // written by rename: whole or absent
	}
	return m
}

func (c *Client) saveMounts(id string, m mounted) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode mounts: %w", err)
	}
	if err := os.MkdirAll(c.place(id), 0o700); err != nil {
		return fmt.Errorf("note the mount: %w", err)
	}
	return durable.WriteFile(filepath.Join(c.place(id), "mounts.json"), data, 0o600)
}

// Hold publishes a block volume to this node and mounts it nowhere, so that no other node gets it. Unmount ends it.
func (c *Client) Hold(ctx context.Context, v Volume) error {
	unlock, err := c.lock(v.ID)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = c.publish(ctx, v, capability(v.Driver, true, "", false))
	return err
}

// publish has the controller give the volume to this node.
func (c *Client) publish(ctx context.Context, v Volume, wanted *csi.VolumeCapability) (map[string]string, error) {
	info, err := c.node(v.Driver).NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return nil, explain("ask for the node's id", err)
	}
	published, err := c.controller(v.Driver).ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: v.ID, NodeId: info.GetNodeId(), VolumeCapability: wanted, VolumeContext: v.Context,
		Secrets: c.secrets["ControllerPublishVolumeSecret"],
	})
	return published.GetPublishContext(), explain("publish volume "+v.Name, err)
}

// MountOptions say how a volume is mounted.
type MountOptions struct {
	Target     string // absolute; a directory, or with Block a file, that is made if missing
	Block      bool
	ReadOnly   bool
	Filesystem string
}

// Mount publishes the volume to this node, stages it and mounts it at the target.
// Repeated with the same target it changes nothing.
func (c *Client) Mount(ctx context.Context, v Volume, o MountOptions) error {
	if !filepath.IsAbs(o.Target) {
		return fault.New(fault.Invalid, "target %q: want an absolute path", o.Target)
	}
	unlock, err := c.lock(v.ID)
	if err != nil {
		return err
	}
	defer unlock()
	m := c.mounts(v.ID)
	if len(m.Targets) > 0 && (m.Block != o.Block || m.ReadOnly != o.ReadOnly) {
		return fault.New(fault.Precondition, "volume %s is mounted at %v in another way (block %v, read-only %v): unmount it there first", v.Name, m.Targets, m.Block, m.ReadOnly)
	}
	wanted := capability(v.Driver, o.Block, o.Filesystem, o.ReadOnly)
	published, err := c.publish(ctx, v, wanted)
	if err != nil {
		return err
	}
	// The note comes first: after a crash an unmount finds what there may be.
	before := m
	m.Block, m.ReadOnly = o.Block, o.ReadOnly
	if !slices.Contains(m.Targets, o.Target) {
		m.Targets = append(slices.Clone(m.Targets), o.Target)
	}
	if err := c.saveMounts(v.ID, m); err != nil {
		return err
	}
	if err := c.stageAndPublish(ctx, v, wanted, published, o); err != nil {
		if len(before.Targets) > 0 {
			return errors.Join(err, c.saveMounts(v.ID, before))
		}
		return errors.Join(err, c.release(ctx, v))
	}
	return nil
}

func (c *Client) stageAndPublish(ctx context.Context, v Volume, wanted *csi.VolumeCapability, publishContext map[string]string, o MountOptions) error {
	if err := os.MkdirAll(c.staging(v.ID), 0o700); err != nil {
		return fmt.Errorf("make the staging path: %w", err)
	}
	_, err := c.node(v.Driver).NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: v.ID, StagingTargetPath: c.staging(v.ID), VolumeCapability: wanted, PublishContext: publishContext,
		VolumeContext: v.Context, Secrets: c.secrets["NodeStageVolumeSecret"],
	})
	if err != nil {
		return explain("stage volume "+v.Name, err)
	}
	_, err = c.node(v.Driver).NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: v.ID, StagingTargetPath: c.staging(v.ID), TargetPath: o.Target, VolumeCapability: wanted,
		PublishContext: publishContext, VolumeContext: v.Context, Readonly: o.ReadOnly, Secrets: c.secrets["NodePublishVolumeSecret"],
	})
	return explain("mount volume "+v.Name, err)
}

// Unmount takes the volume from target, or from all its targets when target is empty.
// With the last one gone it is unstaged and unpublished from this node.
func (c *Client) Unmount(ctx context.Context, v Volume, target string) error {
	unlock, err := c.lock(v.ID)
	if err != nil {
		return err
	}
	defer unlock()
	m := c.mounts(v.ID)
	if target != "" && len(m.Targets) > 0 && !slices.Contains(m.Targets, target) {
		return fault.New(fault.NotFound, "volume %s is not mounted at %s, but at %v", v.Name, target, m.Targets)
	}
	for _, t := range slices.Clone(m.Targets) {
		if target != "" && t != target {
			continue
		}
		if _, err := c.node(v.Driver).NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID, TargetPath: t}); err != nil {
			return explain("unmount "+t, err)
		}
		m.Targets = slices.DeleteFunc(m.Targets, func(x string) bool { return x == t })
		if err := c.saveMounts(v.ID, m); err != nil {
			return err
		}
	}
	if len(m.Targets) > 0 {
		return nil
	}
	return c.release(ctx, v)
}

// release unstages the volume and gives it back to the controller.
func (c *Client) release(ctx context.Context, v Volume) error {
	if _, err := c.node(v.Driver).NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.ID, StagingTargetPath: c.staging(v.ID)}); err != nil {
		return explain("unstage volume "+v.Name, err)
	}
	info, err := c.node(v.Driver).NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return explain("ask for the node's id", err)
	}
	_, err = c.controller(v.Driver).ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{
		VolumeId: v.ID, NodeId: info.GetNodeId(), Secrets: c.secrets["ControllerUnpublishVolumeSecret"],
	})
	if err != nil {
		return explain("unpublish volume "+v.Name, err)
	}
	return os.RemoveAll(c.place(v.ID))
}

// Usage is how full a mounted volume is.
type Usage struct {
	Used, Total storage.Bytes
	Abnormal    bool
	Condition   string
}

// Stats asks the node about a mounted volume; ok is false when it is mounted nowhere here.
func (c *Client) Stats(ctx context.Context, v Volume) (u Usage, ok bool, err error) {
	if len(v.Mounts) == 0 {
		return u, false, nil
	}
	response, err := c.node(v.Driver).NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{
		VolumeId: v.ID, VolumePath: v.Mounts[0], StagingTargetPath: c.staging(v.ID),
	})
	if err != nil {
		return u, false, explain("ask for the usage of volume "+v.Name, err)
	}
	for _, usage := range response.GetUsage() {
		if usage.GetUnit() == csi.VolumeUsage_BYTES {
			u.Used, u.Total = storage.Bytes(usage.GetUsed()), storage.Bytes(usage.GetTotal())
		}
	}
	u.Abnormal, u.Condition = response.GetVolumeCondition().GetAbnormal(), response.GetVolumeCondition().GetMessage()
	return u, true, nil
}
