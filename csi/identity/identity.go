// Package identity is the CSI identity service.
package identity

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Server implements csi.IdentityServer.
type Server struct {
	csi.UnimplementedIdentityServer
	Driver     storage.Driver
	Version    string
	Controller bool // the controller service is served too
	Changes    bool // and the service that compares snapshots
}

var _ csi.IdentityServer = (*Server)(nil)

// GetPluginInfo names the driver.
func (s *Server) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: string(s.Driver), VendorVersion: s.Version}, nil
}

// GetPluginCapabilities announces the controller service, online expansion, and that nodes
// have a topology: without one, external-provisioner (v6.3.0: its comparison of the empty
// topology never matches what the API server returns) makes and removes the objects of
// capacity tracking for ever.
func (s *Server) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	response := &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
		service(csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS),
	}}
	if s.Controller {
		response.Capabilities = append(response.Capabilities, service(csi.PluginCapability_Service_CONTROLLER_SERVICE))
	}
	if s.Changes {
		response.Capabilities = append(response.Capabilities, service(csi.PluginCapability_Service_SNAPSHOT_METADATA_SERVICE))
	}
	return response, nil
}

func service(kind csi.PluginCapability_Service_Type) *csi.PluginCapability {
	return &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: kind}}}
}

// Probe answers that the service runs. Clusters are told apart call by call: one that
// does not answer makes no other unusable.
func (s *Server) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}
