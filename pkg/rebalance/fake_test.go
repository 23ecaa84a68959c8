package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// text is a CRUSH map of three hosts of two OSDs; osd.6 and osd.7 run and are in none.
const text = `
tunable choose_local_tries 0
tunable choose_local_fallback_tries 0
tunable choose_total_tries 50
tunable chooseleaf_descend_once 1
tunable chooseleaf_vary_r 1
tunable chooseleaf_stable 1
tunable straw_calc_version 1
device 0 osd.0
device 1 osd.1
device 2 osd.2
device 3 osd.3
device 4 osd.4
device 5 osd.5
type 0 osd
type 1 host
type 10 root
host h1 {
	id -2
	alg straw2
	hash 0
	item osd.0 weight 1.000
	item osd.1 weight 1.000
}
host h2 {
	id -3
	alg straw2
	hash 0
	item osd.2 weight 2.000
	item osd.3 weight 1.000
}
host h3 {
	id -4
	alg straw2
	hash 0
	item osd.4 weight 1.000
	item osd.5 weight 2.000
}
root default {
	id -1
	alg straw2
	hash 0
	item h1 weight 2.000
	item h2 weight 3.000
	item h3 weight 3.000
}
rule data {
	id 0
	type replicated
	min_size 1
	max_size 10
	step take default
	step chooseleaf firstn 0 type host
	step emit
}
`

// fakeCeph models what this package asks a cluster: maps, upmaps, flags, health. Data moves at once, but for a time that is counted in looks.
type fakeCeph struct {
	ceph.Cluster // what is not asked for

	mu       sync.Mutex
	crush    *crush.Map
	version  int64
	weight   map[int]float64
	upmaps   map[string][]osdmap.Pair
	flags    map[string]bool
	balancer bool
	busy     int           // looks until all PGs are settled
	late     int           // looks until the manager knows of that
	slow     int           // looks that moving takes
	moving   map[int32]int // PGs by OSD since all were settled
	crowd    int           // the most of those
	degraded int64
	lacking  float64
	checks   map[string]any
	status   string
	latency  float64
	fail     func(prefix string) error
	asked    []string
}

const (
	fakePGs   = 32
	fakeBytes = 1 << 20
)

func newFake(t *testing.T) *fakeCeph {
	t.Helper()
	m, err := crush.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeCeph{crush: m, version: 7, weight: map[int]float64{}, upmaps: map[string][]osdmap.Pair{}, flags: map[string]bool{}, slow: 2, moving: map[int32]int{}, balancer: true, status: "HEALTH_OK", checks: map[string]any{}}
	for osd := range 8 {
		f.weight[osd] = 1
	}
	return f
}

func (f *fakeCeph) enter(cmd map[string]any) (string, error) {
	prefix, _ := cmd["prefix"].(string)
	f.asked = append(f.asked, prefix)
	if f.fail != nil {
		if err := f.fail(prefix); err != nil {
			return prefix, err
		}
	}
	return prefix, nil
}

func (f *fakeCeph) Mon(_ context.Context, cmd map[string]any, input []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	prefix, err := f.enter(cmd)
	if err != nil {
		return nil, err
	}
	switch prefix {
	case "osd dump":
		return f.dump(), nil
	case "osd getcrushmap":
		return f.crush.Binary()
	case "osd setcrushmap":
		if cmd["prior_version"] != f.version {
			return nil, fault.New(fault.Denied, "prior_version %v is not %d", cmd["prior_version"], f.version)
		}
		m, err := crush.Parse(input)
		if err != nil {
			return nil, err
		}
		f.crush, f.version, f.busy = m, f.version+1, 2
	case "osd set":
		f.flags[cmd["key"].(string)] = true
	case "osd unset":
		delete(f.flags, cmd["key"].(string))
	case "osd pg-upmap-items":
		ids := cmd["id"].([]int32)
		var pairs []osdmap.Pair
		for i := 0; i < len(ids); i += 2 {
			pairs = append(pairs, osdmap.Pair{From: crush.ItemID(ids[i]), To: crush.ItemID(ids[i+1])})
		}
		f.move(cmd["pgid"].(string), pairs)
	case "osd rm-pg-upmap-items":
		f.move(cmd["pgid"].(string), nil)
	case "health":
		return json.Marshal(map[string]any{"status": f.status, "checks": f.checks})
	default:
		return nil, fault.New(fault.Unsupported, "the fake knows no %q", prefix)
	}
	return nil, nil
}

// move gives a PG an upmap, and lets it move.
func (f *fakeCeph) move(pg string, pairs []osdmap.Pair) {
	for _, osd := range touched(Upmap{From: plain(f.upmaps[pg]), To: plain(pairs)}) {
		f.moving[osd]++
		f.crowd = max(f.crowd, f.moving[osd])
	}
	if f.upmaps[pg] = pairs; len(pairs) == 0 {
		delete(f.upmaps, pg)
	}
	f.busy, f.late = f.slow, 1
}

func (f *fakeCeph) Mgr(_ context.Context, cmd map[string]any, _ []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	prefix, err := f.enter(cmd)
	if err != nil {
		return nil, err
	}
	switch prefix {
	case "pg dump":
		var pgs, osds []map[string]any
		for seed := range fakePGs {
			pgs = append(pgs, map[string]any{"pgid": fmt.Sprintf("1.%x", seed), "stat_sum": map[string]int{"num_bytes": fakeBytes, "num_objects": 1}})
		}
		for osd := range f.weight {
			osds = append(osds, map[string]any{"osd": osd, "kb": 1 << 30, "kb_used": 0})
		}
		return json.Marshal(map[string]any{"pg_map": map[string]any{"pg_stats": pgs, "osd_stats": osds}})
	case "pg stat":
		state, misplaced := "active+clean", 0
		if f.late > 0 {
			f.late--
		} else if f.busy > 0 {
			if !f.flags[holding] {
				f.busy--
			}
			if f.busy == 0 {
				clear(f.moving)
			}
			state, misplaced = "active+remapped+backfilling", f.busy+1
		}
		return json.Marshal(map[string]any{"pg_summary": map[string]any{
			"num_pg_by_state":   []map[string]any{{"name": state, "num": fakePGs}},
			"misplaced_objects": misplaced, "degraded_objects": f.degraded, "degraded_ratio": f.lacking,
		}})
	case "balancer status":
		return json.Marshal(map[string]bool{"active": f.balancer})
	case "balancer off":
		f.balancer = false
		return nil, nil
	case "osd perf":
		return json.Marshal(map[string]any{"osdstats": map[string]any{"osd_perf_infos": []any{
			map[string]any{"id": 0, "perf_stats": map[string]float64{"commit_latency_ms": f.latency}},
		}}})
	default:
		return nil, fault.New(fault.Unsupported, "the fake knows no %q", prefix)
	}
}

// dump is `osd dump` of the fields that are read.
func (f *fakeCeph) dump() []byte {
	var osds, items []map[string]any
	for _, osd := range slices.Sorted(maps.Keys(f.weight)) {
		osds = append(osds, map[string]any{"osd": osd, "up": 1, "in": 1, "weight": f.weight[osd]})
	}
	for _, pg := range slices.Sorted(maps.Keys(f.upmaps)) {
		var pairs []map[string]any
		for _, p := range f.upmaps[pg] {
			pairs = append(pairs, map[string]any{"from": p.From, "to": p.To})
		}
		items = append(items, map[string]any{"pgid": pg, "mappings": pairs})
	}
	data, _ := json.Marshal(map[string]any{
		"epoch": 1, "max_osd": 8, "crush_version": f.version, "flags_set": slices.Collect(maps.Keys(f.flags)),
		"nearfull_ratio": 0.85, "backfillfull_ratio": 0.9, "full_ratio": 0.95,
		"pools": []map[string]any{{"pool": 1, "pool_name": "data", "flags": 1, "type": 1, "size": 2, "min_size": 1, "crush_rule": 0, "pg_num": fakePGs, "pg_placement_num": fakePGs}},
		"osds":  osds, "pg_upmap_items": items,
	})
	return data
}

// counts how often something was asked for.
func (f *fakeCeph) count(prefix string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, each := range f.asked {
		if each == prefix {
			n++
		}
	}
	return n
}
