package placementtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// Random is a made-up cluster of its own kind: racks or none, one or two device classes,
// odd sizes, several pools.
type Random struct {
	OSDs  []RandomOSD
	Racks int
	Pools []RandomPool
	Bytes map[osdmap.PG]int64 // nil: shards count the same
}

// RandomOSD is one of its OSDs.
type RandomOSD struct {
	Host, Rack int
	Class      string
	Milli      int // weight in thousandths
}

// Domain is what a pool spreads its places over.
type Domain int

// The domains. TwoRacks is two hosts in each of two racks.
const (
	OverHosts Domain = iota
	OverRacks
	OverOSDs
	TwoRacks
)

// RandomPool is one of its pools; Class may be "".
type RandomPool struct {
	Pool
	Domain Domain
	Class  string
}

// NewRandom makes one.
func NewRandom(seed uint64) *Random {
	random := rand.New(rand.NewPCG(seed, 11)) //nolint:gosec // made-up clusters, the same at each run
	r := &Random{}
	if random.IntN(2) == 0 {
		r.Racks = 3 + random.IntN(3)
	}
	hosts := 6 + random.IntN(10)
	classes := []string{"hdd", "ssd"}[:1+random.IntN(2)]
	for h := range hosts {
		rack := 0
		if r.Racks > 0 {
			rack = h % r.Racks
		}
		for i := range len(classes) + random.IntN(5) {
			r.OSDs = append(r.OSDs, RandomOSD{h, rack, classes[i%len(classes)], 500 + random.IntN(8)*1819})
		}
	}
	for id := range 1 + random.IntN(4) {
		r.Pools = append(r.Pools, r.pool(random, int64(id+1), uint8(id), classes))
	}
	if random.IntN(2) == 0 {
		r.Bytes = map[osdmap.PG]int64{}
		for _, p := range r.Pools {
			size := int64(1+random.IntN(20)) << 30
			for pg := range p.PGs {
				r.Bytes[osdmap.PG{Pool: p.ID, Seed: pg}] = size + random.Int64N(size/4)
			}
		}
	}
	return r
}

func (r *Random) pool(random *rand.Rand, id int64, rule uint8, classes []string) RandomPool {
	p := RandomPool{Pool: Pool{ID: id, Type: crush.Replicated, Size: 3, Rule: rule, PGs: 256 << random.IntN(3)}}
	p.PGPs = p.PGs
	if random.IntN(2) == 0 || len(classes) > 1 {
		p.Class = classes[random.IntN(len(classes))]
	}
	switch choice := random.IntN(5); {
	case choice == 0 && r.Racks > 0:
		p.Domain = OverRacks
	case choice == 1:
		p.Domain = OverOSDs
	case choice == 2:
		p.Type, p.Size = crush.Erasure, 5
	case choice == 3 && r.Racks > 0:
		p.Domain, p.Size = TwoRacks, 4
	default:
		p.Size = uint8(2 + random.IntN(2))
	}
	return p
}

// Text is its CRUSH map.
func (r *Random) Text() string {
	var s strings.Builder
	s.WriteString("tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n" +
		"tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\ntunable straw_calc_version 1\n")
	for i, o := range r.OSDs {
		fmt.Fprintf(&s, "device %d osd.%d class %s\n", i, i, o.Class)
	}
	s.WriteString("type 0 osd\ntype 1 host\ntype 2 rack\ntype 3 root\n")
	hosts := map[int][]string{}
	for h := 0; ; h++ {
		rack, some := 0, false
		var items strings.Builder
		for i, o := range r.OSDs {
			if o.Host == h {
				fmt.Fprintf(&items, "\titem osd.%d weight %d.%03d\n", i, o.Milli/1000, o.Milli%1000)
				rack, some = o.Rack, true
			}
		}
		if !some {
			break
		}
		fmt.Fprintf(&s, "host h%d {\n\talg straw2\n%s}\n", h, items.String())
		hosts[rack] = append(hosts[rack], fmt.Sprintf("\titem h%d\n", h))
	}
	top := hosts[0]
	if r.Racks > 0 {
		top = nil
		for rack := range r.Racks {
			fmt.Fprintf(&s, "rack r%d {\n\talg straw2\n%s}\n", rack, strings.Join(hosts[rack], ""))
			top = append(top, fmt.Sprintf("\titem r%d\n", rack))
		}
	}
	fmt.Fprintf(&s, "root default {\n\talg straw2\n%s}\n", strings.Join(top, ""))
	for i, p := range r.Pools {
		p.rule(&s, i)
	}
	return s.String()
}

func (p RandomPool) rule(s *strings.Builder, id int) {
	kind, mode, class := "replicated", "firstn", ""
	if p.Type == crush.Erasure {
		kind, mode = "erasure", "indep"
	}
	if p.Class != "" {
		class = " class " + p.Class
	}
	fmt.Fprintf(s, "rule p%d {\n\tid %d\n\ttype %s\n\tmin_size 1\n\tmax_size 10\n\tstep take default%s\n", id, id, kind, class)
	switch p.Domain {
	case OverOSDs:
		fmt.Fprintf(s, "\tstep choose %s 0 type osd\n", mode)
	case OverRacks:
		fmt.Fprintf(s, "\tstep chooseleaf %s 0 type rack\n", mode)
	case TwoRacks:
		fmt.Fprintf(s, "\tstep choose %s 2 type rack\n\tstep chooseleaf %s 2 type host\n", mode, mode)
	default:
		fmt.Fprintf(s, "\tstep chooseleaf %s 0 type host\n", mode)
	}
	s.WriteString("\tstep emit\n}\n")
}

// Image makes its map.
func (r *Random) Image(t testing.TB) *Image {
	t.Helper()
	im := New(t, len(r.OSDs), Compile(t, r.Text()))
	for _, p := range r.Pools {
		im.Pools = append(im.Pools, p.Pool)
	}
	return im
}
