package placementtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// Host is a host and the weights of its OSDs, in TB or whatever; rack is its rack's
// number where the tree has racks.
type Host struct {
	Disks []int
	Rack  int
}

// Hosts makes n hosts of that many OSDs with sizes drawn from those given.
func Hosts(seed uint64, n, disks int, sizes ...int) []Host {
	random := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // made-up disks, the same at each run
	hosts := make([]Host, n)
	for h := range hosts {
		for range disks {
			hosts[h].Disks = append(hosts[h].Disks, sizes[random.IntN(len(sizes))])
		}
	}
	return hosts
}

// Sizes of disks from 4 to 20, as sold.
var Sizes = []int{4, 6, 8, 10, 12, 14, 16, 18, 20}

// Text is a CRUSH map of the hosts with two rules: 0 replicated over hosts, 1 erasure-coded
// over hosts.
func Text(hosts []Host, racks int) string {
	var s strings.Builder
	s.WriteString("tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n" +
		"tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\ntunable straw_calc_version 1\n")
	osd := 0
	for _, h := range hosts {
		for range h.Disks {
			fmt.Fprintf(&s, "device %d osd.%d\n", osd, osd)
			osd++
		}
	}
	s.WriteString("type 0 osd\ntype 1 host\ntype 2 rack\ntype 3 root\n")
	osd = 0
	for i, h := range hosts {
		fmt.Fprintf(&s, "host h%d {\n\talg straw2\n", i)
		for _, size := range h.Disks {
			fmt.Fprintf(&s, "\titem osd.%d weight %d.000\n", osd, size)
			osd++
		}
		s.WriteString("}\n")
	}
	for r := range racks {
		fmt.Fprintf(&s, "rack r%d {\n\talg straw2\n", r)
		for i, h := range hosts {
			if h.Rack == r {
				fmt.Fprintf(&s, "\titem h%d\n", i)
			}
		}
		s.WriteString("}\n")
	}
	s.WriteString("root default {\n\talg straw2\n")
	for r := range racks {
		fmt.Fprintf(&s, "\titem r%d\n", r)
	}
	for i := range hosts {
		if racks == 0 {
			fmt.Fprintf(&s, "\titem h%d\n", i)
		}
	}
	s.WriteString("}\n")
	for i, kind := range []string{"replicated", "erasure"} {
		fmt.Fprintf(&s, "rule r%d {\n\tid %d\n\ttype %s\n\tmin_size 1\n\tmax_size 10\n\tstep take default\n\tstep chooseleaf %s 0 type host\n\tstep emit\n}\n",
			i, i, kind, []string{"firstn", "indep"}[i])
	}
	return s.String()
}

// Case is a cluster of the kind that balancers are compared on.
type Case struct {
	Name  string
	Hosts []Host
	Pools []Pool
}

// Image makes the case's map.
func (c Case) Image(t testing.TB) *Image {
	t.Helper()
	osds := 0
	for _, h := range c.Hosts {
		osds += len(h.Disks)
	}
	im := New(t, osds, Compile(t, Text(c.Hosts, 0)))
	im.Pools = c.Pools
	return im
}

func replicated(pgs uint32) Pool {
	return Pool{ID: 1, Type: crush.Replicated, Size: 3, Rule: 0, PGs: pgs, PGPs: pgs}
}

// Cases are the small ones: A has equal hosts of two sizes of disks, A3 a host with half of
// all space, B twenty hosts of mixed disks, BE the same with one erasure-coded pool.
func Cases() []Case {
	equal := []Host{{Disks: []int{4, 4, 8, 8}}, {Disks: []int{4, 4, 8, 8}}, {Disks: []int{4, 4, 8, 8}}}
	odd := []Host{{Disks: []int{4, 4, 4, 4}}, {Disks: []int{4, 4, 4, 4}}, {Disks: []int{8, 8, 8, 8}}, {Disks: []int{16, 16, 16, 16}}}
	mixed := Hosts(1, 20, 12, Sizes...)
	return []Case{
		{"A", equal, []Pool{replicated(512)}},
		{"A3", odd, []Pool{replicated(512)}},
		{"B", mixed, []Pool{replicated(8192)}},
		{"BE", mixed, []Pool{{ID: 1, Type: crush.Erasure, Size: 6, Rule: 1, PGs: 4096, PGPs: 4096}}},
	}
}

// LargeCases are C, 2400 OSDs, and D, 10,000 OSDs. Weights of D are in units of 2 TB: a root
// of 65,536 and more overflows.
func LargeCases() []Case {
	return []Case{
		{"C", Hosts(2, 100, 24, Sizes...), []Pool{replicated(65536)}},
		{"D", Hosts(3, 400, 25, 2, 3, 4, 5, 6, 7, 8, 9, 10), []Pool{replicated(262144)}},
	}
}

// Twelve is eleven replicated pools and an erasure-coded one, 4+2, on B's hosts, with PGs
// that differ between pools and, by up to a tenth, within one. It returns the bytes of the
// PGs, before replication.
func Twelve(seed uint64) (Case, map[osdmap.PG]int64) {
	random := rand.New(rand.NewPCG(seed, 5)) //nolint:gosec // made-up pools, the same at each run
	c := Case{Name: "12 pools", Hosts: Hosts(1, 20, 12, Sizes...)}
	bytes := map[osdmap.PG]int64{}
	for id := range int64(12) {
		pool := replicated(32 << random.IntN(6))
		if pool.ID = id + 1; id == 11 {
			pool = Pool{ID: 12, Type: crush.Erasure, Size: 6, Rule: 1, PGs: 2048, PGPs: 2048}
		}
		size := int64(1+random.IntN(40)) << 30
		for pg := range pool.PGs {
			bytes[osdmap.PG{Pool: pool.ID, Seed: pg}] = size + random.Int64N(size/5) - size/10
		}
		c.Pools = append(c.Pools, pool)
	}
	return c, bytes
}
