package controller

import (
	"context"
	"fmt"
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/capability"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
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
	if r.State != record.Ready {
		return nil, fault.New(fault.NotFound, "volume %s is %s", h, r.State)
	}
	if why := s.unfit(r, request); why != "" {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: why}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: request.GetVolumeContext(), VolumeCapabilities: request.GetVolumeCapabilities(), Parameters: request.GetParameters(),
	}}, nil
}

// unfit says why the volume is not as the request describes it, "" when it is.
func (s *Server) unfit(r *record.Record, request *csi.ValidateVolumeCapabilitiesRequest) string {
	block, err := checkCapabilities(s.Backend.Driver(), request.GetVolumeCapabilities())
	if err != nil {
		return err.Error()
	}
	if r.Foreign != nil {
		return "" // how it was made ceph-csi does not say, and its context is none of ours
	}
	if block != r.Block {
		return fmt.Sprintf("the volume was made with raw block access %v", r.Block)
	}
	if given := request.GetVolumeContext(); len(given) > 0 {
		c, err := volumeid.ParseContext(given)
		if err != nil {
			return err.Error()
		}
		if !maps.Equal(c.Map(), r.Context) {
			return fmt.Sprintf("the volume's context is %v", r.Context)
		}
	}
	if parameters, _ := splitParameters(request.GetParameters()); len(parameters) > 0 && !maps.Equal(parameters, r.Parameters) {
		return fmt.Sprintf("the volume was made with the parameters %v", r.Parameters)
	}
	return ""
}
