package crush_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
)

// flat is a map of that many hosts with OSDs of several weights, maybe in racks.
func flat(hosts, perHost, racks int) string {
	var s strings.Builder
	s.WriteString("tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n" +
		"tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\ntunable straw_calc_version 1\n")
	for i := range hosts * perHost {
		fmt.Fprintf(&s, "device %d osd.%d\n", i, i)
	}
	s.WriteString("type 0 osd\ntype 1 host\ntype 2 rack\ntype 3 root\n")
	for h := range hosts {
		fmt.Fprintf(&s, "host h%d {\nalg straw2\n", h)
		for o := range perHost {
			fmt.Fprintf(&s, "item osd.%d weight %d.0\n", h*perHost+o, 1+o%3)
		}
		s.WriteString("}\n")
	}
	child, children := "h", hosts
	for r := range racks {
		fmt.Fprintf(&s, "rack r%d {\nalg straw2\n", r)
		for h := r * hosts / racks; h < (r+1)*hosts/racks; h++ {
			fmt.Fprintf(&s, "item h%d\n", h)
		}
		s.WriteString("}\n")
		child, children = "r", racks
	}
	s.WriteString("root default {\nalg straw2\n")
	for i := range children {
		fmt.Fprintf(&s, "item %s%d\n", child, i)
	}
	s.WriteString("}\nrule r {\nid 0\ntype replicated\nmin_size 1\nmax_size 10\nstep take default\nstep chooseleaf firstn 0 type host\nstep emit\n}\n")
	return s.String()
}

// benchMaps are the maps whose rates are measured, and how many inputs take about a second.
var benchMaps = []struct {
	name                          string
	hosts, perHost, racks, inputs int
}{
	{"100 OSDs", 10, 10, 0, 400_000},
	{"1000 OSDs", 50, 20, 0, 150_000},
	{"10000 OSDs flat", 500, 20, 0, 30_000},
	{"10000 OSDs in 20 racks", 500, 20, 20, 150_000},
}

func mapperOf(b *testing.B, text string) *crush.Mapper {
	b.Helper()
	m, err := crush.Parse([]byte(text))
	if err != nil {
		b.Fatal(err)
	}
	mapper, err := crush.NewMapper(m, 0)
	if err != nil {
		b.Fatal(err)
	}
	return mapper
}

// BenchmarkDo maps inputs to three replicas on different hosts.
func BenchmarkDo(b *testing.B) {
	for _, c := range benchMaps {
		b.Run(c.name, func(b *testing.B) {
			mapper := mapperOf(b, flat(c.hosts, c.perHost, c.racks))
			out := make([]crush.ItemID, 0, 3)
			b.ReportAllocs()
			x := int32(0)
			for b.Loop() {
				var err error
				if out, err = mapper.Do(out[:0], 0, x, 3); err != nil {
					b.Fatal(err)
				}
				x++
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mappings/s")
		})
	}
}
