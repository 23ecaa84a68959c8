// Package osdmap knows what Ceph's OSD map adds to CRUSH: which pools there are, which
// OSDs exist, are up and are in, and what overrides CRUSH (upmap, primary affinity,
// pg_temp). It reads the map from the JSON of `ceph osd dump` and of `osdmaptool --dump
// json`, and maps placement groups as every client and daemon does (src/osd/OSDMap.cc).
// It is pure: it must not import os, net or any source of time or chance.
package osdmap

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// None is an empty place of an erasure-coded PG, and NoPrimary a PG without a primary.
const (
	None      = crush.None
	NoPrimary = crush.ItemID(-1)
)

// PG names a placement group.
type PG struct {
	Pool int64
	Seed uint32
}

// String is the name as Ceph prints it: the pool in decimal, the seed in hexadecimal.
func (p PG) String() string { return fmt.Sprintf("%d.%x", p.Pool, p.Seed) }

// ParsePG reads a name such as "1.1f".
func ParsePG(text string) (PG, error) {
	pool, seed, ok := strings.Cut(text, ".")
	id, err := strconv.ParseInt(pool, 10, 64)
	if ok && err == nil && id >= 0 {
		if n, err := strconv.ParseUint(seed, 16, 32); err == nil {
			return PG{Pool: id, Seed: uint32(n)}, nil
		}
	}
	return PG{}, fault.New(fault.Invalid, "%q is no placement group: want POOL.SEED, such as 1.1f", text)
}

// Compare orders PGs by pool, then by seed.
func (p PG) Compare(q PG) int {
	if p.Pool != q.Pool {
		if p.Pool < q.Pool {
			return -1
		}
		return 1
	}
	return int(int64(p.Seed) - int64(q.Seed))
}

// flagHashPSPool spreads the PGs of pools with the same number of PGs differently
// (pg_pool_t::FLAG_HASHPSPOOL); all pools of this decade have it.
const flagHashPSPool = 1

// Pool is what the map says of a pool.
type Pool struct {
	ID            int64
	Name          string
	Type          uint8 // crush.Replicated or crush.Erasure
	Size, MinSize int
	Rule          int
	PGs, PGPs     uint32 // pg_num and pgp_num
	Pending       uint32 // pg_num_pending: below PGs while PGs are to be merged
	Flags         uint64
	Profile       string // of erasure coding
}

// Erasure says whether the places of the pool's PGs have meanings of their own.
func (p *Pool) Erasure() bool { return p.Type == crush.Erasure }

// Merging says whether a PG is about to be merged into another, or another into it:
// monitors cancel its upmaps (pg_t::is_merge_source, is_merge_target).
func (p *Pool) Merging(seed uint32) bool {
	if p.Pending >= p.PGs {
		return false
	}
	if seed >= p.Pending {
		return true
	}
	for source := p.Pending; source < p.PGs; source++ {
		if stableMod(source, p.Pending) == seed {
			return true
		}
	}
	return false
}

// OSD is what the map says of an OSD. The zero value does not exist.
type OSD struct {
	Exists, Up bool
	Weight     crush.Weight // reweight: 1.0 in, 0 out
	Affinity   uint32       // primary affinity, of FullAffinity
}

// FullAffinity is the primary affinity of an OSD that is as good as others
// (CEPH_OSD_MAX_PRIMARY_AFFINITY).
const FullAffinity = 0x10000

// Pair is one exception of pg_upmap_items: To instead of From.
type Pair struct{ From, To crush.ItemID }

// Ratios are the parts of an OSD above which Ceph warns, takes no backfill and no writes.
type Ratios struct{ NearFull, BackfillFull, Full float64 }

// Map is an OSD map without its CRUSH map.
type Map struct {
	Epoch       int64
	Pools       []Pool // by rising id
	OSDs        []OSD  // by id; as long as max_osd says
	Upmap       map[PG][]crush.ItemID
	UpmapItems  map[PG][]Pair
	Temp        map[PG][]crush.ItemID
	PrimaryTemp map[PG]crush.ItemID
	Ratios      Ratios
	// Profiles are those of erasure coding, by name: k, m, plugin and so on.
	Profiles map[string]map[string]string
	// MinCompatClient is the oldest release that clients may have; upmap needs luminous.
	MinCompatClient string
}

// Pool returns the pool with that id, or nil.
func (m *Map) Pool(id int64) *Pool {
	for i := range m.Pools {
		if m.Pools[i].ID == id {
			return &m.Pools[i]
		}
	}
	return nil
}

// DataShards says over how many shards a PG's bytes are spread: k of an erasure-coded
// pool, 1 of a replicated one. An unknown profile counts as size - 1 data shards.
func (m *Map) DataShards(p *Pool) int {
	if !p.Erasure() {
		return 1
	}
	if k, err := strconv.Atoi(m.Profiles[p.Profile]["k"]); err == nil && k > 0 {
		return k
	}
	return max(1, p.Size-1)
}

// Existing counts the OSDs that exist.
func (m *Map) Existing() int {
	n := 0
	for _, o := range m.OSDs {
		if o.Exists {
			n++
		}
	}
	return n
}

// AllDown says whether OSDs exist and none of them is up, as in the map of monitors that
// run without any OSD.
func (m *Map) AllDown() bool {
	return m.Existing() > 0 && !slices.ContainsFunc(m.OSDs, func(o OSD) bool { return o.Exists && o.Up })
}

// MarkUp makes every OSD that exists up.
func (m *Map) MarkUp() {
	for i := range m.OSDs {
		m.OSDs[i].Up = m.OSDs[i].Exists
	}
}

// MarkUpIn makes every OSD exist, up and in, as `osdmaptool --mark-up-in` does.
func (m *Map) MarkUpIn() {
	for i := range m.OSDs {
		affinity := m.OSDs[i].Affinity
		if !m.OSDs[i].Exists {
			affinity = FullAffinity
		}
		m.OSDs[i] = OSD{Exists: true, Up: true, Weight: crush.One, Affinity: affinity}
	}
}
