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
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/crush"
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
	s, err := stateOf(p)
	return p, s, err
}

func stateOf(p placement.Cluster) (State, error) {
	hash, err := crushHash(p.Crush)
	if err != nil {
		return State{}, err
	}
	s := State{CRUSH: hash, Upmaps: map[string][][2]int32{}}
	s.OSDs, s.Pools = namesOf(p.OSDs)
	for pg, pairs := range p.OSDs.UpmapItems {
		s.Upmaps[pg.String()] = plain(pairs)
	}
	return s, nil
}

// namesOf are the OSDs' in-weights and what pools are like, by their names.
func namesOf(m *osdmap.Map) (osds, pools map[string]string) {
	osds, pools = map[string]string{}, map[string]string{}
	for id, o := range m.OSDs {
		if o.Exists {
			osds[fmt.Sprint("osd.", id)] = fmt.Sprint(o.Weight)
		}
	}
	for _, pool := range m.Pools {
		pools[fmt.Sprint(pool.ID)] = fmt.Sprintf("size %d, %d PGs, rule %d", pool.Size, pool.PGs, pool.Rule)
	}
	return osds, pools
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
