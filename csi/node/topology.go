package node

import "github.com/container-storage-interface/spec/lib/go/csi"

// topologyKey and topologyValue are the one segment that all nodes with the driver are in:
// Ceph is reached over the network from each of them alike. Volumes name no topology, which
// says the same (CSI specification, Volume.accessible_topology).
const (
	topologyKey   = "topology.csi.holdfast.io/network"
	topologyValue = "default"
)

func accessibleTopology() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{topologyKey: topologyValue}}
}
