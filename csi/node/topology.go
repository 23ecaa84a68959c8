package node

import (
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// topologyKey and topologyValue are the one segment that all nodes with the driver are in:
// Ceph is reached over the network from each of them alike. Volumes of a class
// without topologyConstrainedPools name no topology, which says the same (CSI specification, Volume.accessible_topology).
const (
	topologyKey   = "topology.csi.holdfast.io/network"
	topologyValue = "default"
)

// accessibleTopology is that segment and what the node was told of its zone, rack and the like.
func (s *Server) accessibleTopology() *csi.Topology {
	segments := map[string]string{topologyKey: topologyValue}
	maps.Copy(segments, s.cfg.Topology)
	return &csi.Topology{Segments: segments}
}
