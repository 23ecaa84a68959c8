package fsm

import "encoding/json"

// ClusterPolicy is the name of the policy that all others inherit from.
const ClusterPolicy = "cluster"

// Limits are what the cluster's policy says of plans at work.
type Limits struct {
	// Degraded is the part of all copies that may be missing while plans go on, from 0 to 1.
	Degraded float64
}

// Limits reads the cluster's policy. What that does not say is the strictest.
func (s *State) Limits() Limits {
	var spec struct {
		Percent float64 `json:"max_degraded_percent"`
	}
	if p, ok := s.Policies[ClusterPolicy]; !ok || json.Unmarshal(p.Spec, &spec) != nil || !(spec.Percent >= 0 && spec.Percent <= 100) {
		return Limits{}
	}
	return Limits{Degraded: spec.Percent / 100}
}
