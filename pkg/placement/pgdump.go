package placement

import (
	"encoding/json"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// PGForms says for people what ParsePGDump reads.
const PGForms = "what the PGs hold, in JSON: `ceph pg dump -f json`"

// pgMap has the fields of PGMap::dump that matter here.
type pgMap struct {
	PGs []struct {
		ID  string `json:"pgid"`
		Sum struct {
			Bytes   int64 `json:"num_bytes"`
			Objects int64 `json:"num_objects"`
		} `json:"stat_sum"`
	} `json:"pg_stats"`
	OSDs []struct {
		ID   crush.ItemID `json:"osd"`
		Size int64        `json:"kb"`
		Used int64        `json:"kb_used"`
	} `json:"osd_stats"`
}

// ParsePGDump reads what PGs hold and how large the OSDs are. Since Nautilus the map is
// wrapped in "pg_map"; both forms are read, and what was printed before the JSON is
// skipped.
func ParsePGDump(data []byte) (map[osdmap.PG]PGStat, map[crush.ItemID]Disk, error) {
	for i, c := range data {
		if c == '{' {
			data = data[i:]
			break
		}
	}
	var wrapped struct {
		Map *pgMap `json:"pg_map"`
		pgMap
	}
	if err := json.Unmarshal(data, &wrapped); err != nil {
		return nil, nil, fault.New(fault.Invalid, "the JSON of `ceph pg dump`: %w", err)
	}
	m := wrapped.Map
	if m == nil {
		m = &wrapped.pgMap
	}
	if m.PGs == nil {
		return nil, nil, fault.New(fault.Invalid, "pg_stats: the JSON of `ceph pg dump` has them")
	}
	pgs, disks := map[osdmap.PG]PGStat{}, map[crush.ItemID]Disk{}
	for i, p := range m.PGs {
		pg, err := osdmap.ParsePG(p.ID)
		if err != nil {
			return nil, nil, fault.New(fault.Invalid, "pg_stats[%d]: %w", i, err)
		}
		if p.Sum.Bytes < 0 || p.Sum.Bytes > 1<<50 {
			return nil, nil, fault.New(fault.Invalid, "pg_stats[%d]: num_bytes is %d", i, p.Sum.Bytes)
		}
		pgs[pg] = PGStat{Bytes: p.Sum.Bytes, Objects: p.Sum.Objects}
	}
	for _, o := range m.OSDs {
		disks[o.ID] = Disk{Size: o.Size << 10, Used: o.Used << 10}
	}
	return pgs, disks, nil
}
