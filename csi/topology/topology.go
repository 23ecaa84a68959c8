// Package topology matches where a volume may be used with the pools of a StorageClass: the parameter
// topologyConstrainedPools, in ceph-csi's form. Pure.
package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Parameter is the StorageClass parameter that names pools by topology.
const Parameter = "topologyConstrainedPools"

// Place is a pool that volumes can be made in, and where they can be used then.
type Place struct {
	Pool     string            `json:"pool"`
	DataPool string            `json:"dataPool,omitempty"`
	Segments map[string]string `json:"segments,omitempty"` // accessible topology; empty: everywhere
}

// Pool is an entry of the parameter: nodes in all of its domains use it.
type Pool struct {
	Name     string   `json:"poolName"`
	DataPool string   `json:"dataPool"`
	Domains  []Domain `json:"domainSegments"`
}

// Domain is a topology key, or what stands behind its "/" ("zone"), with a value.
type Domain struct {
	Label string `json:"domainLabel"`
	Value string `json:"value"`
}

// Parse reads the parameter: fault.Invalid saying what is wrong with it.
func Parse(text string) ([]Pool, error) {
	bad := func(format string, args ...any) ([]Pool, error) {
		return nil, fault.New(fault.Invalid, "parameter %q: "+format+"; want a list such as "+
			`[{"poolName":"rbd-a","domainSegments":[{"domainLabel":"zone","value":"a"}]}]`, append([]any{Parameter}, args...)...)
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	var pools []Pool
	if err := decoder.Decode(&pools); err != nil {
		return bad("%v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return bad("there is more behind the list")
	}
	if len(pools) == 0 {
		return bad("no pools are named")
	}
	for i, p := range pools {
		if p.Name == "" {
			return bad("entry %d has no poolName", i+1)
		}
		if len(p.Domains) == 0 {
			return bad("pool %q has no domainSegments", p.Name)
		}
		seen := map[string]bool{}
		for _, d := range p.Domains {
			if d.Label == "" || d.Value == "" || seen[d.Label] {
				return bad("pool %q: each domainLabel stands there once, with a value", p.Name)
			}
			seen[d.Label] = true
		}
	}
	return pools, nil
}

// match returns the segments that put a pool into a topology, false if it is elsewhere.
func (p Pool) match(t *csi.Topology) (map[string]string, bool) {
	segments := map[string]string{}
	for _, d := range p.Domains {
		key, ok := keyOf(d, t.GetSegments())
		if !ok {
			return nil, false
		}
		segments[key] = d.Value
	}
	return segments, true
}

// keyOf finds the topology key that a domain means: its own name before one that ends so.
func keyOf(d Domain, segments map[string]string) (string, bool) {
	for _, key := range slices.Sorted(maps.Keys(segments)) {
		_, name, _ := strings.Cut(key, "/")
		if (key == d.Label || name == d.Label && segments[d.Label] == "") && segments[key] == d.Value {
			return key, true
		}
	}
	return "", false
}

// Choose returns the places that fit, best first: those of the preferred topologies in their order,
// then those of the requisite ones. Without requirements each pool fits, wherever it is used from.
func Choose(pools []Pool, need *csi.TopologyRequirement) []Place {
	wanted := slices.Concat(need.GetPreferred(), need.GetRequisite())
	var places []Place
	add := func(p Pool, segments map[string]string) {
		place := Place{Pool: p.Name, DataPool: p.DataPool, Segments: segments}
		if !slices.ContainsFunc(places, func(o Place) bool {
			return o.Pool == place.Pool && o.DataPool == place.DataPool && maps.Equal(o.Segments, place.Segments)
		}) {
			places = append(places, place)
		}
	}
	for _, t := range wanted {
		if len(need.GetRequisite()) > 0 && !slices.ContainsFunc(need.GetRequisite(), func(r *csi.Topology) bool { return maps.Equal(r.GetSegments(), t.GetSegments()) }) {
			continue // CSI: what is preferred is one of the requisite
		}
		for _, p := range pools {
			if segments, ok := p.match(t); ok {
				add(p, segments)
			}
		}
	}
	if len(wanted) == 0 {
		for _, p := range pools {
			add(p, nil)
		}
	}
	return places
}

// Apply returns a StorageClass's parameters as they are at a place: its pools stand for the list.
func (p *Place) Apply(parameters map[string]string) map[string]string {
	if p == nil {
		return parameters
	}
	applied := maps.Clone(parameters)
	delete(applied, Parameter)
	applied["pool"] = p.Pool
	if p.DataPool != "" {
		applied["dataPool"] = p.DataPool
	}
	return applied
}

// Describe says where somebody wants to be, for error messages.
func Describe(need *csi.TopologyRequirement) string {
	var text bytes.Buffer
	for _, t := range slices.Concat(need.GetPreferred(), need.GetRequisite()) {
		for _, key := range slices.Sorted(maps.Keys(t.GetSegments())) {
			text.WriteString(key + "=" + t.GetSegments()[key] + " ")
		}
	}
	return strings.TrimSpace(text.String())
}
