package topology

import (
	"errors"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

const zones = `[{"poolName":"a","domainSegments":[{"domainLabel":"region","value":"east"},{"domainLabel":"zone","value":"a"}]},
 {"poolName":"b","dataPool":"b-ec","domainSegments":[{"domainLabel":"topology.kubernetes.io/zone","value":"b"}]}]`

func at(pairs ...string) *csi.Topology {
	t := &csi.Topology{Segments: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		t.Segments["topology.kubernetes.io/"+pairs[i]] = pairs[i+1]
	}
	return t
}

func TestPlacesFitTheNeedInItsOrder(t *testing.T) {
	pools, err := Parse(zones)
	if err != nil {
		t.Fatal(err)
	}
	a := Place{Pool: "a", Segments: at("region", "east", "zone", "a").GetSegments()}
	b := Place{Pool: "b", DataPool: "b-ec", Segments: at("zone", "b").GetSegments()}
	inA, inB, inC := at("region", "east", "zone", "a"), at("region", "east", "zone", "b"), at("region", "east", "zone", "c")
	for _, c := range []struct {
		name string
		need *csi.TopologyRequirement
		want []Place
	}{
		{"preferred before requisite", &csi.TopologyRequirement{Requisite: []*csi.Topology{inA, inB}, Preferred: []*csi.Topology{inB, inA}}, []Place{b, a}},
		{"requisite alone", &csi.TopologyRequirement{Requisite: []*csi.Topology{inC, inA}}, []Place{a}},
		{"preferred alone", &csi.TopologyRequirement{Preferred: []*csi.Topology{inB}}, []Place{b}},
		{"what is preferred and not allowed", &csi.TopologyRequirement{Requisite: []*csi.Topology{inA}, Preferred: []*csi.Topology{inB}}, []Place{a}},
		{"nothing fits", &csi.TopologyRequirement{Requisite: []*csi.Topology{inC, {}}}, nil},
		{"half of it is not enough", &csi.TopologyRequirement{Requisite: []*csi.Topology{at("zone", "a")}}, nil},
		{"no need", nil, []Place{{Pool: "a"}, {Pool: "b", DataPool: "b-ec"}}},
	} {
		if diff := cmp.Diff(c.want, Choose(pools, c.need)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if diff := cmp.Diff(map[string]string{"pool": "b", "dataPool": "b-ec", "mounter": "krbd"}, b.Apply(map[string]string{"pool": "x", Parameter: zones, "mounter": "krbd"})); diff != "" {
		t.Error(diff)
	}
}

func TestBadListsAreRefused(t *testing.T) {
	for _, text := range []string{
		"", "{}", "[]", "[{}]", `[{"poolName":"a"}]`, `[{"poolName":"a","domainSegments":[{"domainLabel":"","value":"x"}]}]`,
		`[{"poolName":"a","domainSegments":[{"domainLabel":"zone","value":"x"},{"domainLabel":"zone","value":"y"}]}]`,
		`[{"poolname2":"a","domainSegments":[{"domainLabel":"zone","value":"x"}]}]`, zones + "x",
	} {
		if _, err := Parse(text); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(zones)
	f.Add(`[{"poolName":"a","domainSegments":[{"domainLabel":"zone","value":"x"}]}]`)
	f.Fuzz(func(t *testing.T, text string) {
		pools, err := Parse(text)
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		for _, p := range pools { // each fits where it says it is
			need := &csi.Topology{Segments: map[string]string{}}
			for _, d := range p.Domains {
				need.Segments[d.Label] = d.Value
			}
			if got := Choose([]Pool{p}, &csi.TopologyRequirement{Requisite: []*csi.Topology{need}}); len(got) != 1 || got[0].Pool != p.Name {
				t.Errorf("%q: pool %q does not fit %v", text, p.Name, need.GetSegments())
			}
		}
	})
}
