package controller

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

type accessMode = csi.VolumeCapability_AccessMode_Mode

// Access modes by CSI's names.
const (
	singleNodeWriter       = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	singleNodeReader       = csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
	multiNodeReader        = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	multiNodeSingleWriter  = csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER
	multiNodeMultiWriter   = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	singleNodeSingleWriter = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	singleNodeMultiWriter  = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
)

// singleNode reports whether the mode lets one node have the volume at a time.
func singleNode(mode accessMode) bool {
	switch mode {
	case singleNodeWriter, singleNodeReader, singleNodeSingleWriter, singleNodeMultiWriter:
		return true
	default:
		return false
	}
}

// checkCapability validates one capability for a driver.
func checkCapability(driver storage.Driver, c *csi.VolumeCapability) error {
	mode := c.GetAccessMode().GetMode()
	block := c.GetBlock() != nil
	switch {
	case c == nil:
		return fault.New(fault.Invalid, "volume capability is missing")
	case !block && c.GetMount() == nil:
		return fault.New(fault.Invalid, "volume capability has neither block nor mount access")
	case mode == csi.VolumeCapability_AccessMode_UNKNOWN:
		return fault.New(fault.Invalid, "access mode is missing")
	case accessModeName(mode) == "":
		return fault.New(fault.Invalid, "access mode %d is not known", mode)
	case driver == storage.CephFS && block:
		return fault.New(fault.Invalid, "raw block volumes need RBD: CephFS has no block device")
	case driver == storage.RBD && !block && (mode == multiNodeMultiWriter || mode == multiNodeSingleWriter):
		return fault.New(fault.Invalid, "access mode %s with a file system on RBD: two nodes would destroy it; use volumeMode Block, or CephFS for a shared file system", accessModeName(mode))
	}
	if driver == storage.CephFS {
		return nil
	}
	switch fs := c.GetMount().GetFsType(); fs {
	case "", "ext4", "xfs":
		return nil
	default:
		return fault.New(fault.Invalid, "fsType %q: RBD volumes take ext4 or xfs", fs)
	}
}

func accessModeName(mode accessMode) string {
	return csi.VolumeCapability_AccessMode_Mode_name[int32(mode)]
}

// checkCapabilities validates all of a request's capabilities and reports whether
// they ask for raw block access.
func checkCapabilities(driver storage.Driver, capabilities []*csi.VolumeCapability) (block bool, err error) {
	if len(capabilities) == 0 {
		return false, fault.New(fault.Invalid, "volume capabilities are missing")
	}
	for _, c := range capabilities {
		if err := checkCapability(driver, c); err != nil {
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
