package controller

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/capability"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// checkCapabilities validates all of a request's capabilities and reports whether
// they ask for raw block access.
func checkCapabilities(driver storage.Driver, capabilities []*csi.VolumeCapability) (block bool, err error) {
	if len(capabilities) == 0 {
		return false, fault.New(fault.Invalid, "volume capabilities are missing")
	}
	for _, c := range capabilities {
		if err := capability.Check(driver, c); err != nil {
			return false, err
		}
		if (c.GetBlock() != nil) != (capabilities[0].GetBlock() != nil) {
			return false, fault.New(fault.Invalid, "volume capabilities ask for both block and mount access: a volume has one of them for its life")
		}
	}
	return capabilities[0].GetBlock() != nil, nil
}

// ValidateVolumeCapabilities confirms the capabilities that the volume supports, or
// says in the message why not.
func (s *Server) ValidateVolumeCapabilities(ctx context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	h, err := s.handle(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if len(request.GetVolumeCapabilities()) == 0 {
		return nil, fault.New(fault.Invalid, "volume capabilities are missing")
	}
	_, r, err := s.find(ctx, h, request.GetSecrets())
	if err != nil {
		return nil, err
	}
	block, err := checkCapabilities(s.Backend.Driver(), request.GetVolumeCapabilities())
	if err == nil && block != r.Block {
		err = fault.New(fault.Invalid, "the volume was made with raw block access %v", r.Block)
	}
	if err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: request.GetVolumeContext(), VolumeCapabilities: request.GetVolumeCapabilities(), Parameters: request.GetParameters(),
	}}, nil
}
