package controller

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// ControllerExpandVolume grows a volume, never shrinks it: asked for less than there
// is, it answers with what there is.
func (s *Server) ControllerExpandVolume(ctx context.Context, request *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	h, err := s.handle(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if request.GetCapacityRange().GetRequiredBytes() == 0 && request.GetCapacityRange().GetLimitBytes() == 0 {
		return nil, fault.New(fault.Invalid, "capacity range is missing")
	}
	return edit(ctx, s, h, request.GetSecrets(), func(ctx context.Context, site clustermap.Site, held *record.Held) (*csi.ControllerExpandVolumeResponse, error) {
		r := held.Record
		if limit := request.GetCapacityRange().GetLimitBytes(); limit > 0 && int64(r.Size) > limit {
			return nil, fault.New(fault.Range, "volume %q has %d bytes, above limit_bytes %d, and is never shrunk", r.Name, r.Size, limit)
		}
		size := r.Size // asked for no size, only within a limit: what there is will do
		if request.GetCapacityRange().GetRequiredBytes() != 0 {
			wanted, err := s.sizeFor(request.GetCapacityRange())
			if err != nil {
				return nil, err
			}
			size = max(wanted, r.Size)
		}
		onNode, err := s.Backend.Expand(ctx, site, r, size)
		if err == nil && size != r.Size {
			r.Size = size
			if err = held.Finish(ctx); err == nil {
				s.log(r).Info("volume expanded", "bytes", int64(size))
			}
		}
		if err != nil {
			if r.Driver == storage.CephFS { // RBD's images are never made smaller
				s.suspectExpansion(ctx, site, h.NameHash, held)
			}
			return nil, err
		}
		return &csi.ControllerExpandVolumeResponse{CapacityBytes: int64(r.Size), NodeExpansionRequired: onNode}, nil
	})
}
