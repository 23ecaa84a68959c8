package osdmap

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Forms says for people what Parse reads.
const Forms = "the OSD map in JSON: `ceph osd dump -f json` or `osdmaptool FILE --dump json`"

// The largest numbers that are taken: far beyond any cluster, and small enough to
// allocate by.
const (
	maxOSDs = 1 << 20
	maxPGs  = 1 << 24
	maxSize = 256
)

// jsonMap has the fields of OSDMap::dump that matter here.
type jsonMap struct {
	Epoch        int64
	MaxOSD       *int    `json:"max_osd"`
	MinCompat    string  `json:"require_min_compat_client"`
	NearFull     float64 `json:"nearfull_ratio"`
	BackfillFull float64 `json:"backfillfull_ratio"`
	Full         float64 `json:"full_ratio"`
	Pools        []struct {
		ID      int64  `json:"pool"`
		Name    string `json:"pool_name"`
		Flags   uint64
		Type    uint8
		Size    int
		MinSize int     `json:"min_size"`
		Rule    int     `json:"crush_rule"`
		PGs     uint32  `json:"pg_num"`
		PGPs    uint32  `json:"pg_placement_num"`
		Pending *uint32 `json:"pg_num_pending"`
		Profile string  `json:"erasure_code_profile"`
	}
	OSDs []struct {
		OSD      int
		Up, In   int
		Weight   float64
		Affinity *float64 `json:"primary_affinity"`
	}
	Upmap []struct {
		PG   string `json:"pgid"`
		OSDs []crush.ItemID
	} `json:"pg_upmap"`
	UpmapItems []struct {
		PG       string `json:"pgid"`
		Mappings []Pair
	} `json:"pg_upmap_items"`
	Temp []struct {
		PG   string `json:"pgid"`
		OSDs []crush.ItemID
	} `json:"pg_temp"`
	PrimaryTemp []json.RawMessage            `json:"primary_temp"`
	Profiles    map[string]map[string]string `json:"erasure_code_profiles"`
}

// Parse reads a map. What `osdmaptool` or a shell printed before the JSON is skipped.
// Errors name the field.
func Parse(data []byte) (*Map, error) {
	for i, c := range data {
		if c == '{' {
			data = data[i:]
			break
		}
	}
	var j jsonMap
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, fault.New(fault.Invalid, "the JSON of an OSD map: %w", err)
	}
	if j.MaxOSD == nil || *j.MaxOSD < 0 || *j.MaxOSD > maxOSDs {
		return nil, fault.New(fault.Invalid, "max_osd: an OSD map in JSON has it, 0 to %d", maxOSDs)
	}
	m := &Map{
		Epoch: j.Epoch, OSDs: make([]OSD, *j.MaxOSD), Profiles: j.Profiles, MinCompatClient: j.MinCompat,
		Ratios: Ratios{NearFull: j.NearFull, BackfillFull: j.BackfillFull, Full: j.Full},
		Upmap:  map[PG][]crush.ItemID{}, UpmapItems: map[PG][]Pair{}, Temp: map[PG][]crush.ItemID{}, PrimaryTemp: map[PG]crush.ItemID{},
	}
	for _, step := range []func(*Map) error{j.pools, j.osds, j.overrides} {
		if err := step(m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (j *jsonMap) pools(m *Map) error {
	for i, p := range j.Pools {
		switch {
		case p.Type != crush.Replicated && p.Type != crush.Erasure:
			return fault.New(fault.Invalid, "pools[%d]: type %d is neither replicated (1) nor erasure (3)", i, p.Type)
		case p.Size < 1 || p.Size > maxSize:
			return fault.New(fault.Invalid, "pools[%d]: size %d: 1 to %d are possible", i, p.Size, maxSize)
		case p.PGs < 1 || p.PGs > maxPGs || p.PGPs < 1 || p.PGPs > p.PGs:
			return fault.New(fault.Invalid, "pools[%d]: pg_num %d, pg_placement_num %d", i, p.PGs, p.PGPs)
		case m.Pool(p.ID) != nil || p.ID < 0:
			return fault.New(fault.Invalid, "pools[%d]: the id %d is taken or negative", i, p.ID)
		}
		pending := p.PGs
		if p.Pending != nil {
			pending = min(pending, max(1, *p.Pending))
		}
		m.Pools = append(m.Pools, Pool{
			ID: p.ID, Name: p.Name, Type: p.Type, Size: p.Size, MinSize: p.MinSize, Rule: p.Rule,
			PGs: p.PGs, PGPs: p.PGPs, Pending: pending, Flags: p.Flags, Profile: p.Profile,
		})
	}
	slices.SortFunc(m.Pools, func(a, b Pool) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}

func (j *jsonMap) osds(m *Map) error {
	for i, o := range j.OSDs {
		if o.OSD < 0 || o.OSD >= len(m.OSDs) {
			return fault.New(fault.Invalid, "osds[%d]: osd %d is not below max_osd", i, o.OSD)
		}
		if !(o.Weight >= 0 && o.Weight <= 1) {
			return fault.New(fault.Invalid, "osds[%d]: weight %g is not from 0 to 1", i, o.Weight)
		}
		affinity := 1.0
		if o.Affinity != nil {
			affinity = *o.Affinity
		}
		if !(affinity >= 0 && affinity <= 1) {
			return fault.New(fault.Invalid, "osds[%d]: primary_affinity %g is not from 0 to 1", i, affinity)
		}
		m.OSDs[o.OSD] = OSD{
			Exists: true, Up: o.Up != 0, Weight: crush.Weight(math.Round(o.Weight * float64(crush.One))),
			Affinity: uint32(math.Round(affinity * FullAffinity)),
		}
	}
	return nil
}

func (j *jsonMap) overrides(m *Map) error {
	for i, u := range j.Upmap {
		pg, err := ParsePG(u.PG)
		if err != nil {
			return fault.New(fault.Invalid, "pg_upmap[%d]: %w", i, err)
		}
		m.Upmap[pg] = u.OSDs
	}
	for i, u := range j.UpmapItems {
		pg, err := ParsePG(u.PG)
		if err != nil {
			return fault.New(fault.Invalid, "pg_upmap_items[%d]: %w", i, err)
		}
		m.UpmapItems[pg] = u.Mappings
	}
	for i, u := range j.Temp {
		pg, err := ParsePG(u.PG)
		if err != nil {
			return fault.New(fault.Invalid, "pg_temp[%d]: %w", i, err)
		}
		m.Temp[pg] = u.OSDs
	}
	return j.primaryTemp(m)
}

// primaryTemp reads a list that OSDMap::dump writes without braces: PG and OSD in turn.
// A release that mends it would write objects, as for the other overrides.
func (j *jsonMap) primaryTemp(m *Map) error {
	var entry struct {
		PG  string `json:"pgid"`
		OSD crush.ItemID
	}
	for i, raw := range j.PrimaryTemp {
		to := any(&entry)
		if len(raw) > 0 && raw[0] != '{' {
			to = []any{&entry.PG, &entry.OSD}[i%2]
		}
		if err := json.Unmarshal(raw, to); err != nil {
			return fault.New(fault.Invalid, "primary_temp[%d]: %w", i, err)
		}
		if to == any(&entry.PG) {
			continue
		}
		pg, err := ParsePG(entry.PG)
		if err != nil {
			return fault.New(fault.Invalid, "primary_temp[%d]: %w", i, err)
		}
		m.PrimaryTemp[pg] = entry.OSD
	}
	return nil
}
