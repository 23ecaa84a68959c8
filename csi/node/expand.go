package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// NodeExpandVolume makes device and file system as large as the image, online. For
// CephFS there is nothing to do: the quota is in force already.
func (s *Server) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, fault.New(fault.Invalid, "volume_id is missing")
	}
	if req.GetVolumePath() == "" {
		return nil, fault.New(fault.Invalid, "volume_path is missing")
	}
	handle, err := s.readID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	want := storage.Bytes(req.GetCapacityRange().GetRequiredBytes())
	if limit := storage.Bytes(req.GetCapacityRange().GetLimitBytes()); want < 0 || limit < 0 || limit > 0 && limit < want {
		return nil, fault.New(fault.Range, "capacity_range: required_bytes %d and limit_bytes %d do not fit together", want, limit)
	}
	size := want
	err = s.exclusive(ctx, req.GetVolumeId(), func() error {
		v, err := s.at(req.GetVolumeId(), resolvePath(req.GetVolumePath()))
		if err == nil && v.Device != nil {
			size, err = s.expand(ctx, v, handle, want, req.GetSecrets())
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("expand volume %s: %w", req.GetVolumeId(), err)
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: int64(size)}, nil
}

func (s *Server) expand(ctx context.Context, v *staged, handle volumeid.Handle, want storage.Bytes, secrets map[string]string) (storage.Bytes, error) {
	if err := s.trouble(ctx, v); err != nil {
		return 0, err
	}
	if v.ReadOnly {
		size, err := attach.DeviceSize(v.Device.Path)
		return storage.Bytes(size), err
	}
	start := time.Now()
	size, err := s.growDevice(ctx, v, handle, want, secrets)
	if err != nil {
		return 0, err
	}
	if !v.Block {
		if err := s.fs.grow(ctx, v.Device.Path, v.FS, v.Staging); err != nil {
			return 0, err
		}
	}
	s.cfg.Log.Info("volume expanded", obs.KeyVolume, v.Volume, "size", size.String(), obs.KeyTook, time.Since(start))
	return size, nil
}

// growDevice makes the device as large as the image is, which the cluster says; want is the
// least that the caller expects. QEMU sets the image to the size that it is told, so nobody
// may change the image between the question and that: both are done under its lease.
func (s *Server) growDevice(ctx context.Context, v *staged, handle volumeid.Handle, want storage.Bytes, secrets map[string]string) (storage.Bytes, error) {
	d := v.Device
	conn, info, err := s.image(ctx, v, handle, secrets)
	switch {
	case err != nil && (want == 0 || d.Mounter == attach.FuseLoop):
		return 0, fmt.Errorf("ask for the image's size (a node-expand secret, or --credentials-dir, is needed): %w", err)
	case err != nil: // krbd finds out by itself
		return s.cfg.Devices.Grow(ctx, *d, d.ImageSize(want))
	case d.Mounter != attach.FuseLoop:
		return s.cfg.Devices.Grow(ctx, *d, max(d.ImageSize(want), info.Size)) // waits for it, and sets nothing
	}
	var size storage.Bytes
	err = ceph.HoldImage(ctx, conn.Objects(d.Pool, d.Namespace), d.Image, s.cfg.NodeID, func(ctx context.Context) error {
		info, err := conn.Images(d.Pool, d.Namespace).Info(ctx, d.Image) // again, now that nobody else changes it
		if err != nil {
			return err
		}
		if want > d.Data(info.Size) {
			return fault.New(fault.Precondition, "image %s/%s has %d bytes for data, not the %d that are wanted: is it expanded?", d.Pool, d.Image, d.Data(info.Size), want)
		}
		size, err = s.cfg.Devices.Grow(ctx, *d, info.Size)
		return err
	})
	return size, err
}

// image asks the cluster; it needs credentials, from the call or the service's own.
func (s *Server) image(ctx context.Context, v *staged, handle volumeid.Handle, secrets map[string]string) (ceph.Cluster, ceph.ImageInfo, error) {
	site, err := s.cfg.Clusters.Cluster(handle.Cluster)
	if err != nil {
		return nil, ceph.ImageInfo{}, err
	}
	creds, err := s.credentials(secrets, handle.Cluster)
	if err != nil {
		return nil, ceph.ImageInfo{}, err
	}
	conn, err := s.cfg.Dialer.Dial(ctx, site.Endpoint(), creds)
	if err != nil {
		return nil, ceph.ImageInfo{}, err
	}
	info, err := conn.Images(v.Device.Pool, v.Device.Namespace).Info(ctx, v.Device.Image)
	if errors.Is(err, fault.NotFound) {
		err = fault.New(fault.NotFound, "image %s/%s is gone", v.Device.Pool, v.Device.Image)
	}
	return conn, info, err
}
