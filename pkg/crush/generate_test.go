package crush_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator writes random text maps.
type generator struct {
	*rand.Rand
	algorithms []string
	text       strings.Builder
	nextID     int
	ids        []int // of straw2 buckets, in the order written
	sizes      []int
	osds       int
	classes    []string
}

// randomMap is a map with its rules' numbers and the OSDs it has.
type randomMap struct {
	text  string
	rules int
	osds  int
}

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

// chance is true once in n times.
func (g *generator) chance(n int) bool { return g.IntN(n) == 0 }

func (g *generator) printf(format string, args ...any) { fmt.Fprintf(&g.text, format, args...) }

// generate writes a map of OSDs in hosts, maybe in racks, below a root or two.
func generate(seed uint64, algorithms []string) randomMap {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), algorithms: algorithms, nextID: -1}
	g.tunables()
	if g.chance(2) {
		g.classes = []string{"ssd", "hdd", "nvme"}[:1+g.IntN(3)]
	}
	hosts := 1 + g.IntN(20)
	perHost := 1 + g.IntN(8)
	if g.chance(10) {
		hosts, perHost = 30+g.IntN(40), 1+g.IntN(20)
	}
	g.devices(hosts * perHost)
	g.printf("type 0 osd\ntype 1 host\ntype 2 rack\ntype 3 root\n")
	g.hierarchy(hosts, perHost)
	rules := g.rules()
	g.chooseArgs()
	return randomMap{text: g.text.String(), rules: rules, osds: g.osds}
}

func (g *generator) tunables() {
	switch g.IntN(3) {
	case 0: // today's
		g.printf("tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n")
		g.printf("tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\ntunable straw_calc_version 1\n")
	case 1:
		g.printf("tunable choose_local_tries %d\ntunable choose_local_fallback_tries %d\n", g.IntN(4), g.IntN(7))
		g.printf("tunable choose_total_tries %d\ntunable chooseleaf_descend_once %d\n", g.IntN(60), g.IntN(2))
		g.printf("tunable chooseleaf_vary_r %d\ntunable chooseleaf_stable %d\ntunable straw_calc_version %d\n", g.IntN(5), g.IntN(2), g.IntN(2))
	default: // the oldest, by saying nothing
	}
}

func (g *generator) devices(n int) {
	g.osds = n
	for i := range n {
		g.printf("device %d osd.%d", i, i)
		switch { // every class has an OSD, or crushtool refuses the rules
		case i < len(g.classes):
			g.printf(" class %s", g.classes[i])
		case len(g.classes) > 0 && !g.chance(8):
			g.printf(" class %s", g.pick(g.classes...))
		}
		g.printf("\n")
	}
}

// weight is a weight with three decimals, often round, sometimes zero.
func (g *generator) weight() float64 {
	switch g.IntN(8) {
	case 0:
		return 0
	case 1, 2, 3:
		return float64(g.IntN(4) + 1)
	default:
		return float64(g.IntN(20000)) / 1000
	}
}

type item struct {
	name   string
	weight float64
}

// bucket writes one, and returns it as an item of the next level.
func (g *generator) bucket(kind, name string, items []item) item {
	alg := g.pick(g.algorithms...)
	if alg == "tree" && len(g.classes) > 0 {
		alg = "list" // crushtool builds copies of trees from memory that it has not set
	}
	if len(items) == 0 {
		alg = "straw2" // crushtool aborts on others that are empty
	}
	if alg == "uniform" {
		for i := range items {
			items[i].weight = max(items[0].weight, 1) // crushtool aborts on weight 0 here
		}
		if len(g.classes) > 0 {
			alg = "straw2" // crushtool refuses copies for classes
		}
	}
	g.printf("%s %s {\n\tid %d\n\talg %s\n\thash 0\n", kind, name, g.nextID, alg)
	if alg == "straw2" {
		g.ids, g.sizes = append(g.ids, g.nextID), append(g.sizes, len(items))
	}
	g.nextID -= 1 + g.IntN(2)
	var sum float64
	for _, i := range items {
		g.printf("\titem %s weight %.3f\n", i.name, i.weight)
		sum += i.weight
	}
	g.printf("}\n")
	return item{name, sum}
}

func (g *generator) hierarchy(hosts, perHost int) {
	var racks, all []item
	osd := 0
	racked := g.chance(2)
	perRack := 1 + g.IntN(5)
	for h := range hosts {
		var items []item
		same := g.weight()
		for range perHost {
			w := same
			if !g.chance(3) {
				w = g.weight()
			}
			items = append(items, item{fmt.Sprintf("osd.%d", osd), w})
			osd++
		}
		if g.chance(15) {
			items = nil
		}
		all = append(all, g.bucket("host", fmt.Sprintf("host%d", h), items))
		if racked && (len(all) == perRack || h == hosts-1) {
			racks = append(racks, g.bucket("rack", fmt.Sprintf("rack%d", len(racks)), all))
			all = nil
		}
	}
	if racked {
		all = racks
	}
	for i := range all {
		if g.chance(6) { // a weight that does not add up, as after `ceph osd crush reweight-subtree`
			all[i].weight = g.weight()
		}
	}
	g.bucket("root", "default", all)
}

// rules writes some, each of another shape.
func (g *generator) rules() int {
	n := 3
	for i := range n {
		g.printf("rule r%d {\n\tid %d\n\ttype %s\n\tmin_size 1\n\tmax_size 10\n", i, i, g.pick("replicated", "erasure"))
		for _, set := range []string{"choose_tries", "chooseleaf_tries", "choose_local_tries", "choose_local_fallback_tries", "chooseleaf_vary_r", "chooseleaf_stable"} {
			if g.chance(8) {
				g.printf("\tstep set_%s %d\n", set, g.IntN(12))
			}
		}
		for range 1 + g.IntN(8)/7 {
			g.take()
			g.choose()
			g.printf("\tstep emit\n")
		}
		g.printf("}\n")
	}
	return n
}

func (g *generator) take() {
	g.printf("\tstep take default")
	if len(g.classes) > 0 && g.chance(2) {
		g.printf(" class %s", g.pick(g.classes...))
	}
	g.printf("\n")
}

func (g *generator) choose() {
	mode := g.pick("firstn", "indep")
	switch g.IntN(6) {
	case 0: // a rule that ends at buckets makes crushtool write beyond its memory
		g.printf("\tstep choose %s %d type osd\n", mode, g.IntN(5)-1)
	case 1:
		g.printf("\tstep choose %s %d type %s\n", mode, g.IntN(4), g.pick("host", "rack"))
		g.printf("\tstep choose%s %s %d type osd\n", g.pick("", "leaf"), mode, g.IntN(4))
	case 2:
		g.printf("\tstep choose %s %d type rack\n", mode, g.IntN(4))
		g.printf("\tstep chooseleaf %s %d type host\n", g.pick("firstn", "indep"), g.IntN(4))
	default:
		g.printf("\tstep chooseleaf %s %d type %s\n", mode, g.IntN(3)-g.IntN(2), g.pick("osd", "host", "rack"))
	}
}

// chooseArgs writes weight sets and ids for some straw2 buckets.
func (g *generator) chooseArgs() {
	if !g.chance(3) {
		return
	}
	g.printf("choose_args %s {\n", g.pick("0", "0", "7"))
	for i, id := range g.ids {
		if g.chance(3) || g.sizes[i] == 0 {
			continue
		}
		g.printf("{ bucket_id %d\n", id)
		if !g.chance(4) {
			g.printf("weight_set [\n")
			for range 1 + g.IntN(3) {
				g.printf("[")
				for range g.sizes[i] {
					g.printf(" %.3f", g.weight())
				}
				g.printf(" ]\n")
			}
			g.printf("]\n")
		}
		if g.chance(3) {
			g.printf("ids [")
			for range g.sizes[i] {
				g.printf(" %d", g.IntN(4000)-2000)
			}
			g.printf(" ]\n")
		}
		g.printf("}\n")
	}
	g.printf("}\n")
}
