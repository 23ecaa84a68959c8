package osdmap_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
)

// crushText is a map of hosts with OSDs of random weights and two rules, one of them for
// erasure coding.
func crushText(random *rand.Rand, hosts, perHost int) string {
	var s strings.Builder
	s.WriteString("tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n" +
		"tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\ntunable straw_calc_version 1\n")
	for i := range hosts * perHost {
		fmt.Fprintf(&s, "device %d osd.%d\n", i, i)
	}
	s.WriteString("type 0 osd\ntype 1 host\ntype 2 root\n")
	for h := range hosts {
		fmt.Fprintf(&s, "host h%d {\n\talg straw2\n", h)
		for o := range perHost {
			fmt.Fprintf(&s, "\titem osd.%d weight %d.000\n", h*perHost+o, 1+random.IntN(5))
		}
		s.WriteString("}\n")
	}
	s.WriteString("root default {\n\talg straw2\n")
	for h := range hosts {
		fmt.Fprintf(&s, "\titem h%d\n", h)
	}
	s.WriteString("}\n")
	for i, kind := range []string{"replicated", "erasure"} {
		fmt.Fprintf(&s, "rule r%d {\n\tid %d\n\ttype %s\n\tmin_size 1\n\tmax_size 10\n\tstep take default\n\tstep chooseleaf %s 0 type host\n\tstep emit\n}\n",
			i, i, kind, []string{"firstn", "indep"}[i])
	}
	return s.String()
}

// randomImage is a map with a few pools, and overrides of all kinds.
func randomImage(t *testing.T, seed uint64) *placementtest.Image {
	random := rand.New(rand.NewPCG(seed, 7))
	hosts, perHost := 3+random.IntN(6), 1+random.IntN(4)
	osds := hosts * perHost
	im := placementtest.New(t, osds, placementtest.Compile(t, crushText(random, hosts, perHost)))
	for i := range im.OSDs {
		o := &im.OSDs[i]
		switch random.IntN(12) {
		case 0:
			o.Up = false
		case 1:
			o.Weight = 0
		case 2:
			o.Weight = crush.Weight(random.IntN(int(crush.One)))
		case 3:
			*o = osdmap.OSD{Affinity: osdmap.FullAffinity}
		case 4, 5:
			o.Affinity = uint32(random.IntN(osdmap.FullAffinity + 1))
		}
	}
	for p := range 1 + random.IntN(3) {
		kind := random.IntN(2)
		pool := placementtest.Pool{
			ID: int64(1 + p*3), Type: []uint8{crush.Replicated, crush.Erasure}[kind], Size: uint8(1 + random.IntN(6)), Rule: uint8(kind),
			PGs: uint32(1 + random.IntN(300)),
		}
		pool.PGPs = pool.PGs
		if random.IntN(3) == 0 {
			pool.PGPs = 1 + pool.PGs/2
		}
		im.Pools = append(im.Pools, pool)
		override(random, im, pool, osds)
	}
	return im
}

// override gives some PGs upmaps, also senseless ones, and temporary places.
func override(random *rand.Rand, im *placementtest.Image, pool placementtest.Pool, osds int) {
	some := func() crush.ItemID { return crush.ItemID(random.IntN(osds)) }
	list := func() []crush.ItemID {
		ids := make([]crush.ItemID, 1+random.IntN(int(pool.Size)))
		for i, id := range random.Perm(max(osds, len(ids)))[:len(ids)] {
			ids[i] = crush.ItemID(id % osds)
		}
		return ids
	}
	for seed := range pool.PGs {
		pg := osdmap.PG{Pool: pool.ID, Seed: seed}
		if random.IntN(2) == 0 {
			for range 1 + random.IntN(3*osds) {
				im.Items[pg] = append(im.Items[pg], osdmap.Pair{From: some(), To: some()})
			}
		}
		if random.IntN(8) == 0 {
			im.Upmap[pg] = list()
		}
		if random.IntN(8) == 0 {
			im.Temp[pg] = list()
		}
		if random.IntN(12) == 0 {
			im.Primary[pg] = some()
		}
	}
}

// TestMappingsAreThoseOfOsdmaptool compares all mappings of random OSD maps. HOLDFAST_OSDMAPS
// sets how many maps.
func TestMappingsAreThoseOfOsdmaptool(t *testing.T) {
	placementtest.NeedTools(t)
	maps, err := strconv.ParseUint(cmp.Or(os.Getenv("HOLDFAST_OSDMAPS"), "20"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for seed := range maps {
		im := randomImage(t, seed)
		file := im.Write(t)
		m, err := osdmap.Parse(placementtest.Dump(t, file))
		if err != nil {
			t.Fatal(err)
		}
		c, err := crush.Parse(im.Crush)
		if err != nil {
			t.Fatal(err)
		}
		mapper, err := osdmap.NewMapper(m, c)
		if err != nil {
			t.Fatal(err)
		}
		want := placementtest.Mappings(t, file)
		for _, pool := range m.Pools {
			for pgSeed := range pool.PGs {
				pg := osdmap.PG{Pool: pool.ID, Seed: pgSeed}
				got, err := mapper.Map(pg)
				if err != nil {
					t.Fatal(err)
				}
				if w, ok := want[pg]; !ok || !same(got, w) {
					t.Fatalf("seed %d: %s: got %v, osdmaptool says %v (raw, target, up, acting)", seed, pg, got, w)
				}
				count++
			}
		}
	}
	t.Logf("%d mappings are the same", count)
}

// same compares all but Target, which osdmaptool does not tell.
func same(a, b osdmap.Mapping) bool {
	return slices.Equal(a.Raw, b.Raw) && slices.Equal(a.Up, b.Up) && slices.Equal(a.Acting, b.Acting) &&
		a.RawPrimary == b.RawPrimary && a.UpPrimary == b.UpPrimary && a.ActingPrimary == b.ActingPrimary
}
