package ceph

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// PGs is how the cluster's PGs are.
type PGs struct {
	Settled   bool // all active+clean: nothing moves, nothing is missing
	Misplaced int64
	Degraded  int64
	// Lacking is the part of all copies that are missing.
	Lacking float64
}

// LookAtPGs asks the manager how the PGs are. It hears of a new map a moment late.
func LookAtPGs(ctx context.Context, c Cluster) (PGs, error) {
	data, err := c.Mgr(ctx, map[string]any{"prefix": "pg stat"}, nil)
	if err != nil {
		return PGs{}, err
	}
	var stat struct {
		Summary struct {
			ByState []struct {
				Name string `json:"name"`
				Num  int    `json:"num"`
			} `json:"num_pg_by_state"`
			Misplaced int64   `json:"misplaced_objects"`
			Degraded  int64   `json:"degraded_objects"`
			Lacking   float64 `json:"degraded_ratio"`
		} `json:"pg_summary"`
	}
	if err := json.Unmarshal(data, &stat); err != nil || len(stat.Summary.ByState) == 0 {
		return PGs{}, fault.New(fault.Unavailable, "read the PGs' states from %.200q: %w", data, err)
	}
	p := PGs{Settled: true, Misplaced: stat.Summary.Misplaced, Degraded: stat.Summary.Degraded, Lacking: stat.Summary.Lacking}
	for _, s := range stat.Summary.ByState {
		clean := slices.Contains([]string{"active+clean", "active+clean+scrubbing", "active+clean+scrubbing+deep", "active+clean+snaptrim", "active+clean+snaptrim_wait"}, s.Name)
		p.Settled = p.Settled && (clean || s.Num == 0)
	}
	return p, nil
}
