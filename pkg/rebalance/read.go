// Package rebalance moves PGs of a living cluster: it reads what placement plans are made from, makes such a plan of it, and
// does the plan's waves.
//
// Invariant: a wave sets upmaps of the PGs that it names, from what they were to what the plan says, and nothing else. Where
// the map is neither, it stops.
//
// It must not import who runs plans.
package rebalance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// Subject is what plans of this package change.
const Subject = "placement"

// State is what a plan is made from, as far as a change of it makes the plan wrong.
type State struct {
	CRUSH string            `json:"crush"` // SHA-256 of the map
	OSDs  map[string]string `json:"osds"`  // "osd.3": its in-weight
	Pools map[string]string `json:"pools"`
	// Upmaps are pg_upmap_items: pairs of an OSD that CRUSH chose and the one instead.
	Upmaps map[string][][2]int32 `json:"upmaps"`
}

// Read asks the cluster for what plans are made from.
func Read(ctx context.Context, c ceph.Cluster) (placement.Cluster, State, error) {
	var p placement.Cluster
	dump, err := c.Mon(ctx, map[string]any{"prefix": "osd dump"}, nil)
	if err != nil {
		return p, State{}, err
	}
	if p.OSDs, err = osdmap.Parse(dump); err != nil {
		return p, State{}, err
	}
	binary, err := c.Mon(ctx, map[string]any{"prefix": "osd getcrushmap"}, nil)
	if err != nil {
		return p, State{}, err
	}
	if p.Crush, err = crush.Parse(binary); err != nil {
		return p, State{}, err
	}
	pgs, err := c.Mgr(ctx, map[string]any{"prefix": "pg dump"}, nil)
	if err != nil {
		return p, State{}, err
	}
	if p.PGs, p.Disks, err = placement.ParsePGDump(pgs); err != nil {
		return p, State{}, err
	}
	return p, stateOf(p, binary), nil
}

func stateOf(p placement.Cluster, binary []byte) State {
	sum := sha256.Sum256(binary)
	s := State{CRUSH: hex.EncodeToString(sum[:]), OSDs: map[string]string{}, Pools: map[string]string{}, Upmaps: map[string][][2]int32{}}
	for id, o := range p.OSDs.OSDs {
		if o.Exists {
			s.OSDs[fmt.Sprint("osd.", id)] = fmt.Sprint(o.Weight)
		}
	}
	for _, pool := range p.OSDs.Pools {
		s.Pools[fmt.Sprint(pool.ID)] = fmt.Sprintf("size %d, %d PGs, rule %d", pool.Size, pool.PGs, pool.Rule)
	}
	for pg, pairs := range p.OSDs.UpmapItems {
		s.Upmaps[pg.String()] = plain(pairs)
	}
	return s
}

func plain(pairs []osdmap.Pair) [][2]int32 {
	list := make([][2]int32, 0, len(pairs))
	for _, p := range pairs {
		list = append(list, [2]int32{int32(p.From), int32(p.To)})
	}
	return list
}

// upmaps reads the pg_upmap_items in force.
func upmaps(ctx context.Context, c ceph.Cluster) (map[string][][2]int32, error) {
	dump, err := c.Mon(ctx, map[string]any{"prefix": "osd dump"}, nil)
	if err != nil {
		return nil, err
	}
	m, err := osdmap.Parse(dump)
	if err != nil {
		return nil, err
	}
	all := map[string][][2]int32{}
	for pg, pairs := range m.UpmapItems {
		all[pg.String()] = plain(pairs)
	}
	return all, nil
}

// pgs is how the cluster's PGs are.
type pgs struct {
	Settled   bool // all active+clean: nothing moves, nothing is missing
	Misplaced int64
	Degraded  int64
}

// look asks the manager how the PGs are.
func look(ctx context.Context, c ceph.Cluster) (pgs, error) {
	data, err := c.Mgr(ctx, map[string]any{"prefix": "pg stat"}, nil)
	if err != nil {
		return pgs{}, err
	}
	var stat struct {
		Summary struct {
			ByState []struct {
				Name string `json:"name"`
				Num  int    `json:"num"`
			} `json:"num_pg_by_state"`
			Misplaced int64 `json:"misplaced_objects"`
			Degraded  int64 `json:"degraded_objects"`
		} `json:"pg_summary"`
	}
	if err := json.Unmarshal(data, &stat); err != nil || len(stat.Summary.ByState) == 0 {
		return pgs{}, fault.New(fault.Unavailable, "read the PGs' states from %.200q: %w", data, err)
	}
	p := pgs{Settled: true, Misplaced: stat.Summary.Misplaced, Degraded: stat.Summary.Degraded}
	for _, s := range stat.Summary.ByState {
		clean := slices.Contains([]string{"active+clean", "active+clean+scrubbing", "active+clean+scrubbing+deep", "active+clean+snaptrim", "active+clean+snaptrim_wait"}, s.Name)
		p.Settled = p.Settled && (clean || s.Num == 0)
	}
	return p, nil
}
